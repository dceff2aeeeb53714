//! What can be wrong with a request's identity, and how each family of services says it.

use crate::error::ServiceError;
use crate::route::Face;
use crate::schema::Protocol;

/// Why a request is not authentic. The last three are for the caller's key lookup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no signature at all.
    #[error("Request is missing Authentication Token")]
    Missing,
    /// The signature's parts are not all there or not well-formed.
    #[error("{0}")]
    Incomplete(String),
    /// The signature is well-formed but cannot be right, such as one that leaves out the host.
    #[error("{0}")]
    Invalid(String),
    /// The signature is another one.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// The body is not the one that was signed.
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    BodyMismatch,
    /// The clocks are too far apart, or a presigned request is too old.
    #[error("{0}")]
    Time(String),
    /// A form of signing that we do not serve.
    #[error("{0}")]
    Unsupported(String),
    /// No such access key.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The session token does not belong to the key.
    #[error("The security token included in the request is invalid.")]
    InvalidToken,
    /// The session is over.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
}

impl Error {
    /// The error as the caller's protocol spells it.
    pub fn service_error(&self, face: &Face) -> ServiceError {
        match face.protocol {
            Protocol::Ec2 => self.ec2(),
            Protocol::Query => self.query(),
            Protocol::RestJson => self.json().status(403),
            Protocol::Json10 | Protocol::Json11 | Protocol::Cbor => self.json(),
        }
    }

    fn json(&self) -> ServiceError {
        let code = match self {
            Error::Missing => {
                return ServiceError::new("MissingAuthenticationTokenException", "Missing Authentication Token")
                    .query("MissingAuthenticationToken");
            }
            Error::Incomplete(_) => "IncompleteSignatureException",
            Error::Invalid(_) | Error::Mismatch | Error::BodyMismatch | Error::Time(_) | Error::Unsupported(_) => {
                "InvalidSignatureException"
            }
            Error::UnknownKey | Error::InvalidToken => "UnrecognizedClientException",
            Error::ExpiredToken => "ExpiredTokenException",
        };
        ServiceError::new(code, self.to_string()).query(self.query_code())
    }

    fn query_code(&self) -> &'static str {
        match self {
            Error::Missing => "MissingAuthenticationToken",
            Error::Incomplete(_) => "IncompleteSignature",
            Error::Invalid(_) | Error::Mismatch | Error::BodyMismatch | Error::Time(_) | Error::Unsupported(_) => {
                "SignatureDoesNotMatch"
            }
            Error::UnknownKey | Error::InvalidToken => "InvalidClientTokenId",
            Error::ExpiredToken => "ExpiredToken",
        }
    }

    fn query(&self) -> ServiceError {
        let status = if matches!(self, Error::Incomplete(_)) { 400 } else { 403 };
        ServiceError::new(self.query_code(), self.to_string()).status(status)
    }

    fn ec2(&self) -> ServiceError {
        let refused = "AWS was not able to validate the provided access credentials";
        match self {
            Error::Missing => ServiceError::new("MissingAuthenticationToken", self.to_string()).status(403),
            Error::Incomplete(text) => ServiceError::new("IncompleteSignature", text),
            Error::Time(_) | Error::ExpiredToken => ServiceError::new("RequestExpired", "Request has expired."),
            Error::Unsupported(text) => ServiceError::new("AuthFailure", text).status(401),
            Error::Invalid(_) | Error::BodyMismatch => {
                ServiceError::new("SignatureDoesNotMatch", self.to_string()).status(403)
            }
            Error::Mismatch | Error::UnknownKey | Error::InvalidToken => {
                ServiceError::new("AuthFailure", refused).status(401)
            }
        }
    }
}
