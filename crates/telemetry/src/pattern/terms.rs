//! Terms: `ERROR "exact phrase" -exclude ?either ?or %regex%`.
//!
//! All plain terms must be in the message and none of the excluded. Optional terms (one of them must be there) count
//! only when there are no others: combined with others Amazon ignores them.

use regex::bytes::Regex;

use super::{PatternError, restricted, scan::Scanner};

#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    all: Vec<Term>,
    any: Vec<Term>,
    none: Vec<Term>,
}

#[derive(Clone, Debug)]
enum Term {
    Text(String),
    Regex(Regex),
}

impl Term {
    fn is_in(&self, message: &str) -> bool {
        match self {
            Self::Text(text) => message.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(message.as_bytes()),
        }
    }
}

impl Terms {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut terms = Self::default();
        let mut scanner = Scanner::new(text);
        loop {
            scanner.skip_space();
            let list = if scanner.at_end() {
                return Ok(terms);
            } else if scanner.skip("-") {
                scanner.skip_space();
                &mut terms.none
            } else if scanner.skip("?") {
                &mut terms.any
            } else {
                &mut terms.all
            };
            // A pattern that is nothing but "" is how consoles write the empty one.
            if scanner.rest() == "\"\"" && text == "\"\"" {
                return Ok(Self::default());
            }
            list.push(term(&mut scanner)?);
        }
    }

    pub fn matches(&self, message: &str) -> bool {
        let is_in = |term: &Term| term.is_in(message);
        if self.all.is_empty() && self.none.is_empty() {
            return self.any.is_empty() || self.any.iter().any(is_in);
        }
        self.all.iter().all(is_in) && !self.none.iter().any(is_in)
    }
}

fn term(scanner: &mut Scanner<'_>) -> Result<Term, PatternError> {
    let start = scanner.rest();
    let term = if scanner.skip("\"") {
        Term::Text(scanner.quoted('"')?)
    } else if scanner.skip("%") {
        Term::Regex(restricted::parse(scanner.regex()?)?)
    } else {
        Term::Text(scanner.take_while(|c| c.is_alphanumeric() || c == '_').to_owned())
    };
    let empty = matches!(&term, Term::Text(text) if text.is_empty());
    // A term ends where a space is; `a"b"` is one term, with characters that must be quoted.
    if empty || scanner.peek().is_some_and(|c| !c.is_whitespace()) {
        let end = start.find(char::is_whitespace).unwrap_or(start.len());
        return Err(PatternError::Term(start.get(..end).unwrap_or(start).to_owned()));
    }
    Ok(term)
}
