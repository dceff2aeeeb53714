//! Conditions on JSON: `{ $.user.id = 1 && ($.users[0].name = "J*" || $.flag IS TRUE || $.gone NOT EXISTS) }`.
//!
//! A selector must lead to a string or a number for a comparison to say anything: where it leads to something else or
//! nowhere, neither `=` nor `!=` matches.

use serde_json::Value;

use super::{
    PatternError,
    expression::Expression,
    scan::Scanner,
    value::{Comparison, Number},
};

#[derive(Clone, Debug)]
pub(super) struct Json(Expression<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    selector: Vec<Step>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Step {
    Property(String),
    Element(usize),
}

#[derive(Clone, Debug)]
enum Test {
    Compare(Comparison),
    IsNull,
    Is(bool),
    NotExists,
}

impl Json {
    /// Reads what is between the braces.
    pub fn parse(inner: &str) -> Result<Self, PatternError> {
        let mut scanner = Scanner::new(inner);
        let mut regexes = 0;
        let expression = Expression::parse(&mut scanner, &mut |scanner| condition(scanner, &mut regexes))?;
        scanner.skip_space();
        if scanner.at_end() { Ok(Self(expression)) } else { Err(PatternError::Invalid) }
    }

    pub fn matches(&self, message: &str) -> bool {
        // Most lines of a mixed log are not JSON: do not parse those.
        if !message.trim_start().starts_with(['{', '[']) {
            return false;
        }
        let Ok(document) = serde_json::from_str::<Value>(message) else { return false };
        self.0.holds(&|condition| condition.holds(&document))
    }
}

impl Condition {
    fn holds(&self, document: &Value) -> bool {
        let found = self.selector.iter().try_fold(document, |value, step| match step {
            Step::Property(name) => value.as_object()?.get(name),
            Step::Element(index) => value.as_array()?.get(*index),
        });
        match (&self.test, found) {
            (Test::NotExists, found) => found.is_none(),
            (Test::IsNull, Some(Value::Null)) => true,
            (Test::Is(expected), Some(Value::Bool(value))) => value == expected,
            (Test::Compare(comparison), Some(Value::String(text))) => comparison.holds(text, None),
            (Test::Compare(comparison), Some(Value::Number(number))) => {
                let text = number.to_string();
                comparison.holds(&text, Number::parse(&text))
            }
            _ => false,
        }
    }
}

fn condition(scanner: &mut Scanner<'_>, regexes: &mut usize) -> Result<Condition, PatternError> {
    let selector = selector(scanner)?;
    scanner.skip_space();
    let test = if scanner.skip_word("IS") {
        scanner.skip_space();
        match () {
            () if scanner.skip_word("NULL") => Test::IsNull,
            () if scanner.skip_word("TRUE") => Test::Is(true),
            () if scanner.skip_word("FALSE") => Test::Is(false),
            () => return Err(PatternError::Invalid),
        }
    } else if scanner.skip_word("NOT") {
        scanner.skip_space();
        if !scanner.skip_word("EXISTS") {
            return Err(PatternError::Invalid);
        }
        Test::NotExists
    } else {
        Test::Compare(Comparison::parse(scanner, regexes)?)
    };
    Ok(Condition { selector, test })
}

/// `$.name`, `$.list[0].name`, `$.['a name']`.
fn selector(scanner: &mut Scanner<'_>) -> Result<Vec<Step>, PatternError> {
    scanner.skip_space();
    if !scanner.skip("$") {
        return Err(PatternError::Invalid);
    }
    let mut steps = Vec::new();
    loop {
        let dot = scanner.skip(".");
        if scanner.skip("[") {
            let step = match scanner.peek() {
                Some(quote @ ('\'' | '"')) => {
                    scanner.next();
                    Step::Property(scanner.quoted(quote)?)
                }
                _ if dot => return Err(PatternError::Invalid),
                _ => {
                    let digits = scanner.take_while(|c| c.is_ascii_digit());
                    Step::Element(digits.parse().map_err(|_| PatternError::Invalid)?)
                }
            };
            if !scanner.skip("]") {
                return Err(PatternError::Invalid);
            }
            steps.push(step);
        } else if dot {
            let name = scanner.take_while(|c| c.is_alphanumeric() || c == '_' || c == '-');
            if name.is_empty() {
                return Err(PatternError::Invalid);
            }
            steps.push(Step::Property(name.to_owned()));
        } else if steps.is_empty() {
            return Err(PatternError::Invalid);
        } else {
            return Ok(steps);
        }
    }
}
