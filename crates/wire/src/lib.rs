//! The AWS protocols, as data and functions: what every Amazon service has in common on the wire.
//!
//! A service is described by a static table ([`schema::Service`]) which `cargo xtask codegen` writes
//! into the `api` crate from Amazon's own models. The five codecs (awsJson, awsQuery, ec2Query,
//! restJson, rpc-v2-CBOR) are written once here and walk any generated structure through
//! [`value::Reflect`], guided by that table. The same table drives model validation.
//!
//! The way of a request: [`sigv4`] says who signed it, [`route()`] which operation it means, the
//! generated `dispatch` decodes it and calls the handler, and [`encode`] or [`encode_error`] writes
//! the answer. [`exchange`] is the client's side of the same.
//!
//! This crate knows no service, does no I/O and never reads a clock: time is an argument.

mod codec;
mod dispatch;
mod envelope;
pub mod error;
pub mod exchange;
pub mod fuzz;
mod message;
pub mod page;
mod request;
mod route;
pub mod schema;
pub mod sigv4;
pub mod timestamp;
mod validate;
pub mod value;

pub use codec::form::percent_encode;
pub use dispatch::{Output, Reply, serve, unknown_reply};
pub use envelope::encode_error;
pub use error::{Fault, ServiceError};
pub use message::{decode, encode, read};
pub use request::{BODY_LIMIT, DEPTH_LIMIT, ELEMENT_LIMIT, Request, body_limit};
pub use route::{Face, Route, face, route};
pub use schema::{Operation, Protocol, Service};
pub use timestamp::Timestamp;
pub use value::{Document, Mapping, Reflect, Sequence, Slot, Value, View};

use std::future::{Ready, ready};

/// The reply of every generated default method: the operation exists at Amazon but is not served here.
///
/// The input is dropped unread, so nothing is accepted and ignored.
pub fn unserved<O>(operation: &'static Operation) -> Ready<Result<O, ServiceError>> {
    ready(Err(ServiceError::unserved(operation)))
}
