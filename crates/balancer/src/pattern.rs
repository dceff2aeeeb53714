//! The wildcards of rule conditions: `*` is any number of characters, `?` is exactly one.

/// A compiled pattern. Matching costs at most pattern length × text length; patterns are at most 128 characters.
#[derive(Clone, Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
    ignore_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Many,
}

/// Whether letters must have the same case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They must.
    Sensitive,
    /// ASCII letters need not.
    Ignored,
}

impl Pattern {
    /// Compiles `text`. With `escapes`, a backslash makes the next character literal.
    pub fn new(text: &str, case: Case, escapes: bool) -> Self {
        let ignore_case = case == Case::Ignored;
        let mut tokens = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            tokens.push(match byte {
                b'*' if tokens.last() == Some(&Token::Many) => continue,
                b'*' => Token::Many,
                b'?' => Token::One,
                b'\\' if escapes => Token::Byte(fold(bytes.next().unwrap_or(b'\\'), ignore_case)),
                other => Token::Byte(fold(other, ignore_case)),
            });
        }
        Self { tokens, ignore_case }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (mut token, mut byte) = (0, 0);
        // Where to go on after the latest `*` took one byte more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.tokens.get(token), text.get(byte)) {
                (Some(Token::Many), _) => {
                    retry = Some((token, byte));
                    token += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(Token::One), Some(_)) => true,
                (Some(Token::Byte(expected)), Some(found)) => *expected == fold(*found, self.ignore_case),
                _ => false,
            };
            if fits {
                token += 1;
                byte += 1;
            } else {
                match retry {
                    Some((many, start)) if start < text.len() => {
                        retry = Some((many, start + 1));
                        token = many + 1;
                        byte = start + 1;
                    }
                    _ => return false,
                }
            }
        }
    }
}

fn fold(byte: u8, ignore_case: bool) -> u8 {
    if ignore_case { byte.to_ascii_lowercase() } else { byte }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, Case::Sensitive, false).matches(text.as_bytes())
    }

    #[test]
    fn wildcards_match_as_amazons_do() {
        assert!(check("/img/*", "/img/") && check("/img/*", "/img/a/b"));
        assert!(!check("/img/*", "/img") && !check("/img/*", "/IMG/a"));
        assert!(check("/img/*/pics", "/img/a/b/pics") && !check("/img/*/pics", "/img/pics"));
        assert!(check("/a?c", "/abc") && !check("/a?c", "/ac"));
        assert!(check("*.example.com", "test.example.com") && !check("*.example.com", "example.com"));
        assert!(check("*", "") && check("**", "x") && !check("", "x") && check("", ""));
    }

    #[test]
    fn case_and_escapes_are_honoured() {
        assert!(Pattern::new("*.Example.com", Case::Ignored, false).matches(b"A.eXample.COM"));
        assert!(Pattern::new(r"a\*b", Case::Sensitive, true).matches(b"a*b"));
        assert!(!Pattern::new(r"a\*b", Case::Sensitive, true).matches(b"axb"));
        assert!(Pattern::new(r"a\*b", Case::Sensitive, false).matches(br"a\xxb"));
    }

    /// The definition, slow and obviously right.
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|at| reference(rest, &text[at..])),
            (Some((b'?', pattern)), Some((_, text))) => reference(pattern, text),
            (Some((a, pattern)), Some((b, text))) => a == b && reference(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(check(&pattern, &text), reference(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
