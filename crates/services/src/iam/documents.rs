//! The grammar of policy documents: what Amazon refuses with MalformedPolicyDocument. What a well-formed document
//! decides is not looked at here.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>

use std::collections::BTreeSet;

use api::iam::error;
use serde_json::{Map, Value};
use wire::ServiceError;

/// How many characters a trust policy may have, white space not counted.
const MAX_TRUST: usize = 2_048;

const SYNTAX: &str = "Syntax errors in policy.";

/// What a document is for: the two have other members and other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who may assume a role.
    Trust,
    /// What a role may do.
    Identity,
}

/// Refuses a document that is not a policy of this kind.
pub(super) fn check(kind: Kind, document: &str) -> Result<(), ServiceError> {
    if kind == Kind::Trust && document.chars().filter(|c| !c.is_whitespace()).count() > MAX_TRUST {
        return Err(error::limit_exceeded_exception(format!("Cannot exceed quota for ACLSizePerRole: {MAX_TRUST}")));
    }
    policy(kind, document).map_err(error::malformed_policy_document_exception)
}

type Checked = Result<(), String>;

fn refuse(text: impl Into<String>) -> Checked {
    Err(text.into())
}

fn policy(kind: Kind, document: &str) -> Checked {
    let Ok(value) = serde_json::from_str::<Value>(document) else {
        return refuse(if kind == Kind::Trust { "This policy contains invalid Json" } else { SYNTAX });
    };
    let Value::Object(policy) = value else { return refuse(SYNTAX) };
    if policy.keys().any(|key| !["Version", "Id", "Statement"].contains(&key.as_str())) {
        return refuse(SYNTAX);
    }
    if policy.get("Version").is_some_and(|version| version != "2012-10-17" && version != "2008-10-17") {
        return refuse(SYNTAX);
    }
    let statements = match policy.get("Statement") {
        Some(Value::Array(statements)) if !statements.is_empty() => statements.iter().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return refuse(SYNTAX),
    };
    let mut ids = BTreeSet::new();
    for statement in statements {
        let Value::Object(statement) = statement else { return refuse(SYNTAX) };
        check_members(statement)?;
        match kind {
            Kind::Trust => trust(statement)?,
            Kind::Identity => identity(statement)?,
        }
        if let Some(id) = statement.get("Sid").and_then(Value::as_str).filter(|id| !id.is_empty())
            && !ids.insert(id)
        {
            return refuse("Statement IDs (SID) in a single policy must be unique.");
        }
    }
    Ok(())
}

/// What statements of both kinds have in common.
fn check_members(statement: &Map<String, Value>) -> Checked {
    for (name, value) in statement {
        let right = match name.as_str() {
            "Sid" => value.is_string(),
            "Effect" => value == "Allow" || value == "Deny",
            "Principal" | "NotPrincipal" => {
                value.as_object().is_some_and(|principals| !principals.is_empty()) || value == "*"
            }
            "Action" | "NotAction" | "Resource" | "NotResource" => texts(value).is_some_and(|list| !list.is_empty()),
            "Condition" => value.as_object().is_some_and(|operators| operators.values().all(Value::is_object)),
            _ => false,
        };
        if !right {
            return refuse(SYNTAX);
        }
    }
    let both = |one: &str, other: &str| statement.contains_key(one) && statement.contains_key(other);
    if both("Action", "NotAction") || both("Resource", "NotResource") || both("Principal", "NotPrincipal") {
        return refuse(SYNTAX);
    }
    if statement.contains_key("Effect") { Ok(()) } else { refuse("Missing required field Effect") }
}

fn trust(statement: &Map<String, Value>) -> Checked {
    if let Some(name) = ["Resource", "NotResource"].into_iter().find(|name| statement.contains_key(*name)) {
        return refuse(format!("Has prohibited field {name}"));
    }
    let Some(principal) = statement.get("Principal").or_else(|| statement.get("NotPrincipal")) else {
        return refuse("Missing required field Principal");
    };
    for (kind, value) in principal.as_object().into_iter().flatten() {
        let names = texts(value).filter(|names| !names.is_empty()).ok_or_else(|| SYNTAX.to_owned())?;
        for name in names {
            if !is_principal(kind, name) {
                return refuse(format!("Invalid principal in policy: \"{}\":\"{name}\"", kind.to_uppercase()));
            }
        }
    }
    let actions = statement.get("Action").or_else(|| statement.get("NotAction")).and_then(texts);
    let Some(actions) = actions else { return refuse("Missing required field Action") };
    if actions.iter().any(|action| !action.to_ascii_lowercase().starts_with("sts:")) {
        return refuse("AssumeRole policy may only specify STS AssumeRole actions.");
    }
    Ok(())
}

