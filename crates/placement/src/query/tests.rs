use domain::ecs::Attribute;

use super::*;

fn read_time(text: &str) -> Option<Timestamp> {
    // Enough for tests: the day of February 2018.
    let day: i64 = text.strip_prefix("2018-02-")?.get(..2)?.parse().ok()?;
    text.ends_with('Z').then_some(Timestamp(day * 86_400_000))
}

fn attribute(name: &str, value: Option<&str>) -> Attribute {
    Attribute { name: name.to_owned(), value: value.map(str::to_owned) }
}

/// Whether an expression selects the instance of these tests.
fn selects(expression: &str) -> bool {
    let attributes = [
        attribute("ecs.instance-type", Some("t2.small")),
        attribute("ecs.availability-zone", Some("us-east-1a")),
        attribute("ecs.capability.task-eni", None),
        attribute("slots", Some("12")),
        attribute("stack", Some("a b")),
    ];
    let groups = ["service:web".to_owned(), "family:job".to_owned()];
    let instance = Instance {
        attributes: &attributes,
        agent_connected: true,
        agent_version: "1.92.0",
        ec2_instance_id: Some("i-0123456789abcdef0"),
        registered_at: Timestamp(26 * 86_400_000),
        running_tasks: 2,
        task_groups: &groups,
    };
    match Query::parse(expression, read_time) {
        Ok(query) => query.matches(&instance),
        Err(error) => panic!("{expression}: {error}"),
    }
}

#[test]
fn every_subject_and_operator() {
    for (expression, expected) in [
        ("attribute:ecs.instance-type == t2.small", true),
        ("attribute:ecs.instance-type equals t2.medium", false),
        ("attribute:ecs.instance-type != t2.medium", true),
        ("attribute:ecs.instance-type not_equals t2.small", false),
        ("attribute:ecs.availability-zone in [us-east-1a, us-east-1b]", true),
        ("attribute:ecs.availability-zone !in [us-east-1a,us-east-1b]", false),
        ("attribute:ecs.availability-zone not_in [us-east-1c]", true),
        ("attribute:ecs.capability.task-eni exists", true),
        ("attribute:ecs.capability.gpu exists", false),
        ("attribute:ecs.capability.gpu !exists", true),
        ("attribute:ecs.capability.gpu not_exists", true),
        ("attribute:ecs.instance-type =~ t2.*", true),
        ("attribute:ecs.instance-type matches g2.*", false),
        ("attribute:ecs.instance-type !~ (g2|g3)\\..*", true),
        ("attribute:ecs.instance-type =~ t2", false),
        ("attribute:slots > 9", true),
        ("attribute:slots less_than_equal 12", true),
        ("attribute:slots < 9", false),
        ("attribute:ecs.instance-type >= t1.micro", true),
        ("attribute:stack == 'a b'", true),
        ("attribute:stack == \"a b\"", true),
        ("agentConnected == true", true),
        ("agentConnected != true", false),
        ("agentVersion >= 1.92", true),
        ("agentVersion < 1.100.0", true),
        ("agentVersion == 1.92", true),
        ("agentVersion greater_than 1.92.0", false),
        ("ec2InstanceId in ['i-0123456789abcdef0', 'i-1']", true),
        ("ec2InstanceId =~ i-0.*", true),
        ("runningTasksCount == 2", true),
        ("runningTasksCount > 2", false),
        ("runningTasksCount less_than 3", true),
        ("registeredAt >= 2018-02-18 and registeredAt < 2018-02-28", true),
        ("registeredAt > 2018-02-26T22:28", false),
        ("registeredAt <= 2018-02-27T22:28:28Z", true),
        ("task:group == service:web", true),
        ("task:group != service:web", false),
        ("task:group != service:db", true),
        ("task:group in [service:db, family:job]", true),
        ("task:group =~ service:.*", true),
        ("task:group !~ service:.*", false),
    ] {
        assert_eq!(selects(expression), expected, "{expression}");
    }
}

#[test]
fn an_instance_without_the_attribute_fails_every_test_but_that_it_lacks_it() {
    for expression in
        ["attribute:x == 1", "attribute:x != 1", "attribute:x !in [1]", "attribute:x !~ 1", "attribute:x < 1"]
    {
        assert!(!selects(expression), "{expression}");
        assert!(selects(&format!("not({expression})")), "not({expression})");
    }
}

