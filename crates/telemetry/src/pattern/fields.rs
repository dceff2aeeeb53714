//! Conditions on words: `[ip, user, ..., status = 4* && status != 403, bytes > 100]`.
//!
//! A message is split at spaces; what is between square brackets or double quotes is one word. There must be as many
//! words as fields, unless `...` stands for any number of them.

use std::collections::BTreeMap;

use super::{
    PatternError,
    expression::Expression,
    scan::Scanner,
    value::{Comparison, Number},
};

/// Most words of a message that are looked at; no pattern has as many fields.
const MAX_WORDS: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// The fields before `...`, or all of them.
    before: Vec<Field>,
    /// The fields after `...`, where there is one.
    after: Option<Vec<Field>>,
}

/// A field: its name (empty for one without) and what is asked of it.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    test: Option<Expression<Comparison>>,
}

impl Fields {
    /// Reads what is between the brackets.
    pub fn parse(inner: &str) -> Result<Self, PatternError> {
        let mut scanner = Scanner::new(inner);
        let (mut before, mut after, mut regexes) = (Vec::new(), None, 0);
        loop {
            scanner.skip_space();
            if scanner.skip("...") || scanner.skip("…") {
                if after.replace(Vec::new()).is_some() {
                    return Err(PatternError::Invalid);
                }
            } else {
                let field = field(&mut scanner, &mut regexes)?;
                after.as_mut().unwrap_or(&mut before).push(field);
            }
            scanner.skip_space();
            if scanner.at_end() {
                return Ok(Self { before, after });
            }
            if !scanner.skip(",") {
                return Err(PatternError::Invalid);
            }
        }
    }

    /// The words of a message that matches.
    pub fn matches<'m>(&self, message: &'m str) -> Option<Vec<&'m str>> {
        let words = words(message);
        let after = self.after.as_deref();
        let fields = self.before.len() + after.map_or(0, <[Field]>::len);
        if words.len() < fields || after.is_none() && words.len() > fields {
            return None;
        }
        let holds = self.pairs(&words).all(|(_, field, word)| field.is_none_or(|field| field.holds(word)));
        holds.then_some(words)
    }

    /// The values of a message that matches, by name or number.
    pub fn extract(&self, message: &str) -> Option<BTreeMap<String, String>> {
        let words = self.matches(message)?;
        let named = self.pairs(&words).map(|(index, field, word)| {
            let name = field.map(|field| field.name.as_str()).filter(|name| !name.is_empty());
            (name.map_or_else(|| format!("${}", index + 1), |name| format!("${name}")), word.to_owned())
        });
        Some(named.collect())
    }

    /// Each word with its place and the field it belongs to, if it is not one of those that `...` stands for.
    fn pairs<'a, 'm>(&'a self, words: &'a [&'m str]) -> impl Iterator<Item = (usize, Option<&'a Field>, &'m str)> {
        let after = self.after.as_deref().unwrap_or_default();
        let from_end = words.len().saturating_sub(after.len());
        words.iter().enumerate().map(move |(index, word)| {
            let field = self.before.get(index).or_else(|| after.get(index.checked_sub(from_end)?));
            (index, field, *word)
        })
    }
}

impl Field {
    fn holds(&self, word: &str) -> bool {
        let number = Number::parse(word);
        self.test.as_ref().is_none_or(|test| test.holds(&|comparison| comparison.holds(word, number)))
    }
}

/// A name, nothing at all, or conditions that all begin with the same name.
fn field(scanner: &mut Scanner<'_>, regexes: &mut usize) -> Result<Field, PatternError> {
    let mut ahead = Scanner::new(scanner.rest());
    let name = field_name(&mut ahead).to_owned();
    ahead.skip_space();
    if ahead.peek().is_none_or(|c| c == ',') {
        *scanner = ahead;
        return Ok(Field { name, test: None });
    }
    let mut first: Option<String> = None;
    let test = Expression::parse(scanner, &mut |scanner| {
        scanner.skip_space();
        let name = field_name(scanner);
        // A condition on another field than the one whose place this is has no meaning.
        if name.is_empty() || first.get_or_insert_with(|| name.to_owned()) != name {
            return Err(PatternError::Invalid);
        }
        Comparison::parse(scanner, regexes)
    })?;
    Ok(Field { name: first.unwrap_or_default(), test: Some(test) })
}

fn field_name<'t>(scanner: &mut Scanner<'t>) -> &'t str {
    scanner.take_while(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// Splits a message into words.
fn words(message: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = message.trim();
    while !rest.is_empty() && words.len() < MAX_WORDS {
        let close = match rest.chars().next() {
            Some('[') => Some(']'),
            Some('"') => Some('"'),
            _ => None,
        };
        let inner = close.and_then(|close| rest.get(1..)?.split_once(close));
        let (word, after) = match inner {
            Some((word, after)) => (word, after),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}
