//! From text to an expression. Input comes from outside: its length, its depth and its patterns are bounded.

use domain::Timestamp;
use regex::RegexBuilder;

use super::{
    Bound, Expression, Order, Query, Subject, Test,
    token::{Cursor, Token},
};

/// The longest expression, as Amazon bounds it.
pub const MAX_LENGTH: usize = 2000;
/// How deep brackets and negations may be nested.
const MAX_DEPTH: usize = 50;
/// What a compiled pattern may take, in bytes.
const PATTERN_SIZE: usize = 1 << 18;

/// Why an expression cannot be read: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (at character {position})")]
pub struct QueryError {
    /// For people.
    pub what: String,
    /// Counted in characters from 1.
    pub position: usize,
}

impl Query {
    /// Reads an expression. `read_time` reads an ISO 8601 time with its zone; shorter forms are made whole first.
    pub fn parse(text: &str, read_time: fn(&str) -> Option<Timestamp>) -> Result<Self, QueryError> {
        if text.chars().count() > MAX_LENGTH {
            let what = format!("an expression can have at most {MAX_LENGTH} characters");
            return Err(QueryError { what, position: MAX_LENGTH + 1 });
        }
        let mut parser = Parser { cursor: Cursor::new(text), read_time, depth: 0 };
        let expression = parser.any()?;
        match parser.cursor.peek() {
            None => Ok(Self(expression)),
            Some(token) => Err(unexpected(token, "`and`, `or` or the end")),
        }
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    read_time: fn(&str) -> Option<Timestamp>,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// `a or b or …`
    fn any(&mut self) -> Result<Expression, QueryError> {
        let mut parts = vec![self.all()?];
        while self.accept(&["or", "||"]) {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    /// `a and b and …`
    fn all(&mut self) -> Result<Expression, QueryError> {
        let mut parts = vec![self.single()?];
        while self.accept(&["and", "&&"]) {
            parts.push(self.single()?);
        }
        Ok(one_or(parts, Expression::And))
    }

    /// A negation, something in brackets, or a test.
    fn single(&mut self) -> Result<Expression, QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let what = format!("brackets and negations can be nested {MAX_DEPTH} deep");
            return Err(QueryError { what, position: self.cursor.position() });
        }
        let expression = if self.accept(&["not", "!"]) {
            Expression::Not(Box::new(self.single()?))
        } else if self.accept(&["("]) {
            let inside = self.any()?;
            self.expect(")")?;
            inside
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    /// `subject operator [argument]`
    fn test(&mut self) -> Result<Expression, QueryError> {
        let token = self.next("a subject")?;
        let subject = subject(token)?;
        let operator = self.operator()?;
        let refused = |operator: Token<'_>| QueryError {
            what: format!("`{}` cannot be asked of `{}`", operator.text, token.text),
            position: operator.position,
        };
        let test = match (operator.text, &subject) {
            ("exists" | "not_exists", Subject::Attribute(_)) => Test::Exists(operator.text == "exists"),
            ("in" | "not_in", _) if is_text(&subject) => {
                Test::In { list: self.list()?, negated: operator.text == "not_in" }
            }
            ("==" | "!=", _) if is_text(&subject) => {
                Test::In { list: vec![self.value()?.text.to_owned()], negated: operator.text == "!=" }
            }
            ("=~" | "!~", _) if is_text(&subject) => self.pattern(operator.text == "!~")?,
            ("==" | "!=" | ">" | ">=" | "<" | "<=", _) if is_ordered(&subject) => {
                let order = match operator.text {
                    "==" => Order::Equal,
                    "!=" => Order::NotEqual,
                    ">" => Order::Greater,
                    ">=" => Order::GreaterOrEqual,
                    "<" => Order::Less,
                    _ => Order::LessOrEqual,
                };
                Test::Order(order, self.bound(&subject)?)
            }
            _ => return Err(refused(operator)),
        };
        Ok(Expression::Test(subject, test))
    }

    /// An operator under its sign, or under its word where it has none.
    fn operator(&mut self) -> Result<Token<'a>, QueryError> {
        const EXPECTED: &str = "an operator";
        let mut token = self.next(EXPECTED)?;
        if token.quoted {
            return Err(unexpected(token, EXPECTED));
        }
        token.text = match token.text {
            "!" => match self.next(EXPECTED)? {
                Token { text: "exists", quoted: false, .. } => "not_exists",
                Token { text: "in", quoted: false, .. } => "not_in",
                other => return Err(unexpected(other, "`exists` or `in`")),
            },
            "equals" => "==",
            "not_equals" => "!=",
            "greater_than" => ">",
            "greater_than_equal" => ">=",
            "less_than" => "<",
            "less_than_equal" => "<=",
            "matches" => "=~",
            "not_matches" => "!~",
            known @ ("==" | "!=" | ">" | ">=" | "<" | "<=" | "=~" | "!~" | "exists" | "not_exists" | "in"
            | "not_in") => known,
            _ => return Err(unexpected(token, EXPECTED)),
        };
        Ok(token)
    }

    /// `[a, b, …]`
    fn list(&mut self) -> Result<Vec<String>, QueryError> {
        self.expect("[")?;
        let mut list = vec![self.value()?.text.to_owned()];
        while self.accept(&[","]) {
            list.push(self.value()?.text.to_owned());
        }
        self.expect("]")?;
        Ok(list)
    }

    fn value(&mut self) -> Result<Token<'a>, QueryError> {
        let token = self.next("a value")?;
        let is_value = token.quoted || token.text.chars().all(|character| !"=!<>&|()[],\"'".contains(character));
        if is_value { Ok(token) } else { Err(unexpected(token, "a value")) }
    }