#[test]
fn not_before_and_before_or() {
    let (yes, no) = ("runningTasksCount == 2", "runningTasksCount == 3");
    for (expression, expected) in [
        (format!("{yes} or {yes} and {no}"), true),
        (format!("({yes} or {yes}) and {no}"), false),
        (format!("{yes} || {yes} && {no}"), true),
        (format!("not {no} and {yes}"), true),
        (format!("!({no} or {yes})"), false),
        (format!("!{no}&&!{no}"), true),
        (format!("not(not({yes}))"), true),
        (format!("(({yes}))"), true),
        (format!("(attribute:ecs.instance-type =~ (t|m)[0-9]\\.small) and {yes}"), true),
        (format!("attribute:ecs.instance-type =~ [(]?t2.small and {yes}"), true),
    ] {
        assert_eq!(selects(&expression), expected, "{expression}");
    }
}

#[test]
fn an_error_points_at_what_is_wrong() {
    let long = format!("attribute:{} exists", "x".repeat(MAX_LENGTH));
    let deep = format!("{}runningTasksCount == 2{}", "(".repeat(60), ")".repeat(60));
    for (expression, position, what) in [
        ("", 1, "a subject is missing at the end"),
        ("  instanceType == t2", 3, "`instanceType` stands where agentConnected"),
        ("attribute: == x", 1, "`attribute:` stands where"),
        ("attribute:x", 12, "an operator is missing at the end"),
        ("attribute:x = 1", 13, "`=` stands where an operator is expected"),
        ("attribute:x ==", 15, "a value is missing at the end"),
        ("attribute:x == == 1", 16, "`==` stands where a value is expected"),
        ("attribute:é == 1 1", 18, "`1` stands where `and`, `or` or the end is expected"),
        ("attribute:x in a", 16, "`a` stands where `[` is expected"),
        ("attribute:x in [a", 18, "`]` is missing at the end"),
        ("attribute:x in [a b]", 19, "`b` stands where `]` is expected"),
        ("attribute:x in []", 17, "`]` stands where a value is expected"),
        ("(attribute:x exists", 20, "`)` is missing at the end"),
        ("attribute:x exists)", 19, "`)` stands where"),
        ("attribute:x !like 1", 14, "`like` stands where `exists` or `in` is expected"),
        ("attribute:x == 'a b", 16, "`'a b` stands where a value is expected"),
        ("attribute:x =~ \"a b", 16, "stands where a pattern is expected"),
        ("attribute:x =~ [", 16, "the pattern `[` cannot be read"),
        ("attribute:x =~", 15, "a pattern is missing"),
        ("attribute:x =~ (?=a)", 16, "the pattern `(?=a)` cannot be read"),
        ("attribute:x =~ (a{1000}){1000}", 16, "cannot be read"),
        ("agentVersion =~ 1.*", 14, "`=~` cannot be asked of `agentVersion`"),
        ("runningTasksCount exists", 19, "`exists` cannot be asked of `runningTasksCount`"),
        ("agentConnected > false", 16, "`>` cannot be asked of `agentConnected`"),
        ("runningTasksCount > many", 21, "`many` is not a number"),
        ("agentVersion > new", 16, "`new` is not a version"),
        ("registeredAt > yesterday", 16, "`yesterday` is not a time"),
        (&long, MAX_LENGTH + 1, "at most 2000 characters"),
        (&deep, 51, "nested 50 deep"),
    ] {
        let error = Query::parse(expression, read_time).expect_err(expression);
        assert_eq!(error.position, position, "{expression}: {error}");
        assert!(error.what.contains(what), "{expression}: {error}");
    }
}

#[test]
fn nothing_panics() {
    // Every piece in every place.
    let pieces =
        ["attribute:x", "==", "!", "in", "[", "]", "(", ")", "=~", "a", "'", "\"", ",", "not", "and", "é", "\\", " "];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                for text in
                    [format!("{a}{b}{c}"), format!("attribute:x {a} {b}{c}"), format!("attribute:x =~ {a}{b}{c}")]
                {
                    let _ = Query::parse(&text, read_time);
                }
            }
        }
    }
}
