//! Errors that any service can give.

use iam::Denied;
use store::TransactError;
use wire::{Protocol, Service, ServiceError};

/// A refusal by policy, under the code that the service's protocol has for it.
pub fn access_denied(service: &Service, denied: &Denied) -> ServiceError {
    let (code, status) = match service.protocols.first() {
        Some(Protocol::Ec2) => ("UnauthorizedOperation", 403),
        Some(Protocol::Query) => ("AccessDenied", 403),
        _ => ("AccessDeniedException", 400),
    };
    ServiceError::new(code, denied.to_string()).status(status)
}

/// The error of a transaction that did not happen: the closure's own, or that the state could not be saved.
pub fn commit_failure(error: TransactError<ServiceError>) -> ServiceError {
    match error {
        TransactError::Refused(error) => error,
        TransactError::NotDurable(_) | TransactError::Closed => ServiceError::internal(
            "The request could not be saved. Check the platform's log and its disk, then try again.",
        ),
    }
}
