//! Reading a pattern character by character.

use super::PatternError;

/// A place in a text.
pub(super) struct Scanner<'t> {
    rest: &'t str,
}

impl<'t> Scanner<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { rest: text }
    }

    /// The next character, left in place.
    pub fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The next character.
    pub fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = self.rest.get(next.len_utf8()..).unwrap_or("");
        Some(next)
    }

    /// Whether the text went on with `token`, which then is behind.
    pub fn skip(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// As [`Scanner::skip`], in any case of letters, and only when no letter or digit follows.
    pub fn skip_word(&mut self, word: &str) -> bool {
        let Some((head, rest)) = self.rest.split_at_checked(word.len()) else { return false };
        let ends = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if ends && head.eq_ignore_ascii_case(word) {
            self.rest = rest;
            return true;
        }
        false
    }

    pub fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// The characters as long as they are `wanted`.
    pub fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    pub fn rest(&self) -> &'t str {
        self.rest
    }

    /// The text up to the closing quote; the opening one is behind. A backslash takes the next quote or backslash as it is.
    pub fn quoted(&mut self, quote: char) -> Result<String, PatternError> {
        let whole = self.rest;
        let mut text = String::new();
        while let Some(next) = self.next() {
            match next {
                _ if next == quote => return Ok(text),
                '\\' if self.peek().is_some_and(|c| c == quote || c == '\\') => text.extend(self.next()),
                _ => text.push(next),
            }
        }
        Err(PatternError::Term(format!("{quote}{whole}")))
    }

    /// The text up to the closing `%`; the opening one is behind.
    pub fn regex(&mut self) -> Result<&'t str, PatternError> {
        let (inner, rest) = self.rest.split_once('%').ok_or_else(|| PatternError::Term(format!("%{}", self.rest)))?;
        self.rest = rest;
        Ok(inner)
    }
}
