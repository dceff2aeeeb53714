//! The error every handler returns: a code, a text and the fields a service adds.
//!
//! How it is written depends on the protocol; see [`crate::encode_error`]. Texts are for callers: what
//! went wrong inside the platform belongs in the log, not here.

use crate::schema::{ErrorShape, Operation};

/// Who is to blame, which clients use to decide whether to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request.
    Client,
    /// The platform.
    Server,
}

/// An error as a caller sees it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", .0.code, .0.message)]
pub struct ServiceError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: String,
    query_code: Option<&'static str>,
    message: String,
    message_member: &'static str,
    status: u16,
    fault: Fault,
    fields: Vec<(String, serde_json::Value)>,
}

impl ServiceError {
    /// A client error with HTTP status 400.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        ServiceError(Box::new(Inner {
            code: code.into(),
            query_code: None,
            message: message.into(),
            message_member: "message",
            status: 400,
            fault: Fault::Client,
            fields: Vec::new(),
        }))
    }

    /// An error the model names; generated constructors call this.
    pub fn modelled(shape: &'static ErrorShape, message: impl Into<String>) -> Self {
        let mut error = ServiceError::new(shape.name, message);
        error.0.query_code = Some(shape.code);
        error.0.message_member = shape.message;
        error.0.status = shape.status;
        if let Some(member) = shape.code_member {
            error.0.fields.push((member.to_owned(), shape.name.into()));
        }
        if shape.server_fault {
            error.0.fault = Fault::Server;
        }
        error
    }

    /// An internal failure, HTTP 500. The text must not tell what happened inside.
    pub fn internal(message: impl Into<String>) -> Self {
        ServiceError::new("InternalFailure", message).status(500)
    }

    /// The operation exists at Amazon but is not served yet.
    pub fn unserved(operation: &'static Operation) -> Self {
        let text =
            format!("The operation {} of {} is not served by Longshore yet.", operation.name, operation.service.name);
        ServiceError::new("UnsupportedOperation", text).unsupported()
    }

    /// The same error with HTTP status 501, still blaming the request: a retry would get the same answer.
    pub(crate) fn unsupported(mut self) -> Self {
        self.0.status = 501;
        self.0.fault = Fault::Client;
        self
    }

    /// The same error with another code for the clients of the query protocols.
    pub fn query(mut self, code: &'static str) -> Self {
        self.0.query_code = Some(code);
        self
    }

    /// The same error with this HTTP status; 500 and more blame the server.
    pub fn status(mut self, status: u16) -> Self {
        self.0.status = status;
        self.0.fault = if status >= 500 { Fault::Server } else { Fault::Client };
        self
    }

    /// The same error with one more modelled field, such as EFS's `FileSystemId`.
    pub fn field(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.0.fields.push((name.into(), value.into()));
        self
    }

    /// The code as JSON and CBOR clients see it.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The code as clients of the query protocols see it.
    pub fn query_code(&self) -> &str {
        self.0.query_code.unwrap_or(&self.0.code)
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The name of the member that carries the text.
    pub fn message_member(&self) -> &'static str {
        self.0.message_member
    }

    /// The HTTP status.
    pub fn http_status(&self) -> u16 {
        self.0.status
    }

    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    /// The modelled fields besides the text.
    pub fn fields(&self) -> &[(String, serde_json::Value)] {
        &self.0.fields
    }

    /// Whether this is the given modelled error.
    pub fn is(&self, shape: &ErrorShape) -> bool {
        self.0.code == shape.name
    }
}
