//! `{"type": "<ShapeName>", "message": {…}}`: the envelope of every ACS and TCS message, in both directions.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Why a text frame is no message of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The text is JSON, but not an object with a string `type`.
    #[error("not an envelope with a type")]
    NoEnvelope,
    /// The message lacks what its type requires, or has it in another JSON type.
    #[error("malformed {kind}: {reason}")]
    Malformed {
        /// The envelope's type.
        kind: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A TCS frame without the blank line that ends its headers.
    #[error("telemetry frame without a header block")]
    NoHeaderBlock,
}

/// Takes an envelope apart into its type and its message (an empty object where it has none).
pub fn split_envelope(text: &str) -> Result<(String, Value), ProtocolError> {
    let Value::Object(mut envelope) = serde_json::from_str::<Value>(text)? else {
        return Err(ProtocolError::NoEnvelope);
    };
    let Some(Value::String(kind)) = envelope.remove("type") else {
        return Err(ProtocolError::NoEnvelope);
    };
    let message = match envelope.remove("message") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::Object(message)) => Value::Object(message),
        // A list would be read as the members in their order.
        Some(_) => return Err(ProtocolError::Malformed { kind, reason: "not an object".to_owned() }),
    };
    Ok((kind, message))
}

/// Reads the message of an envelope whose type is `kind`.
pub(super) fn read<T: DeserializeOwned>(kind: &str, message: Value) -> Result<T, ProtocolError> {
    serde_json::from_value(message)
        .map_err(|error| ProtocolError::Malformed { kind: kind.to_owned(), reason: error.to_string() })
}

/// Writes an envelope. The protocol's types have string keys and finite numbers only, so this cannot fail for them.
pub(super) fn write<T: Serialize>(kind: &str, message: &T) -> String {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        message: &'a T,
    }
    serde_json::to_string(&Envelope { kind, message }).unwrap_or_default()
}

/// Makes an enum of message types with `kind`, `encode` and `decode`. A type the enum does not name decodes to `None`:
/// the protocol says to log and drop it and to keep the connection.
macro_rules! messages {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident($message:ty) = $kind:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant($message),)*
        }

        impl $name {
            /// The envelope's type.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind,)* }
            }

            /// The text frame that carries this message.
            pub fn encode(&self) -> String {
                match self { $(Self::$variant(message) => crate::agent_protocol::envelope::write($kind, message),)* }
            }

            /// Reads a text frame; `None` for a type this enum does not know.
            pub fn decode(text: &str) -> Result<Option<Self>, crate::agent_protocol::ProtocolError> {
                let (kind, message) = crate::agent_protocol::split_envelope(text)?;
                Ok(match kind.as_str() {
                    $($kind => Some(Self::$variant(crate::agent_protocol::envelope::read($kind, message)?)),)*
                    _ => None,
                })
            }
        }
    };
}
pub(super) use messages;
