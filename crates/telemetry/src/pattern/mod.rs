//! Filter patterns of CloudWatch Logs: what FilterLogEvents, metric filters and subscription filters search with.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>
//!
//! Three languages share the name, told apart by the first character:
//! * `{ … }`: conditions on the fields of a JSON message ([`json`]);
//! * `[ … ]`: conditions on the words of a message ([`fields`]);
//! * anything else: terms that the message must or must not contain ([`terms`]).
//!
//! Regular expressions between `%` may stand in each of them ([`restricted`]). A pattern is text from outside: its
//! length and depth are bounded, and matching takes time linear in the message.

mod expression;
mod fields;
mod json;
mod restricted;
mod scan;
mod terms;
mod value;

use std::collections::BTreeMap;

/// Most characters of a pattern.
const MAX_LENGTH: usize = 1024;

/// Why a text is not a filter pattern, in Amazon's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is longer than Amazon allows.
    #[error("Filter pattern must be at most {MAX_LENGTH} characters")]
    TooLong,
    /// A term has characters that must be quoted, or a regular expression has ones that are not supported.
    #[error("Invalid character(s) in term '{0}'")]
    Term(String),
    /// It starts like a structured pattern, and does not end like one.
    #[error("If a filter pattern starts with '{0}' it must end with '{1}'")]
    Open(char, char),
    /// Anything else.
    #[error("Invalid filter pattern")]
    Invalid,
}

/// A filter pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Terms(terms::Terms),
    Json(json::Json),
    Fields(fields::Fields),
}

impl Pattern {
    /// Reads a pattern. An empty one matches everything.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.chars().nth(MAX_LENGTH).is_some() {
            return Err(PatternError::TooLong);
        }
        let text = text.trim();
        let inside = |open: char, close: char| {
            let inner = text.strip_prefix(open)?;
            Some(inner.strip_suffix(close).ok_or(PatternError::Open(open, close)))
        };
        if let Some(inner) = inside('{', '}') {
            return Ok(Self(Kind::Json(json::Json::parse(inner?)?)));
        }
        if let Some(inner) = inside('[', ']') {
            return Ok(Self(Kind::Fields(fields::Fields::parse(inner?)?)));
        }
        Ok(Self(Kind::Terms(terms::Terms::parse(text)?)))
    }

    /// Whether a message matches.
    pub fn matches(&self, message: &str) -> bool {
        match &self.0 {
            Kind::Terms(terms) => terms.matches(message),
            Kind::Json(json) => json.matches(message),
            Kind::Fields(fields) => fields.matches(message).is_some(),
        }
    }

    /// The values that a message that matches has for the names in the pattern: `$name` for named words and `$3` for
    /// others. Nothing when it does not match; empty for patterns that are not about words.
    pub fn extract(&self, message: &str) -> Option<BTreeMap<String, String>> {
        match &self.0 {
            Kind::Fields(fields) => fields.extract(message),
            _ => self.matches(message).then(BTreeMap::new),
        }
    }
}

#[cfg(test)]
mod tests;
