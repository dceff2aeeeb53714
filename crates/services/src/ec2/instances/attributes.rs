//! DescribeInstanceAttribute and ModifyInstanceAttribute.

use api::ec2::{
    AttributeBooleanValue, AttributeValue, DescribeInstanceAttributeRequest, EnclaveOptions, InstanceAttribute,
    ModifyInstanceAttributeRequest,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    instances::{Instance, InstanceState, ShutdownBehavior, Volume, instance_type},
    network::{NetworkInterface, Subnet},
};
use store::Transaction;
use wire::ServiceError;

use super::{one, power::GONE, request, run::unknown_type, shape, spot};
use crate::{
    Call,
    ec2::{
        allocation::check_groups,
        common::{begin, find, invalid_value, refuse, required, unsupported},
    },
};

fn text(value: impl Into<String>) -> Option<AttributeValue> {
    Some(AttributeValue { value: Some(value.into()) })
}

fn flag(value: bool) -> Option<AttributeBooleanValue> {
    Some(AttributeBooleanValue { value: Some(value) })
}

/// DescribeInstanceAttribute: one attribute.
pub(in crate::ec2) async fn describe(
    call: Call,
    input: DescribeInstanceAttributeRequest,
) -> Result<InstanceAttribute, ServiceError> {
    let id = required(input.instance_id, "InstanceId")?;
    let auth = begin(&call, &[format!("instance/{id}")], input.dry_run)?;
    let view = auth.snapshot();
    let instance = one(&call, &view, &id)?;
    let mut shown = InstanceAttribute { instance_id: Some(id), ..InstanceAttribute::default() };
    let interface = view.get::<NetworkInterface>(&instance.scope.key(&instance.interface_id));
    match required(input.attribute, "Attribute")?.as_str() {
        "instanceType" => shown.instance_type = text(&instance.instance_type),
        // Absent values are shown as empty elements.
        "kernel" => shown.kernel_id = Some(AttributeValue::default()),
        "ramdisk" => shown.ramdisk_id = Some(AttributeValue::default()),
        "sriovNetSupport" => shown.sriov_net_support = text("simple"),
        "userData" => shown.user_data = Some(AttributeValue { value: instance.user_data.clone() }),
        "disableApiTermination" => shown.disable_api_termination = flag(instance.disable_api_termination),
        "disableApiStop" => shown.disable_api_stop = flag(instance.disable_api_stop),
        "instanceInitiatedShutdownBehavior" => {
            shown.instance_initiated_shutdown_behavior = text(match instance.shutdown_behavior {
                ShutdownBehavior::Stop => "stop",
                ShutdownBehavior::Terminate => "terminate",
            });
        }
        "rootDeviceName" => shown.root_device_name = text(&instance.root_device_name),
        "blockDeviceMapping" => shown.block_device_mappings = Some(shape::block_devices(&view, &instance)),
        "productCodes" => shown.product_codes = Some(Vec::new()),
        "sourceDestCheck" => {
            shown.source_dest_check = flag(interface.is_none_or(|interface| interface.source_dest_check));
        }
        "groupSet" => shown.groups = Some(shape::groups(&view, &instance)),
        "ebsOptimized" => shown.ebs_optimized = flag(instance.ebs_optimized),
        "enaSupport" => shown.ena_support = flag(true),
        "enclaveOptions" => shown.enclave_options = Some(EnclaveOptions { enabled: Some(false) }),
        other => return Err(invalid_value(other, "attribute", "Unknown attribute.")),
    }
    Ok(shown)
}

fn must_be_stopped(instance: &Instance) -> Result<(), ServiceError> {
    if instance.state() == InstanceState::Stopped {
        return Ok(());
    }
    let text = format!("The instance '{}' is not in the 'stopped' state.", instance.instance_id);
    Err(ServiceError::new("IncorrectInstanceState", text))
}

/// The older form of the request names an attribute and gives its value as text.
fn by_name(input: &mut ModifyInstanceAttributeRequest) -> Result<(), ServiceError> {
    let Some(attribute) = input.attribute.take() else {
        if input.value.is_some() {
            return required(None, "Attribute");
        }
        return Ok(());
    };
    // Named with a structure of its own, as the AWS CLI does for block devices.
    let Some(value) = input.value.take() else { return Ok(()) };
    let boolean = |value: &str| match value {
        "true" => Ok(flag(true)),
        "false" => Ok(flag(false)),
        other => Err(invalid_value(other, "value", "It must be true or false.")),
    };
    match attribute.as_str() {
        "instanceType" => input.instance_type = text(value),
        "userData" => {
            let bytes = STANDARD.decode(&value);
            let bytes = bytes
                .map_err(|_| ServiceError::new("InvalidParameterValue", "Invalid BASE64 encoding of user data."))?;
            input.user_data = Some(api::ec2::SecureBlobAttributeValue { value: Some(bytes) });
        }
        "disableApiTermination" => input.disable_api_termination = boolean(&value)?,
        "disableApiStop" => input.disable_api_stop = boolean(&value)?,
        "instanceInitiatedShutdownBehavior" => input.instance_initiated_shutdown_behavior = text(value),
        "sourceDestCheck" => input.source_dest_check = boolean(&value)?,
        "ebsOptimized" => input.ebs_optimized = boolean(&value)?,
        other => return Err(unsupported(other)),
    }
    Ok(())
}

