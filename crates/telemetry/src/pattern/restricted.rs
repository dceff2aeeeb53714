//! The regular expressions that Amazon allows between `%`: a short list of characters, no groups. The engine is
//! linear in the text, so that no expression can stall a search.

use regex::bytes::{Regex, RegexBuilder};

use super::PatternError;

/// Most bytes that a compiled expression may take; `{m,n}` could make it large.
const MAX_COMPILED: usize = 256 * 1024;

/// Reads an expression, without its `%`.
pub(super) fn parse(text: &str) -> Result<Regex, PatternError> {
    let invalid = || PatternError::Term(format!("%{text}%"));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_#=@/;,-^$?[]{}|\\*+.".contains(c);
    if text.is_empty() || !text.chars().all(allowed) || !escapes_are_known(text) {
        return Err(invalid());
    }
    // Bytes instead of characters: multi-byte characters are not supported in expressions anyway.
    RegexBuilder::new(text).unicode(false).size_limit(MAX_COMPILED).nest_limit(16).build().map_err(|_| invalid())
}

/// `\d \D \s \S \w \W`, `\x` and two hexadecimal digits, or an escaped symbol.
fn escapes_are_known(text: &str) -> bool {
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            continue;
        }
        let known = match characters.next() {
            Some('x') => (0..2).all(|_| characters.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            Some(letter) if letter.is_ascii_alphanumeric() => "dDsSwW".contains(letter),
            Some(_) => true,
            None => false,
        };
        if !known {
            return false;
        }
    }
    true
}
