//! GetConsoleOutput: the end of what an instance has printed, as `host` last told it.

use api::ec2::{GetConsoleOutputRequest, GetConsoleOutputResult};
use domain::instances::ConsoleOutput;
use wire::ServiceError;

use crate::{
    Call,
    ec2::common::{begin, required},
};

/// GetConsoleOutput. There is one output, which is always the latest.
pub(in crate::ec2) async fn output(
    call: Call,
    input: GetConsoleOutputRequest,
) -> Result<GetConsoleOutputResult, ServiceError> {
    let id = required(input.instance_id, "InstanceId")?;
    let auth = begin(&call, &[format!("instance/{id}")], input.dry_run)?;
    let view = auth.snapshot();
    let instance = super::one(&call, &view, &id)?;
    let output = view.get::<ConsoleOutput>(&instance.instance_id);
    Ok(GetConsoleOutputResult {
        instance_id: Some(instance.instance_id.clone()),
        timestamp: Some(super::shape::time(output.as_ref().map_or(instance.launched_at, |output| output.at))),
        output: output.map(|output| output.output.clone()),
    })
}
