//! From a routed request to a handler's result. The generated `dispatch` functions call [`serve`].

use std::future::ready;
use std::pin::Pin;

use crate::error::ServiceError;
use crate::message::decode;
use crate::request::Request;
use crate::route::Route;
use crate::value::Reflect;

/// What an operation returned, of whatever type.
pub type Output = Box<dyn Reflect>;

/// A handler at work.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Output, ServiceError>> + Send + 'a>>;

/// Decodes and validates the input, then calls the handler. The reply borrows nothing of the request.
pub fn serve<'a, I, O, F>(route: &Route, request: &Request<'_>, handler: impl FnOnce(I) -> F) -> Reply<'a>
where
    I: Reflect + Default,
    O: Reflect,
    F: Future<Output = Result<O, ServiceError>> + Send + 'a,
{
    if route.operation.event_stream {
        return Box::pin(ready(Err(ServiceError::unserved(route.operation))));
    }
    let mut input = I::default();
    if let Err(error) = decode(route, request, &mut input) {
        return Box::pin(ready(Err(error)));
    }
    let reply = handler(input);
    Box::pin(async move { reply.await.map(|output| Box::new(output) as Output) })
}

/// The reply to a route that leads to another service: a mistake of the caller of `dispatch`.
pub fn unknown_reply<'a>(route: &Route) -> Reply<'a> {
    Box::pin(ready(Err(ServiceError::unserved(route.operation))))
}
