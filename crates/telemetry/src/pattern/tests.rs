use proptest::prelude::*;

use super::{Pattern, PatternError};

/// Checks which of the messages a pattern matches.
#[track_caller]
fn check(pattern: &str, matching: &[&str], others: &[&str]) {
    let parsed = Pattern::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    for message in matching {
        assert!(parsed.matches(message), "{pattern} should match {message}");
    }
    for message in others {
        assert!(!parsed.matches(message), "{pattern} should not match {message}");
    }
}

#[track_caller]
fn refuse(pattern: &str, text: &str) {
    assert_eq!(
        Pattern::parse(pattern).map(|_| ()).map_err(|error| error.to_string()),
        Err(text.to_owned()),
        "{pattern}"
    );
}

#[test]
fn terms() {
    let (both, error, warn) = ("ERROR WARN message", "ERROR message", "WARN message");
    check("", &[both, "", "anything"], &[]);
    check("\"\"", &[both, ""], &[]);
    check("ERROR", &[both, error, "[ERROR] x", "Exiting with ERRORCODE: -1"], &[warn, "error"]);
    check("ERROR WARN", &[both], &[error, warn]);
    check("ERROR -WARN", &[error], &[both, warn]);
    check("\"ERROR\" - \"Exiting\"", &["ERROR x"], &["Exiting with ERRORCODE: -1"]);
    check("?ERROR ?WARN", &[both, error, warn], &["message"]);
    check("-ERROR", &[warn], &[error]);
    check("\"WARN message\"", &[both, warn], &["message WARN"]);
    check("\"say \\\"hi\\\"\"", &["they say \"hi\""], &["they say hi"]);
    check("?ERROR ?WARN REQUEST", &["REQUEST"], &["ERROR"]);
}

#[test]
fn regular_expressions() {
    check("%AUTHORIZED%", &["[ERROR 401] UNAUTHORIZED REQUEST"], &["[ERROR] authorized"]);
    check("%^[hc]at%", &["hat", "cat in"], &["that"]);
    check("%[hc]at$%", &["that"], &["hats"]);
    check("%colou?r%", &["color", "colour"], &["colouur"]);
    check("%\\d{1,3}\\.\\d{1,3}%", &["10.25"], &["10-25"]);
    check("%\\x28x\\x29%", &["(x)"], &["x"]);
    check("-%gray|grey%", &["blue"], &["gray"]);
    refuse("%something!%", "Invalid character(s) in term '%something!%'");
    refuse("%(a|b)%", "Invalid character(s) in term '%(a|b)%'");
    refuse("%a\\q%", "Invalid character(s) in term '%a\\q%'");
    refuse("%a{9999}{9999}%", "Invalid character(s) in term '%a{9999}{9999}%'");
}

#[test]
fn json() {
    let document = r#"{"eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "arrayKey": ["value", "another value"],
        "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "SomeObject": null, "ThisFlag": true,
        "user": {"id": 1, "email": "John.Stiles@example.com"}, "users": [{"id": 2, "email": "John.Doe@example.com"}],
        "actions": ["GET", "PUT", "DELETE"], "coordinates": [[0, 1, 2], [4, 5, 6]], "latency": 55.5, "errorCode": 400,
        "cluster.name": "c", "account-id": 123456789012345678}"#;
    let holds = [
        r#"{ $.eventType = "UpdateTrail" }"#,
        "{ $.sourceIPAddress != 123.123.* }",
        r#"{ $.arrayKey[0] = "value" }"#,
        "{ $.objectList[1].id = 2 }",
        "{ $.SomeObject IS NULL }",
        "{ $.SomeOtherObject NOT EXISTS }",
        "{ $.ThisFlag IS TRUE }",
        r#"{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }"#,
        r#"{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = nonmatch && $.actions[2] = nomatch }"#,
        "{ $.latency >= 55.5 && $.latency < 10e3 && $.latency > +1 }",
        "{ $.errorCode = 4* }",
        "{$.errorCode=400}",
        "{ $.errorCode = 4.0e2 }",
        "{ $.eventType = \"*Trail\" }",
        "{ $.eventType = * }",
        "{ $.eventType = %^Up% }",
        "{ $.['cluster.name'] = c }",
        "{ $.account-id = 123456789012345678 }",
    ];
    let does_not = [
        r#"{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }"#,
        r#"{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = nonmatch) && $.actions[2] = nomatch }"#,
        "{ $.users = 1 }",
        "{ $.users != 1 }",
        "{ $.missing != 1 }",
        "{ $.ThisFlag IS FALSE }",
        "{ $.SomeObject NOT EXISTS }",
        "{ $.SomeOtherObject IS NULL }",
        "{ $.errorCode != 400 }",
        "{ $.eventType = Up*Trail }",
        "{ $.eventType > 3 }",
        "{ $.account-id = 123456789012345679 }",
    ];
    for pattern in holds {
        check(pattern, &[document], &["not json", "{\"broken\": "]);
    }
    for pattern in does_not {
        check(pattern, &[], &[document]);
    }
}

