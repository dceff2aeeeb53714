//! Words, signs and texts of an expression, each with its place.

/// A piece of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// The piece as it is written, without the quotes around a text.
    pub(super) text: &'a str,
    /// Where it begins, counted in characters from 1.
    pub(super) position: usize,
    /// Whether it was in quotes: then it is a value, whatever it says.
    pub(super) quoted: bool,
}

/// What is made of signs, longer ones first.
const SIGNS: [&str; 16] = ["==", "!=", ">=", "<=", "=~", "!~", "&&", "||", ">", "<", "!", "(", ")", "[", "]", ","];

/// Reads an expression from left to right.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, position: 1 }
    }

    /// Where the next piece begins.
    pub(super) fn position(&mut self) -> usize {
        self.skip_space();
        self.position
    }

    /// The next piece, which stays; none at the end.
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.clone().next()
    }

    /// The pattern behind `=~`. Patterns are full of signs, so one goes up to white space outside brackets, or to a bracket
    /// that closes what was opened before it.
    pub(super) fn pattern(&mut self) -> Token<'a> {
        self.skip_space();
        if self.rest.starts_with(['"', '\'']) {
            return self.next().unwrap_or(Token { text: "", position: self.position, quoted: true });
        }
        let (mut depth, mut in_class, mut escaped) = (0_u32, false, false);
        let end = self.rest.find(|character: char| {
            if std::mem::take(&mut escaped) {
                return false;
            }
            match character {
                '\\' => escaped = true,
                '[' => in_class = true,
                ']' => in_class = false,
                '(' if !in_class => depth += 1,
                ')' if !in_class && depth == 0 => return true,
                ')' if !in_class => depth -= 1,
                _ => return depth == 0 && !in_class && character.is_whitespace(),
            }
            false
        });
        self.take(end.unwrap_or(self.rest.len()), false)
    }

    fn skip_space(&mut self) {
        let space = self.rest.len() - self.rest.trim_start().len();
        self.take(space, false);
    }

    /// The next `length` bytes.
    fn take(&mut self, length: usize, quoted: bool) -> Token<'a> {
        let (text, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        let token = Token { text, position: self.position, quoted };
        self.position += text.chars().count();
        self.rest = rest;
        token
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let first = self.rest.chars().next()?;
        if first == '"' || first == '\'' {
            let inside = self.rest.get(1..).unwrap_or_default();
            // Without its closing quote it is a word that begins with a quote, which is no value.
            let Some(end) = inside.find(first) else { return Some(self.take(self.rest.len(), false)) };
            let text = inside.get(..end).unwrap_or_default();
            return Some(Token { text, ..self.take(end + 2, true) });
        }
        if let Some(sign) = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) {
            return Some(self.take(sign.len(), false));
        }
        // A sign that is none by itself, such as `=`, is a word: it is told as what was not expected.
        let end = self.rest.char_indices().skip(1).find(|(_, character)| ends_word(*character));
        Some(self.take(end.map_or(self.rest.len(), |(at, _)| at), false))
    }
}

fn ends_word(character: char) -> bool {
    character.is_whitespace() || "=!<>&|()[],\"'".contains(character)
}
