//! `resourceRequirements`: the GPUs of a container, of a task definition's and of an override.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ResourceRequirement.html>

use api::ecs::ResourceRequirement;
use wire::ServiceError;

use crate::ecs::common::{client, unsupported};

/// Amazon's words where Fargate is asked for GPUs.
pub(in crate::ecs) const NOT_ON_FARGATE: &str =
    "Tasks using the Fargate launch type do not support GPU resource requirements.";

const GPU: &str = "GPU";

/// How many GPUs a container asks for, if it says. All other kinds of resources, and GPUs that are shared or of no
/// certain number, are refused by name.
pub(in crate::ecs) fn read(
    given: Option<Vec<ResourceRequirement>>,
    field: &str,
    container: &str,
) -> Result<Option<u32>, ServiceError> {
    let mut gpus = None;
    for ResourceRequirement { value, r#type, sharing_strategy } in given.unwrap_or_default() {
        let kind = r#type.unwrap_or_default();
        if kind != GPU {
            return Err(unsupported(&format!("{field} of type {kind}")));
        }
        if sharing_strategy.is_some() {
            return Err(unsupported(&format!("{field}.sharingStrategy")));
        }
        let value = value.unwrap_or_default();
        if value == "ALL" {
            return Err(unsupported(&format!("{field} of type {GPU} with value {value}")));
        }
        let number = value.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| {
            client(format!("Invalid value '{value:.64}' for resource requirement {GPU} of container {container}: it must be a positive integer."))
        })?;
        if gpus.replace(number).is_some() {
            return Err(client(format!("Container {container} has more than one resource requirement of type {GPU}.")));
        }
    }
    Ok(gpus)
}

/// As responses have it.
pub(in crate::ecs) fn shape(gpus: u32) -> Vec<ResourceRequirement> {
    vec![ResourceRequirement { value: Some(gpus.to_string()), r#type: Some(GPU.to_owned()), sharing_strategy: None }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(kind: &str, value: &str) -> Result<Option<u32>, String> {
        let one = ResourceRequirement { value: Some(value.into()), r#type: Some(kind.into()), sharing_strategy: None };
        read(Some(vec![one]), "field", "app").map_err(|error| error.message().to_owned())
    }

    #[test]
    fn gpus_are_a_positive_number_and_all_else_is_refused_by_name() {
        assert_eq!(read(None, "field", "app").ok(), Some(None));
        assert_eq!(read_one("GPU", "2"), Ok(Some(2)));
        for value in ["0", "-1", "1.5", "", "two", "4294967296"] {
            assert!(read_one("GPU", value).unwrap_err().contains("positive integer"), "{value}");
        }
        assert!(read_one("GPU", "ALL").unwrap_err().ends_with("field of type GPU with value ALL"));
        assert!(
            read_one("InferenceAccelerator", "device_1").unwrap_err().ends_with("field of type InferenceAccelerator")
        );
        assert!(read_one("NeuronDevice", "ALL").unwrap_err().ends_with("field of type NeuronDevice"));
        let twice = [shape(1), shape(1)].concat();
        assert!(read(Some(twice), "field", "app").is_err());
        assert_eq!(read(Some(shape(3)), "field", "app").ok(), Some(Some(3)));
    }
}
