//! Logging container engines in: tokens, and the address they log in to.

use api::ecr::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::Scope;

use super::{Answer, registry_scope};
use crate::{Call, Platform};

/// The host name and port of a registry, as container engines on this host reach it.
pub(super) fn registry_host(platform: &Platform, scope: &Scope) -> String {
    format!("{}.dkr.ecr.{}.localhost:{}", scope.account, scope.region, platform.options.listen.port())
}

/// The address of a registry. Loopback is plain HTTP, which engines accept for names that mean loopback.
pub(super) fn registry_endpoint(platform: &Platform, scope: &Scope) -> String {
    let scheme = if platform.options.listen.ip().is_loopback() { "http" } else { "https" };
    format!("{scheme}://{}", registry_host(platform, scope))
}

pub(super) fn token(call: &Call, input: GetAuthorizationTokenRequest) -> Answer<GetAuthorizationTokenResponse> {
    let auth = call.authorise::<&str>(&[])?;
    let registries = input.registry_ids.filter(|ids| !ids.is_empty());
    let registries = registries.map_or_else(|| vec![None], |ids| ids.into_iter().map(Some).collect());
    let platform = auth.platform();
    let data = registries.into_iter().map(|registry_id| {
        let scope = registry_scope(call, registry_id)?;
        let token = platform.authority.issue_registry_token(&call.principal, &scope.account, auth.now());
        let (token, expires) = token.ok_or_else(|| error::server_exception("The system has no randomness to give."))?;
        Ok(AuthorizationData {
            authorization_token: Some(STANDARD.encode(format!("AWS:{token}"))),
            expires_at: Some(wire::Timestamp(expires.millis())),
            proxy_endpoint: Some(registry_endpoint(platform, &scope)),
        })
    });
    Ok(GetAuthorizationTokenResponse { authorization_data: Some(data.collect::<Answer<_>>()?) })
}

pub(super) fn describe_registry(call: &Call) -> Answer<DescribeRegistryResponse> {
    call.authorise::<&str>(&[])?;
    Ok(DescribeRegistryResponse {
        registry_id: Some(call.scope.account.to_string()),
        replication_configuration: Some(ReplicationConfiguration { rules: Some(Vec::new()) }),
    })
}
