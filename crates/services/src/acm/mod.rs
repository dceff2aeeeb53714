//! ACM's face: certificates that were made elsewhere and are imported, for the listeners of load balancers.
//!
//! There is no certificate authority here, so that none can be requested. What is served with a certificate is the
//! `balancer` crate's. <https://docs.aws.amazon.com/acm/latest/APIReference/>

mod certificates;
mod import;
mod list;
mod names;
mod tags;

use api::acm::*;
use domain::certificates::Certificate;
use store::Kinds;
use wire::ServiceError;

use crate::Call;

/// The service.
pub struct Acm;

/// The kinds of resources that this service keeps.
pub fn kinds(kinds: Kinds) -> Kinds {
    kinds.durable::<Certificate>()
}

type Answer<T> = Result<T, ServiceError>;

impl api::acm::Acm for Acm {
    type Call = Call;

    async fn import_certificate(
        &self,
        call: Call,
        input: ImportCertificateRequest,
    ) -> Answer<ImportCertificateResponse> {
        import::import(call, input).await
    }
    async fn request_certificate(
        &self,
        call: Call,
        _input: RequestCertificateRequest,
    ) -> Answer<RequestCertificateResponse> {
        import::request(&call)
    }
    async fn describe_certificate(
        &self,
        call: Call,
        input: DescribeCertificateRequest,
    ) -> Answer<DescribeCertificateResponse> {
        certificates::describe(&call, input)
    }
    async fn get_certificate(&self, call: Call, input: GetCertificateRequest) -> Answer<GetCertificateResponse> {
        certificates::get(&call, input)
    }
    async fn list_certificates(&self, call: Call, input: ListCertificatesRequest) -> Answer<ListCertificatesResponse> {
        list::list(&call, input)
    }
    async fn delete_certificate(&self, call: Call, input: DeleteCertificateRequest) -> Answer<()> {
        certificates::delete(call, input).await
    }
    async fn add_tags_to_certificate(&self, call: Call, input: AddTagsToCertificateRequest) -> Answer<()> {
        tags::add(call, input).await
    }
    async fn remove_tags_from_certificate(&self, call: Call, input: RemoveTagsFromCertificateRequest) -> Answer<()> {
        tags::remove(call, input).await
    }
    async fn list_tags_for_certificate(
        &self,
        call: Call,
        input: ListTagsForCertificateRequest,
    ) -> Answer<ListTagsForCertificateResponse> {
        tags::list(&call, input)
    }
}
