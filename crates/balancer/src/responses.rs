//! Responses that the load balancer makes itself, in the form of Amazon's: `Server: awselb/2.0` and a small HTML page.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{body::ResponseBody, client::InFlight};

const SERVER: HeaderValue = HeaderValue::from_static("awselb/2.0");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Why the load balancer answers instead of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Malformed, or a header beyond the limits.
    BadRequest,
    /// TRACE.
    MethodNotAllowed,
    /// The client stopped sending its body.
    RequestTimeout,
    /// The request line is longer than 16 KiB.
    UriTooLong,
    /// X-Forwarded-For names more than thirty addresses.
    TooManyForwarders,
    /// The target refused, reset or broke the protocol.
    BadGateway,
    /// No target.
    Unavailable,
    /// The target did not answer in time.
    GatewayTimeout,
}

impl Failure {
    /// The status code and the words on the page.
    fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "400 Bad Request"),
            Self::MethodNotAllowed => (405, "405 Not Allowed"),
            Self::RequestTimeout => (408, "408 Request Time-out"),
            Self::UriTooLong => (414, "414 Request-URI Too Large"),
            Self::TooManyForwarders => (463, "463 "),
            Self::BadGateway => (502, "502 Bad Gateway"),
            Self::Unavailable => (503, "503 Service Temporarily Unavailable"),
            Self::GatewayTimeout => (504, "504 Gateway Time-out"),
        }
    }

    /// The response. Those after which the connection cannot go on say so.
    pub fn response(self, guard: InFlight) -> Response<ResponseBody> {
        let (code, title) = self.status();
        let mut response = Response::new(ResponseBody::whole(page(title), guard));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::SERVER, SERVER);
        response.headers_mut().insert(header::CONTENT_TYPE, HTML);
        if matches!(self, Self::BadRequest | Self::RequestTimeout | Self::UriTooLong) {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        response
    }
}

/// A redirect to `location`.
pub fn redirect(status: StatusCode, location: &str, guard: InFlight) -> Response<ResponseBody> {
    let title = if status == StatusCode::MOVED_PERMANENTLY { "301 Moved Permanently" } else { "302 Found" };
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = Response::new(ResponseBody::whole(page(title), guard));
            *response.status_mut() = status;
            response.headers_mut().insert(header::SERVER, SERVER);
            response.headers_mut().insert(header::CONTENT_TYPE, HTML);
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        // Only a request's own bytes can make it so.
        Err(_) => Failure::BadRequest.response(guard),
    }
}

fn page(title: &str) -> Bytes {
    Bytes::from(format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    ))
}

/// A fixed-response action, ready to be sent.
#[derive(Debug)]
pub struct Fixed {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
}

impl Fixed {
    /// Prepares the response.
    pub fn new(status: u16, content_type: Option<&str>, body: Option<&str>) -> Self {
        let content_type = match content_type {
            Some("text/plain") | None => PLAIN,
            Some(other) => {
                let charset = if other.starts_with("text/") { "; charset=utf-8" } else { "" };
                HeaderValue::from_str(&format!("{other}{charset}")).unwrap_or(PLAIN)
            }
        };
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            content_type,
            body: Bytes::from(body.unwrap_or_default().to_owned()),
        }
    }

    /// The response.
    pub fn response(&self, guard: InFlight) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(self.body.clone(), guard));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::SERVER, SERVER);
        response.headers_mut().insert(header::CONTENT_TYPE, self.content_type.clone());
        response
    }
}
