//! Entry points for `cargo xtask fuzz`: hostile bytes in, no panic and no broken promise out.
//!
//! One target per codec, each on an operation with nested structures, lists, maps and timestamps. What
//! they start from is in `corpus/`, one folder per target.

use wire::{Operation, Protocol, Reflect, fuzz};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json),
    ("cbor", cbor),
    ("query", query),
    ("ec2", ec2),
    ("rest-json", rest_json),
    ("answer", answer),
    ("route", route),
    ("sigv4", sigv4),
];

fn codec<I: Reflect + Default>(operation: &'static Operation, protocol: Protocol, bytes: &[u8]) {
    fuzz::decode(operation, protocol, bytes, || Box::new(I::default()));
}

/// RegisterTaskDefinition in awsJson.
pub fn json(bytes: &[u8]) {
    use crate::ecs;
    codec::<ecs::RegisterTaskDefinitionRequest>(&ecs::operation::REGISTER_TASK_DEFINITION, Protocol::Json11, bytes);
}

/// PutMetricData in rpc-v2-CBOR.
pub fn cbor(bytes: &[u8]) {
    use crate::cloudwatch;
    codec::<cloudwatch::PutMetricDataInput>(&cloudwatch::operation::PUT_METRIC_DATA, Protocol::Cbor, bytes);
}

/// PutScheduledUpdateGroupAction and CreateRule in awsQuery: scalars and times, then nested lists.
pub fn query(bytes: &[u8]) {
    use crate::{autoscaling, elbv2};
    codec::<autoscaling::PutScheduledUpdateGroupActionType>(
        &autoscaling::operation::PUT_SCHEDULED_UPDATE_GROUP_ACTION,
        Protocol::Query,
        bytes,
    );
    codec::<elbv2::CreateRuleInput>(&elbv2::operation::CREATE_RULE, Protocol::Query, bytes);
}

/// RunInstances in ec2Query.
pub fn ec2(bytes: &[u8]) {
    use crate::ec2;
    codec::<ec2::RunInstancesRequest>(&ec2::operation::RUN_INSTANCES, Protocol::Ec2, bytes);
}

/// CreateAccessPoint in restJson.
pub fn rest_json(bytes: &[u8]) {
    use crate::efs;
    codec::<efs::CreateAccessPointRequest>(&efs::operation::CREATE_ACCESS_POINT, Protocol::RestJson, bytes);
}

/// Answers as our client reads them, in every form.
pub fn answer(bytes: &[u8]) {
    use crate::{cloudwatch, ec2, ecs, elbv2};
    reply::<ecs::DescribeTasksResponse>(&ecs::operation::DESCRIBE_TASKS, Protocol::Json11, bytes);
    reply::<cloudwatch::GetMetricDataOutput>(&cloudwatch::operation::GET_METRIC_DATA, Protocol::Cbor, bytes);
    reply::<elbv2::DescribeRulesOutput>(&elbv2::operation::DESCRIBE_RULES, Protocol::Query, bytes);
    reply::<ec2::DescribeVpcsResult>(&ec2::operation::DESCRIBE_VPCS, Protocol::Ec2, bytes);
}

fn reply<O: Reflect + Default>(operation: &'static Operation, protocol: Protocol, bytes: &[u8]) {
    fuzz::decode_answer(operation, protocol, bytes, || Box::new(O::default()));
}

/// Finding the operation of a request: its first line, its headers and, after an empty line, its body.
pub fn route(bytes: &[u8]) {
    if let Some((head, body)) = request(bytes) {
        fuzz::route(crate::SERVICES, head, body);
    }
}

/// The signature of a request in the same form.
pub fn sigv4(bytes: &[u8]) {
    if let Some((head, body)) = request(bytes) {
        fuzz::signature(head, body);
    }
}

fn request(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    Some((head, body.as_bytes()))
}
