//! What Amazon's console makes for whoever uses ECS for the first time: the task execution role, and the instance role
//! with its profile.

use domain::{
    AccountId, Arn, IdSource, Timestamp,
    identity::{DEFAULT_PATH, InstanceProfile, Role, role_key, service_trust_policy},
};
use store::Transaction;

/// Makes the roles `ecsTaskExecutionRole` and `ecsInstanceRole` (with its instance profile) in an account that has
/// not been used before. What was deleted later stays deleted: call it once in an account's life.
pub fn ensure_account(tx: &mut Transaction, account: &AccountId, ids: &mut IdSource, now: Timestamp) {
    let roles = [
        ("ecsTaskExecutionRole", "ecs-tasks.amazonaws.com", "service-role/AmazonECSTaskExecutionRolePolicy"),
        ("ecsInstanceRole", "ec2.amazonaws.com", "service-role/AmazonEC2ContainerServiceforEC2Role"),
    ];
    for (name, service, policy) in roles {
        if tx.contains::<Role>(&role_key(account, name)) {
            continue;
        }
        tx.put(Role {
            arn: Arn::global(account, "iam", &format!("role/{name}")),
            account: account.clone(),
            name: name.to_owned(),
            path: DEFAULT_PATH.to_owned(),
            id: ids.iam("AROA", 21),
            trust_policy: service_trust_policy(service),
            description: None,
            max_session_duration: 3_600,
            inline_policies: Default::default(),
            attached_policies: format!("arn:aws:iam::aws:policy/{policy}").parse().into_iter().collect(),
            permissions_boundary: None,
            tags: Default::default(),
            created_at: now,
        });
    }
    let name = "ecsInstanceRole";
    if !tx.contains::<InstanceProfile>(&role_key(account, name)) {
        tx.put(InstanceProfile {
            arn: Arn::global(account, "iam", &format!("instance-profile/{name}")),
            account: account.clone(),
            name: name.to_owned(),
            path: DEFAULT_PATH.to_owned(),
            id: ids.iam("AIPA", 21),
            role: Some(name.to_owned()),
            tags: Default::default(),
            created_at: now,
        });
    }
}