/// Whether a principal of that kind can have that name; whether there is one is not asked.
fn is_principal(kind: &str, name: &str) -> bool {
    match kind {
        "AWS" => {
            let account = name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_digit());
            name == "*" || account || name.starts_with("arn:aws")
        }
        "Service" => [".amazonaws.com", ".amazonaws.com.cn", ".amazon.com"].iter().any(|end| name.ends_with(end)),
        "Federated" | "CanonicalUser" => !name.is_empty(),
        _ => false,
    }
}

fn identity(statement: &Map<String, Value>) -> Checked {
    if statement.contains_key("Principal") || statement.contains_key("NotPrincipal") {
        return refuse("Policy document should not specify a principal.");
    }
    let of = |one: &str, other: &str| statement.get(one).or_else(|| statement.get(other)).and_then(texts);
    let Some(actions) = of("Action", "NotAction") else { return refuse("Policy statement must contain actions.") };
    if actions.iter().any(|action| *action != "*" && !action.contains(':')) {
        return refuse("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.");
    }
    let Some(resources) = of("Resource", "NotResource") else {
        return refuse("Policy statement must contain resources.");
    };
    match resources.iter().find(|resource| **resource != "*" && !resource.starts_with("arn:")) {
        Some(resource) => refuse(format!("Resource {resource} must be in ARN format or \"*\".")),
        None => Ok(()),
    }
}

/// A text, or a list of nothing but texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(kind: Kind, document: &str, text: &str) {
        assert_eq!(check(kind, document).unwrap_err().message(), text, "{document}");
    }

    fn statement(members: &str) -> String {
        format!(r#"{{"Version": "2012-10-17", "Statement": [{{{members}}}]}}"#)
    }

    #[test]
    fn trust_policies_say_who_and_not_what() {
        let good = domain::identity::service_trust_policy("ec2.amazonaws.com");
        assert!(check(Kind::Trust, &good).is_ok());
        let all = r#""Effect": "Allow", "Principal": {"AWS": ["123456789012", "*"]}, "Action": ["sts:AssumeRole", "sts:TagSession"]"#;
        assert!(check(Kind::Trust, &statement(all)).is_ok());
        let check = |members: &str, text: &str| refused(Kind::Trust, &statement(members), text);
        check(r#""Effect": "Allow", "Action": "sts:AssumeRole""#, "Missing required field Principal");
        check(r#""Principal": "*", "Action": "sts:AssumeRole""#, "Missing required field Effect");
        check(r#""Effect": "Allow", "Principal": "*""#, "Missing required field Action");
        check(r#""Effect": "allow", "Principal": "*", "Action": "sts:AssumeRole""#, SYNTAX);
        check(
            r#""Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole", "Resource": "*""#,
            "Has prohibited field Resource",
        );
        check(
            r#""Effect": "Allow", "Principal": "*", "Action": "s3:GetObject""#,
            "AssumeRole policy may only specify STS AssumeRole actions.",
        );
        check(
            r#""Effect": "Allow", "Principal": {"Service": "ecs-tasks"}, "Action": "sts:AssumeRole""#,
            "Invalid principal in policy: \"SERVICE\":\"ecs-tasks\"",
        );
        refused(Kind::Trust, "{", "This policy contains invalid Json");
        refused(Kind::Trust, "{}", SYNTAX);
        refused(Kind::Trust, &good.replace("2012-10-17", "2013-10-17"), SYNTAX);
        let long = good.replace("ec2.", &"x".repeat(2_048));
        refused(Kind::Trust, &long, "Cannot exceed quota for ACLSizePerRole: 2048");
    }

    #[test]
    fn identity_policies_say_what_and_not_who() {
        assert!(check(Kind::Identity, &statement(r#""Effect": "Deny", "NotAction": "*", "Resource": "*""#)).is_ok());
        let check = |members: &str, text: &str| refused(Kind::Identity, &statement(members), text);
        check(r#""Effect": "Allow", "Resource": "*""#, "Policy statement must contain actions.");
        check(r#""Effect": "Allow", "Action": "ecs:RunTask""#, "Policy statement must contain resources.");
        check(
            r#""Effect": "Allow", "Action": "RunTask", "Resource": "*""#,
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        );
        check(
            r#""Effect": "Allow", "Action": "ecs:*", "Resource": "cluster""#,
            "Resource cluster must be in ARN format or \"*\".",
        );
        check(
            r#""Effect": "Allow", "Action": "ecs:*", "Resource": "*", "Principal": "*""#,
            "Policy document should not specify a principal.",
        );
        let twice = r#"{"Sid": "a", "Effect": "Allow", "Action": "*", "Resource": "*"}"#;
        let document = format!(r#"{{"Statement": [{twice}, {twice}]}}"#);
        refused(Kind::Identity, &document, "Statement IDs (SID) in a single policy must be unique.");
        refused(Kind::Identity, "{", SYNTAX);
    }
}
