//! Security groups: made, shown and removed. Their rules are `security_group_rules`'s.

use api::ec2::{
    CreateSecurityGroupRequest, CreateSecurityGroupResult, DeleteSecurityGroupRequest, DeleteSecurityGroupResult,
    DescribeSecurityGroupsRequest, DescribeSecurityGroupsResult, Filter,
};
use domain::network::{NetworkInterface, Peer, SecurityGroup, Vpc};
use store::Snapshot;
use wire::ServiceError;

use super::{
    common::{Filterable, Query, begin, describe, find, invalid_value, required},
    default_vpc, permissions, tags,
};
use crate::Call;

/// Groups that a VPC can have.
const MAX_GROUPS: usize = 2500;

const FILTERS: Filterable<SecurityGroup> = Filterable {
    names: &[
        "group-id",
        "group-name",
        "vpc-id",
        "description",
        "ip-permission.cidr",
        "ip-permission.group-id",
        "ip-permission.protocol",
        "ip-permission.from-port",
        "ip-permission.to-port",
        "egress.ip-permission.cidr",
        "egress.ip-permission.group-id",
        "egress.ip-permission.protocol",
        "egress.ip-permission.from-port",
        "egress.ip-permission.to-port",
    ],
    values: |_, group, name| {
        let one = match name {
            "group-id" => Some(&group.group_id),
            "group-name" => Some(&group.name),
            "vpc-id" => Some(&group.vpc_id),
            "description" => Some(&group.description),
            _ => None,
        };
        if let Some(one) = one {
            return vec![one.clone()];
        }
        let (egress, what) = match name.strip_prefix("egress.") {
            Some(what) => (true, what),
            None => (false, name),
        };
        let rules = group.rules.iter().filter(|rule| rule.egress == egress);
        rules
            .filter_map(|rule| {
                let (protocol, from, to) = permissions::numbers(rule.protocol);
                match (what, &rule.peer) {
                    ("ip-permission.cidr", Peer::Cidr(_)) | ("ip-permission.group-id", Peer::Group(_)) => {
                        Some(permissions::peer_text(&rule.peer))
                    }
                    ("ip-permission.protocol", _) => Some(protocol),
                    ("ip-permission.from-port", _) => from.map(|port| port.to_string()),
                    ("ip-permission.to-port", _) => to.map(|port| port.to_string()),
                    _ => None,
                }
            })
            .collect()
    },
};

fn shape(group: &SecurityGroup) -> api::ec2::SecurityGroup {
    api::ec2::SecurityGroup {
        group_id: Some(group.group_id.clone()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        vpc_id: Some(group.vpc_id.clone()),
        owner_id: Some(group.scope.account.to_string()),
        security_group_arn: Some(arn(group)),
        ip_permissions: Some(permissions::joined(group, false)),
        ip_permissions_egress: Some(permissions::joined(group, true)),
        tags: tags::shape(&group.tags),
    }
}

fn arn(group: &SecurityGroup) -> String {
    group.scope.arn("ec2", &format!("security-group/{}", group.group_id)).to_string()
}

/// Characters of names and descriptions, as Amazon's.
fn check_text(text: &str, name: &str) -> Result<(), ServiceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if text.is_empty() || text.len() > 255 || !text.chars().all(allowed) {
        let why = "Character sets beyond ASCII are not supported, and it must have 1 to 255 characters.";
        return Err(invalid_value(text, name, why));
    }
    Ok(())
}

fn default_vpc(call: &Call, view: &Snapshot) -> Result<String, ServiceError> {
    let vpc = view.list::<Vpc>(&call.scope.prefix()).find(|vpc| vpc.is_default).map(|vpc| vpc.vpc_id.clone());
    vpc.ok_or_else(|| ServiceError::new("VPCIdNotSpecified", "No default VPC for this user"))
}

