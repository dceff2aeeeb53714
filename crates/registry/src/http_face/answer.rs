//! Responses: the good ones' headers, the bad ones' codes. The codes are the specification's, the texts Amazon's.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};

use super::ResponseBody;
use crate::RegistryError;

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// No credentials, or none of ours.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    /// Credentials that are not enough.
    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "The operation is unsupported.")
    }

    pub(super) fn catalog() -> Self {
        let text = "The operation is unsupported: use the ECR API's DescribeRepositories to list repositories.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text)
    }

    pub(super) fn path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "There is nothing at this path of the registry.")
    }

    pub(super) fn name(name: &str) -> Self {
        let name: String = name.chars().take(256).collect();
        let pattern = domain::repositories::NAME_PATTERN;
        let text = format!(
            "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression \
             '{pattern}'': '{name}'"
        );
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", text)
    }

    pub(super) fn digest(digest: &str) -> Self {
        let digest: String = digest.chars().take(160).collect();
        let text = format!("'{digest}' is not a sha256 digest: no other algorithm is supported");
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text)
    }

    pub(super) fn upload(id: &str) -> Self {
        RegistryError::UploadNotFound(id.chars().take(64).collect()).into()
    }

    /// The same with a header.
    pub(super) fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn into_response(self, realm: &str) -> Response<ResponseBody> {
        if self.status.is_server_error() {
            tracing::error!(code = self.code, message = self.message, "a registry request failed");
        }
        let document = serde_json::json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut response = json(self.status, "application/json; charset=utf-8", document.to_string().into());
        for (name, value) in self.headers {
            set(&mut response, name, &value);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = format!("Basic realm=\"{realm}\",service=\"ecr.amazonaws.com\"");
            set(&mut response, header::WWW_AUTHENTICATE, &challenge);
        }
        response
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let (status, code) = match &error {
            E::RepositoryNotFound { .. } => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            E::ImageNotFound => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            E::LayerNotFound { .. } => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            E::LayerInUse { .. } | E::ReferencedByIndex { .. } => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            E::LayersNotFound { .. } | E::ReferencedImagesNotFound { .. } => {
                (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN")
            }
            E::TagImmutable { .. } | E::TagInvalid(_) => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            E::Manifest(crate::ManifestError::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            E::Manifest(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            E::UploadNotFound(_) => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            E::DigestInvalid(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            E::RangeInvalid { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            E::SizeInvalid(_) => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            E::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            E::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            E::Body(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            E::Storage(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN")
            }
            E::Storage(_) | E::NotSaved => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A response with a JSON document of some type.
pub(super) fn json(status: StatusCode, content_type: &str, document: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(Full::new(document).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, content_type);
    response
}

/// Sets a header. What cannot be a header's value (a control character) is left out.
pub(super) fn set(response: &mut Response<ResponseBody>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// `Docker-Content-Digest`.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// `Docker-Upload-UUID`.
pub(super) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// `OCI-Subject`.
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// `OCI-Filters-Applied`.
pub(super) const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
