//! What the front door hands over, and the bounds every request is held to.

use std::collections::HashSet;

use crate::schema::{Kind, Member, Service, Structure};

/// A request with its whole body, borrowed from the HTTP server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a http::Method,
    /// Path as it came, still percent-encoded.
    pub path: &'a str,
    /// Query string without the question mark; empty when there is none.
    pub query: &'a str,
    /// Headers as they came.
    pub headers: &'a http::HeaderMap,
    /// The body as it came.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A header's text; `None` when absent or not text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The content type without its parameters, in lower case.
    pub fn content_type(&self) -> String {
        let text = self.header("content-type").unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// Largest body of an operation that carries no large blob.
/// PutLogEvents needs this much: its 1 MiB of events may grow sixfold when JSON escapes them.
pub const BODY_LIMIT: usize = 8 << 20;

/// Structures in the lists and maps of one message, with plain elements counting for a part of one. Two
/// bytes can cost a kilobyte of memory, so that bounding the body alone would bound nothing.
/// PutLogEvents, the longest list of structures, takes 10,000.
pub const ELEMENT_LIMIT: usize = 20_000;

/// How deep a message may nest.
pub const DEPTH_LIMIT: usize = 64;

/// The largest body this request may have, judged by its headers alone.
///
/// Only operations whose model carries a blob larger than the usual bound get more, by that much.
pub fn body_limit(services: &[&'static Service], headers: &http::HeaderMap) -> usize {
    let target = headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some((prefix, name)) = target.rsplit_once('.') else { return BODY_LIMIT };
    let operation =
        services.iter().filter(|service| service.target_prefix == prefix).find_map(|service| service.operation(name));
    let blob = operation.map_or(0, |operation| largest_blob(operation.input, &mut HashSet::new()));
    // Base64 takes four bytes for three.
    BODY_LIMIT + blob.saturating_mul(4) / 3
}

fn largest_blob(structure: &'static Structure, seen: &mut HashSet<*const Structure>) -> usize {
    if !seen.insert(structure) {
        return 0;
    }
    structure.members.iter().map(|member| blob_in(member, seen)).max().unwrap_or(0)
}

fn blob_in(member: &'static Member, seen: &mut HashSet<*const Structure>) -> usize {
    match &member.shape.kind {
        Kind::Blob => member.shape.max.map_or(0, |max| max.clamp(0.0, 64e6) as usize),
        Kind::Structure(inner) => largest_blob(inner, seen),
        Kind::List { member, .. } => blob_in(member, seen),
        _ => 0,
    }
}
