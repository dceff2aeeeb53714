//! Instance profiles of instances: found by name or ARN, associated at launch or later.

use api::ec2::{
    AssociateIamInstanceProfileRequest, AssociateIamInstanceProfileResult,
    DescribeIamInstanceProfileAssociationsRequest, DescribeIamInstanceProfileAssociationsResult,
    DisassociateIamInstanceProfileRequest, DisassociateIamInstanceProfileResult, IamInstanceProfile,
    IamInstanceProfileAssociation, IamInstanceProfileSpecification, ReplaceIamInstanceProfileAssociationRequest,
    ReplaceIamInstanceProfileAssociationResult,
};
use domain::{
    Arn, IdSource, Timestamp,
    identity::{InstanceProfile, Role, role_key},
    instances::{Instance, InstanceState, ProfileAssociation, ProfileReference},
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::power::GONE;
use crate::{
    Call,
    ec2::common::{begin, check_filters, invalid_value, matches_any, page, required},
};

/// The profile a request names, whose role the caller must be allowed to hand over.
pub(super) fn find(
    call: &Call,
    view: &Snapshot,
    reference: &ProfileReference,
) -> Result<InstanceProfile, ServiceError> {
    let account = &call.scope.account;
    let found = match reference {
        ProfileReference::Name(name) => view
            .get::<InstanceProfile>(&role_key(account, name))
            .filter(|profile| profile.name == *name)
            .ok_or_else(|| invalid_value(name, "iamInstanceProfile.name", "Invalid IAM Instance Profile name"))?,
        ProfileReference::Arn(arn) => arn
            .parse::<Arn>()
            .ok()
            .and_then(|parsed| view.get::<InstanceProfile>(&role_key(account, parsed.resource_name())))
            .filter(|profile| profile.arn.as_str() == arn)
            .ok_or_else(|| invalid_value(arn, "iamInstanceProfile.arn", "Invalid IAM Instance Profile ARN"))?,
    };
    if let Some(role) = found.role.as_ref().and_then(|role| view.get::<Role>(&role_key(account, role))) {
        call.authorise_action("iam:PassRole", &[&role.arn])?;
    }
    Ok(InstanceProfile::clone(&found))
}

/// A new association with a profile.
pub(super) fn association(profile: &InstanceProfile, ids: &mut IdSource, now: Timestamp) -> ProfileAssociation {
    ProfileAssociation {
        association_id: ids.ec2("iip-assoc"),
        profile: profile.arn.clone(),
        profile_id: profile.id.clone(),
        at: now,
    }
}

/// A profile as an instance shows it.
pub(super) fn profile_shape(association: &ProfileAssociation) -> IamInstanceProfile {
    IamInstanceProfile { arn: Some(association.profile.to_string()), id: Some(association.profile_id.clone()) }
}

fn shape(instance_id: &str, association: &ProfileAssociation, state: &str) -> IamInstanceProfileAssociation {
    IamInstanceProfileAssociation {
        association_id: Some(association.association_id.clone()),
        instance_id: Some(instance_id.to_owned()),
        iam_instance_profile: Some(profile_shape(association)),
        state: Some(state.to_owned()),
        timestamp: Some(wire::Timestamp(association.at.millis())),
    }
}

fn reference(specification: Option<IamInstanceProfileSpecification>) -> Result<ProfileReference, ServiceError> {
    let specification = required(specification, "IamInstanceProfile")?;
    match (specification.arn, specification.name) {
        (Some(arn), None) => Ok(ProfileReference::Arn(arn)),
        (None, Some(name)) => Ok(ProfileReference::Name(name)),
        (Some(_), Some(_)) => Err(ServiceError::new(
            "InvalidParameterCombination",
            "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'",
        )),
        (None, None) => required(None, "IamInstanceProfile.Name"),
    }
}

/// The instance that has an association, and the association.
fn associated(
    call: &Call,
    tx: &Transaction,
    association_id: &str,
) -> Result<(Instance, ProfileAssociation), ServiceError> {
    tx.list::<Instance>(&call.scope.prefix())
        .filter(|instance| !GONE.contains(&instance.state()))
        .find_map(|instance| {
            let association = instance.profile.clone().filter(|one| one.association_id == association_id)?;
            Some((Instance::clone(&instance), association))
        })
        .ok_or_else(|| {
            let text = format!("An invalid association-id of '{association_id:.64}' was given");
            ServiceError::new("InvalidAssociationID.NotFound", text)
        })
}

/// AssociateIamInstanceProfile: with an instance that has none.
pub(in crate::ec2) async fn associate(
    call: Call,
    input: AssociateIamInstanceProfileRequest,
) -> Result<AssociateIamInstanceProfileResult, ServiceError> {
    let id = required(input.instance_id, "InstanceId")?;
    let reference = reference(input.iam_instance_profile)?;
    let auth = begin(&call, &[format!("instance/{id}")], None)?;
    let now = auth.now();
    auth.transact(|tx| {
        let mut instance = Instance::clone(&*super::one(&call, tx, &id)?);
        if !matches!(
            instance.state(),
            InstanceState::Pending | InstanceState::Running | InstanceState::Stopping | InstanceState::Stopped
        ) {
            let text = format!("The instance '{id}' is not in the 'running' or 'stopped' states.");
            return Err(ServiceError::new("IncorrectInstanceState", text));
        }
        if instance.profile.is_some() {
            let text = format!("There is an existing association for instance {id}");
            return Err(ServiceError::new("IncorrectState", text));
        }
        let profile = find(&call, tx, &reference)?;
        let association = association(&profile, &mut auth.platform().ids(), now);
        let shape = shape(&id, &association, "associated");
        instance.profile = Some(association);
        tx.put(instance);
        Ok(AssociateIamInstanceProfileResult { iam_instance_profile_association: Some(shape) })
    })
    .await
}

/// DisassociateIamInstanceProfile.
pub(in crate::ec2) async fn disassociate(
    call: Call,
    input: DisassociateIamInstanceProfileRequest,
) -> Result<DisassociateIamInstanceProfileResult, ServiceError> {
    let id = required(input.association_id, "AssociationId")?;
    let auth = begin(&call, &["instance/*".to_owned()], None)?;
    auth.transact(|tx| {
        let (mut instance, association) = associated(&call, tx, &id)?;
        instance.profile = None;
        let shape = shape(&instance.instance_id, &association, "disassociating");
        tx.put(instance);
        Ok(DisassociateIamInstanceProfileResult { iam_instance_profile_association: Some(shape) })
    })
    .await
}

/// ReplaceIamInstanceProfileAssociation: another profile, under a new association.
pub(in crate::ec2) async fn replace(
    call: Call,
    input: ReplaceIamInstanceProfileAssociationRequest,
) -> Result<ReplaceIamInstanceProfileAssociationResult, ServiceError> {
    let id = required(input.association_id, "AssociationId")?;
    let reference = reference(input.iam_instance_profile)?;
    let auth = begin(&call, &["instance/*".to_owned()], None)?;
    let now = auth.now();
    auth.transact(|tx| {
        let (mut instance, _) = associated(&call, tx, &id)?;
        let profile = find(&call, tx, &reference)?;
        let association = association(&profile, &mut auth.platform().ids(), now);
        let shape = shape(&instance.instance_id, &association, "associated");
        instance.profile = Some(association);
        tx.put(instance);
        Ok(ReplaceIamInstanceProfileAssociationResult { iam_instance_profile_association: Some(shape) })
    })
    .await
}

/// DescribeIamInstanceProfileAssociations.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeIamInstanceProfileAssociationsRequest,
) -> Result<DescribeIamInstanceProfileAssociationsResult, ServiceError> {
    let auth = begin(&call, &[], None)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &["instance-id", "state"])?;
    let view = auth.snapshot();
    let wanted = input.association_ids.unwrap_or_default();
    let mut found = Vec::new();
    for instance in view.list::<Instance>(&call.scope.prefix()) {
        let Some(association) = instance.profile.as_ref().filter(|_| !GONE.contains(&instance.state())) else {
            continue;
        };
        let matches = filters.iter().all(|filter| {
            let value = match filter.name.as_deref() {
                Some("instance-id") => instance.instance_id.clone(),
                Some("state") => "associated".to_owned(),
                Some("owner-id") => call.scope.account.to_string(),
                // An association has no tags.
                _ => return false,
            };
            matches_any(filter.values.as_deref().unwrap_or_default(), &[value])
        });
        if matches && (wanted.is_empty() || wanted.contains(&association.association_id)) {
            let shape = shape(&instance.instance_id, association, "associated");
            found.push((association.association_id.clone(), shape));
        }
    }
    if let Some(id) = wanted.iter().find(|id| filters.is_empty() && !found.iter().any(|(known, _)| known == *id)) {
        let text = format!("An invalid association-id of '{id:.64}' was given");
        return Err(ServiceError::new("InvalidAssociationID.NotFound", text));
    }
    let (associations, next_token) = page(&call, found, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeIamInstanceProfileAssociationsResult {
        iam_instance_profile_associations: Some(associations),
        next_token,
    })
}