/// ModifyInstanceAttribute. Type, user data and EBS optimisation can be changed while the instance is stopped.
pub(in crate::ec2) async fn modify(call: Call, mut input: ModifyInstanceAttributeRequest) -> Result<(), ServiceError> {
    by_name(&mut input)?;
    refuse!(input; kernel, ramdisk, sriov_net_support);
    if input.ena_support.as_ref().is_some_and(|value| value.value == Some(false)) {
        return Err(unsupported("ena_support"));
    }
    if input.enclave_options.as_ref().is_some_and(|options| options.enabled == Some(true)) {
        return Err(unsupported("enclave_options"));
    }
    let id = required(input.instance_id.clone(), "InstanceId")?;
    let auth = begin(&call, &[format!("instance/{id}")], input.dry_run)?;
    auth.transact(|tx| apply(&call, tx, &id, input)).await
}

fn apply(
    call: &Call,
    tx: &mut Transaction,
    id: &str,
    input: ModifyInstanceAttributeRequest,
) -> Result<(), ServiceError> {
    let known = one(call, tx, id)?;
    if GONE.contains(&known.state()) {
        let text = format!("The instance '{id}' is not in a state in which it can be modified.");
        return Err(ServiceError::new("IncorrectInstanceState", text));
    }
    let mut instance = Instance::clone(&known);
    if let Some(name) = input.instance_type.and_then(|value| value.value) {
        must_be_stopped(&instance)?;
        instance.instance_type = instance_type(&name).ok_or_else(|| unknown_type(&name))?.name;
    }
    if let Some(data) = input.user_data {
        must_be_stopped(&instance)?;
        let encoded = data.value.filter(|data| !data.is_empty()).map(|data| STANDARD.encode(data));
        encoded.iter().try_for_each(|data| request::check_user_data(data))?;
        instance.user_data = encoded;
    }
    if let Some(on) = input.ebs_optimized.and_then(|value| value.value) {
        must_be_stopped(&instance)?;
        instance.ebs_optimized = on;
    }
    if let Some(on) = input.disable_api_termination.and_then(|value| value.value) {
        instance.disable_api_termination = on;
    }
    if let Some(on) = input.disable_api_stop.and_then(|value| value.value) {
        instance.disable_api_stop = on;
    }
    if let Some(word) = input.instance_initiated_shutdown_behavior.and_then(|value| value.value) {
        instance.shutdown_behavior = request::shutdown_behavior(&word)?;
        if instance.spot.is_some() && instance.shutdown_behavior == ShutdownBehavior::Stop {
            return Err(spot::not_stopped(id));
        }
    }
    let interface = instance.scope.key(&instance.interface_id);
    if let Some(on) = input.source_dest_check.and_then(|value| value.value) {
        tx.update::<NetworkInterface>(&interface, |interface| interface.source_dest_check = on);
    }
    if let Some(groups) = input.groups.filter(|groups| !groups.is_empty()) {
        let subnet = find::<Subnet>(call, tx, &instance.subnet_id)?;
        let groups = check_groups(tx, &subnet, groups)?;
        tx.update::<NetworkInterface>(&interface, |interface| interface.security_groups = groups);
    }
    for mapping in input.block_device_mappings.unwrap_or_default() {
        refuse!(mapping; virtual_name, no_device);
        let name = required(mapping.device_name, "DeviceName")?;
        let ebs = mapping.ebs.unwrap_or_default();
        let device = instance.block_devices.iter().find(|device| {
            device.device_name == name && ebs.volume_id.as_ref().is_none_or(|id| *id == device.volume_id)
        });
        let Some(device) = device else {
            let text = format!("No device is currently mapped at {name:.64}");
            return Err(ServiceError::new("InvalidInstanceAttributeValue", text));
        };
        if let Some(goes) = ebs.delete_on_termination {
            tx.update::<Volume>(&instance.scope.key(&device.volume_id), |volume| {
                if let Some(attachment) = &mut volume.attachment {
                    attachment.delete_on_termination = goes;
                }
            });
        }
    }
    if instance != *known {
        tx.put(instance);
    }
    Ok(())
}
