//! IAM's face: roles, their policies, instance profiles, and server certificates.
//!
//! Policies are stored and given back here; what they decide is the `iam` crate's. Users, groups and managed policies
//! of one's own are not served yet.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/>

mod bootstrap;
mod documents;
mod instance_profiles;
mod names;
mod policies;
mod roles;
mod server_certificates;
mod shapes;

use api::iam::*;
use domain::{certificates, identity};
use store::Kinds;
use wire::ServiceError;

pub use bootstrap::ensure_account;

use crate::Call;

/// The service.
pub struct Iam;

/// The kinds of resources that this service stores.
pub fn kinds(kinds: Kinds) -> Kinds {
    kinds
        .durable::<identity::Role>()
        .durable::<identity::InstanceProfile>()
        .durable::<certificates::ServerCertificate>()
}

type Answer<T> = Result<T, ServiceError>;

impl api::iam::Iam for Iam {
    type Call = Call;

    async fn create_role(&self, call: Call, input: CreateRoleRequest) -> Answer<CreateRoleResponse> {
        roles::create(call, input).await
    }
    async fn get_role(&self, call: Call, input: GetRoleRequest) -> Answer<GetRoleResponse> {
        roles::get(&call, input)
    }
    async fn list_roles(&self, call: Call, input: ListRolesRequest) -> Answer<ListRolesResponse> {
        roles::list(&call, input)
    }
    async fn update_role(&self, call: Call, input: UpdateRoleRequest) -> Answer<UpdateRoleResponse> {
        roles::update(call, input).await
    }
    async fn delete_role(&self, call: Call, input: DeleteRoleRequest) -> Answer<()> {
        roles::delete(call, input).await
    }
    async fn update_assume_role_policy(&self, call: Call, input: UpdateAssumeRolePolicyRequest) -> Answer<()> {
        roles::update_trust_policy(call, input).await
    }
    async fn tag_role(&self, call: Call, input: TagRoleRequest) -> Answer<()> {
        roles::tag(call, input).await
    }
    async fn untag_role(&self, call: Call, input: UntagRoleRequest) -> Answer<()> {
        roles::untag(call, input).await
    }
    async fn list_role_tags(&self, call: Call, input: ListRoleTagsRequest) -> Answer<ListRoleTagsResponse> {
        roles::list_tags(&call, input)
    }
    async fn put_role_policy(&self, call: Call, input: PutRolePolicyRequest) -> Answer<()> {
        policies::put(call, input).await
    }
    async fn get_role_policy(&self, call: Call, input: GetRolePolicyRequest) -> Answer<GetRolePolicyResponse> {
        policies::get(&call, input)
    }
    async fn list_role_policies(&self, call: Call, input: ListRolePoliciesRequest) -> Answer<ListRolePoliciesResponse> {
        policies::list(&call, input)
    }
    async fn delete_role_policy(&self, call: Call, input: DeleteRolePolicyRequest) -> Answer<()> {
        policies::delete(call, input).await
    }
    async fn attach_role_policy(&self, call: Call, input: AttachRolePolicyRequest) -> Answer<()> {
        policies::attach(call, input).await
    }
    async fn detach_role_policy(&self, call: Call, input: DetachRolePolicyRequest) -> Answer<()> {
        policies::detach(call, input).await
    }
    async fn list_attached_role_policies(
        &self,
        call: Call,
        input: ListAttachedRolePoliciesRequest,
    ) -> Answer<ListAttachedRolePoliciesResponse> {
        policies::list_attached(&call, input)
    }
    async fn create_instance_profile(
        &self,
        call: Call,
        input: CreateInstanceProfileRequest,
    ) -> Answer<CreateInstanceProfileResponse> {
        instance_profiles::create(call, input).await
    }
    async fn get_instance_profile(
        &self,
        call: Call,
        input: GetInstanceProfileRequest,
    ) -> Answer<GetInstanceProfileResponse> {
        instance_profiles::get(&call, input)
    }
    async fn list_instance_profiles(
        &self,
        call: Call,
        input: ListInstanceProfilesRequest,
    ) -> Answer<ListInstanceProfilesResponse> {
        instance_profiles::list(&call, input)
    }
    async fn list_instance_profiles_for_role(
        &self,
        call: Call,
        input: ListInstanceProfilesForRoleRequest,
    ) -> Answer<ListInstanceProfilesForRoleResponse> {
        instance_profiles::list_for_role(&call, input)
    }
    async fn delete_instance_profile(&self, call: Call, input: DeleteInstanceProfileRequest) -> Answer<()> {
        instance_profiles::delete(call, input).await
    }
    async fn add_role_to_instance_profile(&self, call: Call, input: AddRoleToInstanceProfileRequest) -> Answer<()> {
        instance_profiles::add_role(call, input).await
    }
    async fn remove_role_from_instance_profile(
        &self,
        call: Call,
        input: RemoveRoleFromInstanceProfileRequest,
    ) -> Answer<()> {
        instance_profiles::remove_role(call, input).await
    }

    async fn upload_server_certificate(
        &self,
        call: Call,
        input: UploadServerCertificateRequest,
    ) -> Answer<UploadServerCertificateResponse> {
        server_certificates::upload(call, input).await
    }
    async fn get_server_certificate(
        &self,
        call: Call,
        input: GetServerCertificateRequest,
    ) -> Answer<GetServerCertificateResponse> {
        server_certificates::get(&call, input)
    }
    async fn list_server_certificates(
        &self,
        call: Call,
        input: ListServerCertificatesRequest,
    ) -> Answer<ListServerCertificatesResponse> {
        server_certificates::list(&call, input)
    }
    async fn delete_server_certificate(&self, call: Call, input: DeleteServerCertificateRequest) -> Answer<()> {
        server_certificates::delete(call, input).await
    }
}