    fn pattern(&mut self, negated: bool) -> Result<Test, QueryError> {
        let token = self.cursor.pattern();
        if !token.quoted && token.text.starts_with(['"', '\'']) {
            return Err(unexpected(token, "a pattern"));
        }
        if token.text.is_empty() {
            return Err(QueryError { what: "a pattern is missing".to_owned(), position: token.position });
        }
        // As a whole, as Java's `matches` does.
        let whole = format!("^(?:{})$", token.text);
        let pattern = RegexBuilder::new(&whole).size_limit(PATTERN_SIZE).nest_limit(50).build().map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            QueryError {
                what: format!("the pattern `{}` cannot be read: {reason}", token.text),
                position: token.position,
            }
        })?;
        Ok(Test::Matches { pattern, negated })
    }

    fn bound(&mut self, subject: &Subject) -> Result<Bound, QueryError> {
        let token = self.value()?;
        let wrong =
            |kind: &str| QueryError { what: format!("`{}` is not {kind}", token.text), position: token.position };
        match subject {
            Subject::AgentVersion => version(token.text).map(Bound::Version).ok_or_else(|| wrong("a version")),
            Subject::RunningTasksCount => token.text.parse().map(Bound::Number).map_err(|_| wrong("a number")),
            Subject::RegisteredAt => {
                // A date, or a date and time without seconds or zone, is UTC.
                let whole = match token.text.len() {
                    10 => format!("{}T00:00:00Z", token.text),
                    16 => format!("{}:00Z", token.text),
                    19 => format!("{}Z", token.text),
                    _ => token.text.to_owned(),
                };
                (self.read_time)(&whole).map(Bound::Time).ok_or_else(|| wrong("a time such as 2018-06-18T22:28:28Z"))
            }
            _ => Ok(Bound::Text(token.text.to_owned())),
        }
    }

    fn accept(&mut self, words: &[&str]) -> bool {
        let found = self.cursor.peek().is_some_and(|token| !token.quoted && words.contains(&token.text));
        if found {
            self.cursor.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), QueryError> {
        let expected = format!("`{sign}`");
        let token = self.next(&expected)?;
        if !token.quoted && token.text == sign { Ok(()) } else { Err(unexpected(token, &expected)) }
    }

    fn next(&mut self, expected: &str) -> Result<Token<'a>, QueryError> {
        let position = self.cursor.position();
        self.cursor.next().ok_or_else(|| QueryError { what: format!("{expected} is missing at the end"), position })
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

fn subject(token: Token<'_>) -> Result<Subject, QueryError> {
    let subject = match token.text {
        _ if token.quoted => None,
        "agentConnected" => Some(Subject::AgentConnected),
        "agentVersion" => Some(Subject::AgentVersion),
        "ec2InstanceId" => Some(Subject::Ec2InstanceId),
        "registeredAt" => Some(Subject::RegisteredAt),
        "runningTasksCount" => Some(Subject::RunningTasksCount),
        "task:group" => Some(Subject::TaskGroup),
        text => text
            .strip_prefix("attribute:")
            .filter(|name| !name.is_empty())
            .map(|name| Subject::Attribute(name.to_owned())),
    };
    subject.ok_or_else(|| {
        unexpected(
            token,
            "agentConnected, agentVersion, attribute:NAME, ec2InstanceId, registeredAt, runningTasksCount or task:group",
        )
    })
}

/// Whether it is compared as a text.
fn is_text(subject: &Subject) -> bool {
    matches!(subject, Subject::AgentConnected | Subject::Attribute(_) | Subject::Ec2InstanceId | Subject::TaskGroup)
}

/// Whether it can be greater or less than something.
fn is_ordered(subject: &Subject) -> bool {
    matches!(
        subject,
        Subject::AgentVersion | Subject::Attribute(_) | Subject::RegisteredAt | Subject::RunningTasksCount
    )
}

/// `1.92.0`, as numbers.
pub(super) fn version(text: &str) -> Option<Vec<u64>> {
    text.trim_start_matches('v').split('.').map(|part| part.parse().ok()).collect()
}

fn unexpected(token: Token<'_>, expected: &str) -> QueryError {
    QueryError { what: format!("`{}` stands where {expected} is expected", token.text), position: token.position }
}
