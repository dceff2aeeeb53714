//! The attributes of target groups that say how a target is chosen: algorithm, slow start, stickiness.

use api::elbv2::error;
use domain::{
    Arn,
    balancing::{Action, Algorithm, GroupStickiness, Listener, Rule, StickinessType, TargetChoice},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    attributes::{boolean, number},
    find,
    names::{invalid, unsupported},
};

/// The longest duration of stickiness, in seconds.
pub(super) const WEEK: u32 = 604_800;

/// What no application's cookie may begin with.
const RESERVED: [&str; 3] = ["AWSALB", "AWSALBAPP", "AWSALBTG"];

/// Changes one of them; false if `key` is none.
pub(super) fn change(to: &mut TargetChoice, key: &str, value: &str) -> Result<bool, ServiceError> {
    match key {
        "load_balancing.algorithm.type" => {
            to.algorithm = match value {
                "round_robin" => Algorithm::RoundRobin,
                "least_outstanding_requests" => Algorithm::LeastOutstandingRequests,
                "weighted_random" => {
                    return Err(unsupported(&format!("The value '{value}' of the attribute '{key}'")));
                }
                _ => return Err(invalid(format!("The value '{value}' of the attribute '{key}' is not valid"))),
            }
        }
        "slow_start.duration_seconds" if value == "0" => to.slow_start_seconds = 0,
        "slow_start.duration_seconds" => to.slow_start_seconds = number(key, value, 30, 900)?,
        "stickiness.enabled" => to.stickiness.enabled = boolean(key, value)?,
        "stickiness.type" => {
            to.stickiness.kind = match value {
                "lb_cookie" => StickinessType::LbCookie,
                "app_cookie" => StickinessType::AppCookie,
                "source_ip" | "source_ip_dest_ip" | "source_ip_dest_ip_proto" => {
                    return Err(error::invalid_configuration_request_exception(format!(
                        "Stickiness type '{value}' is not supported for target groups with the HTTP protocol"
                    )));
                }
                _ => return Err(invalid(format!("The value '{value}' of the attribute '{key}' is not valid"))),
            }
        }
        "stickiness.lb_cookie.duration_seconds" => to.stickiness.lb_cookie_seconds = number(key, value, 1, WEEK)?,
        "stickiness.app_cookie.duration_seconds" => to.stickiness.app_cookie_seconds = number(key, value, 1, WEEK)?,
        "stickiness.app_cookie.cookie_name" => {
            check_cookie_name(key, value)?;
            value.clone_into(&mut to.stickiness.app_cookie_name);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// None, or a token of HTTP that the load balancer does not use itself.
fn check_cookie_name(key: &str, value: &str) -> Result<(), ServiceError> {
    if let Some(reserved) = RESERVED.iter().find(|reserved| value.starts_with(*reserved)) {
        return Err(invalid(format!(
            "The value '{value}' of the attribute '{key}' must not start with '{reserved}', which is reserved for use by the \
             load balancer"
        )));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if value.len() > 256 || !value.bytes().all(token) {
        return Err(invalid(format!("The value '{value}' of the attribute '{key}' is not a valid cookie name")));
    }
    Ok(())
}

/// All of them with their values.
pub(super) fn pairs(of: &TargetChoice) -> [(&'static str, String); 7] {
    [
        ("stickiness.enabled", of.stickiness.enabled.to_string()),
        ("stickiness.type", of.stickiness.kind.as_str().to_owned()),
        ("stickiness.lb_cookie.duration_seconds", of.stickiness.lb_cookie_seconds.to_string()),
        ("stickiness.app_cookie.cookie_name", of.stickiness.app_cookie_name.clone()),
        ("stickiness.app_cookie.duration_seconds", of.stickiness.app_cookie_seconds.to_string()),
        ("load_balancing.algorithm.type", of.algorithm.as_str().to_owned()),
        ("slow_start.duration_seconds", of.slow_start_seconds.to_string()),
    ]
}

/// Refuses what does not go together.
pub(super) fn check(of: &TargetChoice) -> Result<(), ServiceError> {
    let refuse = |message: &str| Err(error::invalid_configuration_request_exception(message));
    if of.algorithm == Algorithm::LeastOutstandingRequests && of.slow_start_seconds > 0 {
        return refuse("You cannot enable both slow start and least outstanding requests algorithm on a target group");
    }
    let sticky = &of.stickiness;
    if sticky.enabled && sticky.kind == StickinessType::AppCookie && sticky.app_cookie_name.is_empty() {
        return refuse("You must set an application cookie name to enable stickiness of type 'app_cookie'");
    }
    Ok(())
}

/// Refuses stickiness of a group that stands behind a choice between groups in which clients do not stay with one.
pub(super) fn check_rules_of(view: &Snapshot, target_group: &Arn) -> Result<(), ServiceError> {
    let defaults = view.find::<Listener>(Listener::BY_TARGET_GROUP, target_group.as_str());
    let defaults = defaults.filter(|listener| loses_clients(&listener.default_action)).map(|found| found.arn.clone());
    let rules = view.find::<Rule>(Rule::BY_TARGET_GROUP, target_group.as_str());
    let rules = rules.filter(|rule| loses_clients(&rule.action)).map(|found| found.arn.clone());
    match defaults.chain(rules).next() {
        Some(arn) => Err(error::invalid_configuration_request_exception(format!(
            "This target group appears behind a rule with group stickiness disabled ({arn}). You must enable group \
             stickiness before enabling target stickiness"
        ))),
        None => Ok(()),
    }
}

/// Refuses an action that chooses between groups, one of them sticky, without making clients stay with their group.
pub(super) fn check_action(view: &Snapshot, action: &Action) -> Result<(), ServiceError> {
    let sticky =
        |group: &str| find::target_group(view, group).is_ok_and(|group| group.attributes.choice.stickiness.enabled);
    if loses_clients(action) && action.target_groups().any(sticky) {
        return Err(error::invalid_configuration_request_exception(
            "You must enable group stickiness on a rule if you enabled target stickiness on one of its target groups",
        ));
    }
    Ok(())
}

fn loses_clients(action: &Action) -> bool {
    match action {
        Action::Forward { groups, stickiness } => groups.len() > 1 && !stickiness.enabled,
        _ => false,
    }
}

/// What a request says of a client's stay with its group.
pub(super) fn group_stickiness(enabled: Option<bool>, duration: Option<i32>) -> Result<GroupStickiness, ServiceError> {
    let enabled = enabled.unwrap_or(false);
    let seconds = duration.map(|seconds| u32::try_from(seconds).unwrap_or(0));
    let fits = |seconds: u32| (1..=WEEK).contains(&seconds);
    if (enabled && seconds.is_none()) || seconds.is_some_and(|seconds| !fits(seconds)) {
        return Err(invalid(format!("Target group stickiness duration must be between 1 and {WEEK} seconds")));
    }
    Ok(GroupStickiness { enabled, duration_seconds: seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[(&str, &str)]) -> Result<TargetChoice, String> {
        let mut choice = TargetChoice::default();
        let all =
            changes.iter().try_for_each(|(key, value)| change(&mut choice, key, value).map(|known| assert!(known)));
        all.and_then(|()| check(&choice)).map(|()| choice).map_err(|refusal| refusal.message().to_owned())
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        let given = [
            ("stickiness.enabled", "true"),
            ("stickiness.type", "app_cookie"),
            ("stickiness.app_cookie.cookie_name", "SID"),
            ("stickiness.app_cookie.duration_seconds", "604800"),
            ("stickiness.lb_cookie.duration_seconds", "1"),
            ("slow_start.duration_seconds", "30"),
        ];
        let choice = changed(&given).unwrap();
        let shown = pairs(&choice);
        assert!(given.iter().all(|(key, value)| shown.contains(&(*key, (*value).to_owned()))), "{shown:?}");
        let shown: Vec<(&str, &str)> = shown.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(changed(&shown), Ok(choice));
        assert!(!change(&mut TargetChoice::default(), "deregistration_delay.timeout_seconds", "1").unwrap());
    }

    #[test]
    fn values_have_amazons_bounds() {
        let algorithm = "load_balancing.algorithm.type";
        let name = "stickiness.app_cookie.cookie_name";
        for (key, wrong) in [
            (algorithm, "weighted_random"),
            (algorithm, "random"),
            ("slow_start.duration_seconds", "29"),
            ("slow_start.duration_seconds", "901"),
            ("slow_start.duration_seconds", "-1"),
            ("stickiness.enabled", "yes"),
            ("stickiness.type", "source_ip"),
            ("stickiness.lb_cookie.duration_seconds", "0"),
            ("stickiness.lb_cookie.duration_seconds", "604801"),
            ("stickiness.app_cookie.duration_seconds", "0"),
            (name, "AWSALB"),
            (name, "AWSALBAPP-0"),
            (name, "AWSALBTG"),
            (name, "a b"),
            (name, "a=b"),
        ] {
            let refusal = changed(&[(key, wrong)]).unwrap_err();
            assert!(refusal.contains(wrong), "{key}: {refusal}");
        }
        assert!(changed(&[(algorithm, "weighted_random")]).unwrap_err().contains("not supported by Longshore"));
        let both = [(algorithm, "least_outstanding_requests"), ("slow_start.duration_seconds", "30")];
        assert!(changed(&both).unwrap_err().contains("cannot enable both slow start"));
        let nameless = [("stickiness.enabled", "true"), ("stickiness.type", "app_cookie")];
        assert!(changed(&nameless).unwrap_err().contains("application cookie name"));
    }

    #[test]
    fn groups_are_kept_for_up_to_a_week() {
        let kept = |enabled, duration| group_stickiness(enabled, duration).unwrap().duration();
        assert_eq!(kept(None, None), None);
        assert_eq!(kept(Some(false), Some(5)), None);
        assert_eq!(kept(Some(true), Some(604_800)), Some(604_800));
        for wrong in [None, Some(0), Some(-1), Some(604_801)] {
            assert!(group_stickiness(Some(true), wrong).is_err(), "{wrong:?}");
        }
    }
}
