//! Comparing a value with what a condition asks for: numbers, text with `*` at its ends, regular expressions.

use regex::bytes::Regex;

use super::{PatternError, restricted, scan::Scanner};

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub fn parse(scanner: &mut Scanner<'_>) -> Option<Self> {
        // Longer ones first.
        let operators = [
            ("!=", Self::Unequal),
            ("<=", Self::LessOrEqual),
            (">=", Self::GreaterOrEqual),
            ("=", Self::Equal),
            ("<", Self::Less),
            (">", Self::Greater),
        ];
        operators.into_iter().find(|(token, _)| scanner.skip(token)).map(|(_, operator)| operator)
    }
}

/// What a condition compares with.
#[derive(Clone, Debug)]
enum Operand {
    /// A number, and how it was written.
    Number(Number, String),
    Text(Wildcard),
    Regex(Regex),
}

/// A comparison.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    operator: Operator,
    operand: Operand,
}

impl Comparison {
    /// Reads an operator and what follows it. `regexes` counts the regular expressions of the pattern.
    pub fn parse(scanner: &mut Scanner<'_>, regexes: &mut usize) -> Result<Self, PatternError> {
        scanner.skip_space();
        let operator = Operator::parse(scanner).ok_or(PatternError::Invalid)?;
        scanner.skip_space();
        let operand = if scanner.skip("\"") {
            Operand::Text(Wildcard::new(&scanner.quoted('"')?))
        } else if scanner.skip("%") {
            *regexes += 1;
            Operand::Regex(restricted::parse(scanner.regex()?)?)
        } else {
            let word = scanner.take_while(|c| c.is_alphanumeric() || "_.-+*:/".contains(c));
            match Number::parse(word) {
                _ if word.is_empty() => return Err(PatternError::Invalid),
                Some(number) => Operand::Number(number, word.to_owned()),
                None => Operand::Text(Wildcard::new(word)),
            }
        };
        // Amazon allows two regular expressions to a pattern.
        let equality = matches!(operator, Operator::Equal | Operator::Unequal);
        if *regexes > 2 || !equality && !matches!(operand, Operand::Number(..)) {
            return Err(PatternError::Invalid);
        }
        Ok(Self { operator, operand })
    }

    /// Whether a text compares as asked for. `number` is its value where it counts as a number.
    pub fn holds(&self, text: &str, number: Option<Number>) -> bool {
        use std::cmp::Ordering::{Greater, Less};
        let equal = match &self.operand {
            Operand::Number(operand, written) => match number.and_then(|number| number.compare(*operand)) {
                Some(order) => match self.operator {
                    Operator::Less => return order == Less,
                    Operator::LessOrEqual => return order != Greater,
                    Operator::Greater => return order == Greater,
                    Operator::GreaterOrEqual => return order != Less,
                    Operator::Equal | Operator::Unequal => order.is_eq(),
                },
                None => text == written,
            },
            Operand::Text(wildcard) => wildcard.matches(text),
            Operand::Regex(regex) => regex.is_match(text.as_bytes()),
        };
        match self.operator {
            Operator::Equal => equal,
            Operator::Unequal => !equal,
            _ => false,
        }
    }
}

/// A text in which a `*` at either end stands for anything; elsewhere it stands for itself.
#[derive(Clone, Debug)]
struct Wildcard {
    text: String,
    before: bool,
    after: bool,
}

impl Wildcard {
    fn new(text: &str) -> Self {
        let (text, before) = text.strip_prefix('*').map_or((text, false), |text| (text, true));
        let (text, after) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        Self { text: text.to_owned(), before, after }
    }

    fn matches(&self, text: &str) -> bool {
        match (self.before, self.after) {
            (false, false) => text == self.text,
            (true, false) => text.ends_with(&self.text),
            (false, true) => text.starts_with(&self.text),
            (true, true) => text.contains(&self.text),
        }
    }
}

/// A number: whole where it can be, so that large ids compare exactly.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    /// Reads a whole number, a decimal or one in scientific notation, with an optional sign.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let starts_right = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if !starts_right || digits.len() > 64 || !digits.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        match text.parse() {
            Ok(whole) => Some(Self::Whole(whole)),
            Err(_) => text.parse().ok().filter(|real: &f64| real.is_finite()).map(Self::Real),
        }
    }

    fn compare(self, other: Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => a.real().partial_cmp(&b.real()),
        }
    }

    fn real(self) -> f64 {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "the other side is not exact either")]
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}
