//! ARNs of ECS resources, and the forms in which requests name them: bare name, partial ARN, full ARN.

use crate::{Arn, IdSource, Scope};

/// The cluster that requests mean which name none.
pub const DEFAULT_CLUSTER: &str = "default";

/// `arn:…:cluster/{name}`.
pub fn cluster(scope: &Scope, name: &str) -> Arn {
    scope.arn("ecs", &format!("cluster/{name}"))
}

/// A new task's ARN: `arn:…:task/{cluster}/{32 hex}`.
pub fn new_task(scope: &Scope, cluster: &str, ids: &mut IdSource) -> Arn {
    scope.arn("ecs", &format!("task/{cluster}/{}", ids.ecs()))
}

/// A new container's ARN: `arn:…:container/{cluster}/{task}/{uuid}`.
pub fn new_container(scope: &Scope, cluster: &str, task: &str, ids: &mut IdSource) -> Arn {
    scope.arn("ecs", &format!("container/{cluster}/{task}/{}", ids.uuid()))
}

/// A service's ARN: `arn:…:service/{cluster}/{name}`.
pub fn service(scope: &Scope, cluster: &str, name: &str) -> Arn {
    scope.arn("ecs", &format!("service/{cluster}/{name}"))
}

/// A new container instance's ARN: `arn:…:container-instance/{cluster}/{32 hex}`.
pub fn new_container_instance(scope: &Scope, cluster: &str, ids: &mut IdSource) -> Arn {
    scope.arn("ecs", &format!("container-instance/{cluster}/{}", ids.ecs()))
}

/// `arn:…:task-definition/{family}:{revision}`.
pub fn task_definition(scope: &Scope, family: &str, revision: u32) -> Arn {
    scope.arn("ecs", &format!("task-definition/{family}:{revision}"))
}

/// The name of the cluster that `text` means, a name or an ARN of this account and region; `None` when it is an ARN of
/// something else.
pub fn cluster_name<'a>(scope: &Scope, text: &'a str) -> Option<&'a str> {
    name_after(scope, text, "cluster")
}

/// What follows `{kind}/` in an ARN of this account and region; text that is no ARN is returned as it is.
pub fn name_after<'a>(scope: &Scope, text: &'a str, kind: &str) -> Option<&'a str> {
    if !text.starts_with("arn:") {
        return Some(text);
    }
    let mut parts = text.splitn(6, ':').skip(2);
    let (service, region, account) = (parts.next()?, parts.next()?, parts.next()?);
    let resource = parts.next()?;
    if service != "ecs" || region != scope.region.as_str() || account != scope.account.as_str() {
        return None;
    }
    resource.strip_prefix(kind)?.strip_prefix('/')
}

/// The ARN of something that lives in a cluster (`task`, `service`, `container-instance`) from its id, its short ARN
/// (`…:task/{id}`) or its full one. `None` when the text is an ARN of another cluster, account, region or kind.
pub fn in_cluster(scope: &Scope, cluster: &str, kind: &str, text: &str) -> Option<String> {
    let name = name_after(scope, text, kind)?;
    let id = match name.split_once('/') {
        Some((of, id)) if of == cluster => id,
        Some(_) => return None,
        None => name,
    };
    let valid = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    valid.then(|| scope.arn("ecs", &format!("{kind}/{cluster}/{id}")).to_string())
}

/// Whether a name of a cluster, service, family or container is well formed: 1 to 255 letters, digits, hyphens and
/// underscores.
pub fn is_valid(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() }
    }

    #[test]
    fn a_cluster_is_named_by_name_or_arn() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(cluster_name(&scope(), text), expect, "{text}");
        check("web", Some("web"));
        check("arn:aws:ecs:us-east-1:123456789012:cluster/web", Some("web"));
        check("arn:aws:ecs:eu-west-1:123456789012:cluster/web", None);
        check("arn:aws:ecs:us-east-1:123456789012:service/web", None);
        check("arn:aws:ecs", None);
    }

    #[test]
    fn tasks_are_named_by_id_short_arn_or_arn_of_the_same_cluster() {
        let full = "arn:aws:ecs:us-east-1:123456789012:task/web/0af3";
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(in_cluster(&scope(), "web", "task", text).as_deref(), expect, "{text}");
        };
        check("0af3", Some(full));
        check("arn:aws:ecs:us-east-1:123456789012:task/0af3", Some(full));
        check(full, Some(full));
        check("arn:aws:ecs:us-east-1:123456789012:task/other/0af3", None);
        check("arn:aws:ecs:us-east-1:123456789012:service/web/0af3", None);
        check("", None);
        check("../x", None);
    }
}
