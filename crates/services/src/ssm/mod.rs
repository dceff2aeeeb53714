//! SSM's face, as far as tools ask it for images: the public parameters that name the ECS-optimised image.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/retrieve-ecs-optimized_AMI.html>
//!
//! Parameters of one's own are not kept: those operations answer that they are not served.

use std::collections::BTreeMap;

use api::ssm::*;
use domain::{Region, instances::ARCHITECTURE};
use wire::{ServiceError, Timestamp};

use crate::{Call, ec2::images};

/// The service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ssm;

/// Where Amazon keeps the parameters of its ECS-optimised images.
const ROOT: &str = "/aws/service/ecs/optimized-ami";
/// Both of Amazon's generations lead to the one image there is.
const GENERATIONS: [&str; 2] = ["amazon-linux-2", "amazon-linux-2023"];
/// 2026-11-01, when the image was made.
const MODIFIED: Timestamp = Timestamp(1_793_491_200_000);
/// The most that GetParametersByPath gives at once.
const PAGE: i32 = 10;

/// All public parameters of a region, by their names.
fn parameters(region: &Region) -> BTreeMap<String, String> {
    let image = images::local(region);
    let agent = env!("CARGO_PKG_VERSION");
    let facts = [
        ("ecs_agent_version", agent.to_owned()),
        ("ecs_runtime_version", format!("longshore-{agent}")),
        ("image_id", image.image_id.clone()),
        ("image_name", image.name.clone()),
        ("image_version", images::VERSION.to_owned()),
        ("os", "Amazon Linux 2023".to_owned()),
        ("schema_version", "1".to_owned()),
        ("source_image_name", image.name),
    ];
    let all: serde_json::Map<String, serde_json::Value> = facts
        .iter()
        .map(|(name, value)| {
            let value = if *name == "schema_version" { 1.into() } else { value.as_str().into() };
            ((*name).to_owned(), value)
        })
        .collect();
    let all = serde_json::Value::Object(all).to_string();
    let branch = if ARCHITECTURE == "arm64" { "arm64/" } else { "" };
    let mut parameters = BTreeMap::new();
    for generation in GENERATIONS {
        let recommended = format!("{ROOT}/{generation}/{branch}recommended");
        for (name, value) in &facts {
            parameters.insert(format!("{recommended}/{name}"), value.clone());
        }
        parameters.insert(recommended, all.clone());
    }
    parameters
}

/// The value of a public parameter.
pub(crate) fn public_parameter(region: &Region, name: &str) -> Option<String> {
    parameters(region).remove(name)
}

fn shape(region: &Region, name: &str, value: String, selector: Option<String>) -> Parameter {
    Parameter {
        arn: Some(format!("arn:aws:ssm:{region}::parameter{name}")),
        data_type: Some("text".into()),
        last_modified_date: Some(MODIFIED),
        name: Some(name.to_owned()),
        r#type: Some("String".into()),
        selector,
        value: Some(value),
        version: Some(1),
        ..Parameter::default()
    }
}

/// A parameter by what a request calls it: its name or ARN, perhaps with a version behind a colon.
fn find(region: &Region, asked: &str) -> Result<Parameter, ServiceError> {
    let prefix = format!("arn:aws:ssm:{region}::parameter");
    let name = asked.strip_prefix(&prefix).unwrap_or(asked);
    let (name, selector) = match name.split_once(':') {
        Some((name, selector)) => (name, Some(selector)),
        None => (name, None),
    };
    let value = public_parameter(region, name)
        .ok_or_else(|| error::parameter_not_found(format!("Parameter {asked:.256} not found.")))?;
    if let Some(selector) = selector.filter(|selector| *selector != "1") {
        let text = format!("Systems Manager could not find version {selector:.64} of {name}.");
        return Err(error::parameter_version_not_found(text));
    }
    Ok(shape(region, name, value, selector.map(|selector| format!(":{selector}"))))
}

/// What a call asks to be allowed: `parameter/name` without the name's leading slash.
fn arn(call: &Call, name: &str) -> String {
    call.arn("ssm", &format!("parameter/{}", name.trim_start_matches('/'))).to_string()
}