/// CreateSecurityGroup: with the rule that lets everything out.
pub(super) async fn create(
    call: Call,
    input: CreateSecurityGroupRequest,
) -> Result<CreateSecurityGroupResult, ServiceError> {
    let auth = begin(&call, &["security-group/*".to_owned()], input.dry_run)?;
    let name = required(input.group_name, "groupName")?;
    let description = required(input.description, "groupDescription")?;
    check_text(&name, "groupName")?;
    check_text(&description, "groupDescription")?;
    if name.starts_with("sg-") {
        return Err(invalid_value(&name, "groupName", "Names may not be in the format sg-*."));
    }
    if name == "default" {
        return Err(ServiceError::new("InvalidParameterValue", "Cannot use reserved security group name: default"));
    }
    let tags = tags::specified(input.tag_specifications, "security-group")?;
    let group = auth
        .transact(|tx| {
            let vpc_id = match input.vpc_id {
                Some(id) => find::<Vpc>(&call, tx, &id)?.vpc_id.clone(),
                None => default_vpc(&call, tx)?,
            };
            if tx.find::<SecurityGroup>("vpc", vpc_id.as_str()).any(|group| group.name == name) {
                let text = format!("The security group '{name}' already exists for VPC '{vpc_id}'");
                return Err(ServiceError::new("InvalidGroup.Duplicate", text));
            }
            if tx.count::<SecurityGroup>("vpc", vpc_id.as_str()) >= MAX_GROUPS {
                let text = "The maximum number of security groups has been reached.";
                return Err(ServiceError::new("SecurityGroupLimitExceeded", text));
            }
            let mut ids = auth.platform().ids();
            let group = SecurityGroup {
                scope: call.scope.clone(),
                group_id: ids.ec2("sg"),
                name,
                description,
                vpc_id,
                rules: vec![default_vpc::allow_all_egress(&mut ids)],
                tags,
            };
            tx.put(group.clone());
            Ok(group)
        })
        .await?;
    Ok(CreateSecurityGroupResult {
        group_id: Some(group.group_id.clone()),
        security_group_arn: Some(arn(&group)),
        tags: tags::shape(&group.tags),
    })
}

/// The id that a request means: given, or found by name in the default VPC.
pub(super) fn resolve(
    call: &Call,
    view: &Snapshot,
    id: Option<String>,
    name: Option<String>,
) -> Result<String, ServiceError> {
    match (id, name) {
        (Some(id), _) => Ok(id),
        (None, Some(name)) => {
            let vpc = default_vpc(call, view)?;
            let group = view.find::<SecurityGroup>("vpc", vpc).find(|group| group.name == name);
            group.map(|group| group.group_id.clone()).ok_or_else(|| {
                let text = format!("The security group '{name:.255}' does not exist in default VPC");
                ServiceError::new("InvalidGroup.NotFound", text)
            })
        }
        (None, None) => required(None, "groupId"),
    }
}

/// DeleteSecurityGroup: not the default one, nor one that an interface has or a rule of another group names.
pub(super) async fn delete(
    call: Call,
    input: DeleteSecurityGroupRequest,
) -> Result<DeleteSecurityGroupResult, ServiceError> {
    let resource = format!("security-group/{}", input.group_id.as_deref().unwrap_or("*"));
    let auth = begin(&call, &[resource], input.dry_run)?;
    let id = auth
        .transact(|tx| {
            let id = resolve(&call, tx, input.group_id, input.group_name)?;
            let group = find::<SecurityGroup>(&call, tx, &id)?;
            if group.is_default() {
                let text = format!("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user");
                return Err(ServiceError::new("CannotDelete", text));
            }
            let named = tx.find::<SecurityGroup>("references", id.as_str()).any(|other| other.group_id != id);
            if named || tx.count::<NetworkInterface>("security-group", id.as_str()) > 0 {
                return Err(ServiceError::new("DependencyViolation", format!("resource {id} has a dependent object")));
            }
            tx.delete::<SecurityGroup>(&call.scope.key(&id));
            Ok(id)
        })
        .await?;
    Ok(DeleteSecurityGroupResult { r#return: Some(true), group_id: Some(id) })
}

/// DescribeSecurityGroups.
pub(super) async fn list(
    call: Call,
    input: DescribeSecurityGroupsRequest,
) -> Result<DescribeSecurityGroupsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let view = auth.snapshot();
    let mut filters = input.filters.unwrap_or_default();
    if let Some(names) = input.group_names.filter(|names| !names.is_empty()) {
        for name in &names {
            resolve(&call, &view, None, Some(name.clone()))?;
        }
        let filter = |name: &str, values| Filter { name: Some(name.to_owned()), values: Some(values) };
        filters.push(filter("group-name", names));
        filters.push(filter("vpc-id", vec![default_vpc(&call, &view)?]));
    }
    let query = Query {
        ids: input.group_ids,
        filters: Some(filters),
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let (groups, next_token) = describe(&call, &view, query, &FILTERS)?;
    Ok(DescribeSecurityGroupsResult {
        security_groups: Some(groups.iter().map(|group| shape(group)).collect()),
        next_token,
    })
}