#[test]
fn words() {
    let line = |status: &str, bytes: &str| {
        format!("127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] \"GET /index.html HTTP/1.0\" {status} {bytes}")
    };
    let (ok, missing, denied) = (line("200", "1534"), line("404", "99"), line("403", "1001"));
    check("[ip, user, username, timestamp, request, status_code, bytes > 1000]", &[&ok, &denied], &[&missing]);
    check("[ip, user, username, timestamp, request, status = 4*, bytes]", &[&missing, &denied], &[&ok]);
    check("[ip, ..., status = 4* && status != 403, bytes]", &[&missing], &[&ok, &denied]);
    check("[..., request = *html*, (s = 200 || s = 403), bytes>=1001]", &[&ok, &denied], &[&missing]);
    check("[ip=%127\\.0\\.[0-9]%, ...]", &[&ok], &["10.0.0.1 x"]);
    check("[w1=ERROR, w2]", &["ERROR message"], &["ERROR WARN message", "WARN message"]);
    check("[w1=ERROR || w1=WARN, w2]", &["ERROR message", "WARN message"], &["INFO message"]);
    check("[w1!=ERROR&&w1!=WARN, w2]", &["INFO message"], &["ERROR message", "WARN message"]);
    check("[level = \"[E*\", ...]", &[], &["[ERROR] x"]);
    check("[level = ERROR, ...]", &["[ERROR] x", "ERROR"], &["[WARN] x", ""]);
}

#[test]
fn values_are_extracted() {
    let pattern = Pattern::parse("[..., request=*.html*, status_code=4*,]").unwrap();
    let message = "127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] \"GET /index.html HTTP/1.0\" 404 1534";
    let values: Vec<(String, String)> = pattern.extract(message).unwrap().into_iter().collect();
    let expect = [
        ("$1", "127.0.0.1"),
        ("$2", "-"),
        ("$3", "frank"),
        ("$4", "10/Oct/2000:13:25:15 -0700"),
        ("$7", "1534"),
        ("$request", "GET /index.html HTTP/1.0"),
        ("$status_code", "404"),
    ];
    assert_eq!(values, expect.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(pattern.extract("no match"), None);
    assert!(Pattern::parse("ERROR").unwrap().extract("an ERROR").unwrap().is_empty());
}

#[test]
fn what_is_not_a_pattern_is_refused_in_amazons_words() {
    refuse("user@example.com", "Invalid character(s) in term 'user@example.com'");
    refuse("ERROR ?", "Invalid character(s) in term ''");
    refuse("ERROR \"\"", "Invalid character(s) in term '\"\"'");
    refuse("\"open", "Invalid character(s) in term '\"open'");
    refuse("{ $.a = 1", "If a filter pattern starts with '{' it must end with '}'");
    refuse("[a, b", "If a filter pattern starts with '[' it must end with ']'");
    for pattern in [
        "{}",
        "{ $ = 1 }",
        "{ $.a }",
        "{ $.a == 1 }",
        "{ $.a = }",
        "{ $.a IS MAYBE }",
        "{ $.a > x }",
        "{ a = 1 }",
        "{ ($.a = 1 }",
        "{ $.a = 1 && }",
        "{ $.a[x] = 1 }",
        "{ $.a = %a% && $.b = %b% && $.c = %c% }",
        "[a, ..., b, ...]",
        "[a b]",
        "[status = 4* && bytes > 1000]",
        "[a > x]",
    ] {
        refuse(pattern, "Invalid filter pattern");
    }
    assert_eq!(Pattern::parse(&"x".repeat(1025)).unwrap_err(), PatternError::TooLong);
    let deep = format!("{{ {}$.a = 1{} }}", "(".repeat(400), ")".repeat(400));
    assert_eq!(Pattern::parse(&deep).unwrap_err(), PatternError::Invalid);
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "[\\{\\[]?[ $.a-z0-9=<>!&|()\"%*?\\-\\[\\],\\\\']{0,60}[\\}\\]]?", message in "\\PC{0,60}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            let matches = pattern.matches(&message);
            prop_assert_eq!(pattern.extract(&message).is_some(), matches);
        }
    }

    #[test]
    fn a_quoted_phrase_is_found_exactly_where_it_is(phrase in "[^\"\\\\]{1,20}", before in "\\PC{0,9}", after in "\\PC{0,9}") {
        let pattern = Pattern::parse(&format!("\"{phrase}\"")).unwrap();
        let joined = format!("{}{}{}", before, phrase, after);
        prop_assert!(pattern.matches(&joined));
        prop_assert_eq!(pattern.matches(&before), before.contains(&phrase));
    }
}