impl api::ssm::Ssm for Ssm {
    type Call = Call;

    async fn get_parameter(&self, call: Call, input: GetParameterRequest) -> Result<GetParameterResult, ServiceError> {
        // Nothing here is encrypted, so that WithDecryption makes no difference, as with any String at Amazon.
        let name = input.name.unwrap_or_default();
        let auth = call.authorise(&[arn(&call, &name)])?;
        Ok(GetParameterResult { parameter: Some(find(&auth.scope.region, &name)?) })
    }

    async fn get_parameters(
        &self,
        call: Call,
        input: GetParametersRequest,
    ) -> Result<GetParametersResult, ServiceError> {
        let names = input.names.unwrap_or_default();
        let arns: Vec<String> = names.iter().map(|name| arn(&call, name)).collect();
        let auth = call.authorise(&arns)?;
        let (mut found, mut invalid) = (Vec::new(), Vec::new());
        for name in names {
            match find(&auth.scope.region, &name) {
                Ok(parameter) => found.push(parameter),
                Err(_) => invalid.push(name),
            }
        }
        Ok(GetParametersResult { parameters: Some(found), invalid_parameters: Some(invalid) })
    }

    async fn get_parameters_by_path(
        &self,
        call: Call,
        input: GetParametersByPathRequest,
    ) -> Result<GetParametersByPathResult, ServiceError> {
        let path = input.path.unwrap_or_default();
        let auth = call.authorise(&[arn(&call, &path)])?;
        if input.parameter_filters.is_some_and(|filters| !filters.is_empty()) {
            return Err(error::invalid_filter_key("The parameter ParameterFilters is not supported by Longshore."));
        }
        if !path.starts_with('/') {
            let text = "The parameter path must begin with a slash /.";
            return Err(ServiceError::new("ValidationException", text));
        }
        let after = match input.next_token {
            Some(token) => wire::page::position(call.operation, &token)
                .ok_or_else(|| error::invalid_next_token("The specified token is not valid."))?,
            None => String::new(),
        };
        let limit = usize::try_from(input.max_results.unwrap_or(PAGE).clamp(1, PAGE)).unwrap_or(1);
        let folder = format!("{}/", path.trim_end_matches('/'));
        let recursive = input.recursive == Some(true);
        let mut found: Vec<(String, String)> = parameters(&auth.scope.region)
            .into_iter()
            .filter(|(name, _)| {
                *name > after && name.strip_prefix(&folder).is_some_and(|rest| recursive || !rest.contains('/'))
            })
            .take(limit + 1)
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(name, _)| wire::page::token(call.operation, name));
        let region = &auth.scope.region;
        let shown = found.into_iter().map(|(name, value)| shape(region, &name, value, None));
        Ok(GetParametersByPathResult { parameters: Some(shown.collect()), next_token: next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommended_image_is_named_in_amazons_form() {
        let region: Region = "us-east-1".parse().unwrap();
        let branch = if ARCHITECTURE == "arm64" { "arm64/" } else { "" };
        let name = format!("{ROOT}/amazon-linux-2023/{branch}recommended");
        let whole = find(&region, &name).unwrap_or_else(|_| panic!("not found"));
        let whole: serde_json::Value = serde_json::from_str(whole.value.as_deref().unwrap()).unwrap();
        assert_eq!(whole["os"], "Amazon Linux 2023");
        assert_eq!(whole["schema_version"], 1);
        let image_id = images::local(&region).image_id;
        assert_eq!(whole["image_id"], image_id);
        assert_eq!(public_parameter(&region, &format!("{name}/image_id")), Some(image_id));
        assert!(find(&region, &format!("{name}:1")).is_ok());
        let code = |asked: &str| find(&region, asked).map_err(|error| error.code().to_owned()).err();
        assert_eq!(code(&format!("{name}:2")).as_deref(), Some("ParameterVersionNotFound"));
        assert_eq!(code("/mine").as_deref(), Some("ParameterNotFound"));
    }
}
