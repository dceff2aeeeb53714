//! Translating the models' patterns, which are Java's, into the syntax of the `regex` crate.

/// The same pattern for the `regex` crate, anchored at both ends; `None` where it cannot express it.
pub fn translate(pattern: &str) -> Option<String> {
    let mut translated = surrogates(pattern);
    if !translated.contains('[') {
        translated = translated.replace("\\p{Print}", "[\\x20-\\x7E]");
    }
    let mut out = String::new();
    let mut in_class = false;
    let mut letters = translated.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                out.push('\\');
                if let Some(next) = letters.next() {
                    // Java's shorthands are ASCII.
                    if let Some(class) = ascii(next, in_class) {
                        out.pop();
                        out.push_str(&class);
                        continue;
                    }
                    // The crate refuses needless escapes of letters only; `\/` and the like pass.
                    match next {
                        '/' | '"' | '\'' | '=' | ',' | '@' | ':' | '%' | ';' | '!' | '<' | '>' | ' ' | '_' => {
                            out.pop();
                            out.push(next);
                        }
                        _ => out.push(next),
                    }
                }
            }
            // A bracket inside a class is a literal in Java's older dialect and in Amazon's use.
            '[' if in_class => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                if letters.peek() == Some(&'^') {
                    letters.next();
                    out.push('^');
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(letter);
            }
            _ => out.push(letter),
        }
    }
    let out = out.replace("\\p{IsAlphabetic}", "\\p{Alphabetic}");
    let anchored = format!("^(?:{out})$");
    regex::Regex::new(&anchored).ok().map(|_| anchored)
}

fn ascii(letter: char, in_class: bool) -> Option<String> {
    let members = match letter.to_ascii_lowercase() {
        'w' => "A-Za-z0-9_",
        'd' => "0-9",
        's' => "\\t\\n\\x0B\\f\\r ",
        _ => return None,
    };
    match (letter.is_ascii_uppercase(), in_class) {
        (false, true) => Some(members.to_owned()),
        (false, false) => Some(format!("[{members}]")),
        (true, _) => Some(format!("[^{members}]")),
    }
}

/// Java spells characters beyond the basic plane as pairs of surrogates.
fn surrogates(pattern: &str) -> String {
    pattern
        .replace("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\x{10000}-\\x{10FFFF}")
        .replace("\\ud800\\udc00-\\udbff\\udfff", "\\x{10000}-\\x{10FFFF}")
        .replace("\\uD800-\\uDBFF\\uDC00-\\uDFFF", "\\x{10000}-\\x{10FFFF}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_models_become_regexes() {
        let check = |pattern: &str, yes: &str, no: &str| {
            let regex = regex::Regex::new(&translate(pattern).expect(pattern)).expect(pattern);
            assert!(regex.is_match(yes), "{pattern} {yes}");
            assert!(!regex.is_match(no), "{pattern} {no}");
        };
        check("[\\w+=,.@-]+", "a@b", "a b");
        check("[\\.\\-_/#A-Za-z0-9]+", "/ecs/x", "a b");
        check("[\\u0020-\\uD7FF\\uE000-\\uFFFD\\uD800\\uDC00-\\uDBFF\\uDFFF\\r\\n\\t]*", "a😀", "\u{1}");
        check("^([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)$", "é 1", "!");
        check("\\d{2}[\\s\\S]*\\w", "12 x", "1٢ x");
        check("[\\w-]+", "a-1", "é");
        assert_eq!(translate("(?!aws:).*"), None);
    }
}
