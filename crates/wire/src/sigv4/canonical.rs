//! The canonical request: one spelling for everything that is signed.

use http::HeaderMap;

use crate::codec::form::percent_encode;

/// The body hash of a body that is not signed.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Everything of the canonical request but its last line, the payload hash; `None` when a signed
/// header is absent or a part is not correctly encoded.
pub(super) fn head(
    method: &str,
    path: &str,
    pairs: &[(String, String)],
    headers: &HeaderMap,
    signed: &[String],
    service: &str,
) -> Option<String> {
    let mut out = format!("{method}\n{}\n{}\n", canonical_path(path, service), canonical_query(pairs));
    for name in signed {
        let values: Vec<String> = headers
            .get_all(name.as_str())
            .iter()
            .map(|value| collapse(&String::from_utf8_lossy(value.as_bytes())))
            .collect();
        if values.is_empty() {
            return None;
        }
        out.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    out.push('\n');
    out.push_str(&signed.join(";"));
    Some(out)
}

/// Object storage signs the path as sent; every other service encodes the normalised path once more.
fn canonical_path(path: &str, service: &str) -> String {
    if service == "s3" {
        return if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return "/".to_owned();
    }
    let encoded: Vec<String> = parts.iter().map(|part| percent_encode(part)).collect();
    let trailing = if path.ends_with('/') { "/" } else { "" };
    format!("/{}{trailing}", encoded.join("/"))
}

fn canonical_query(pairs: &[(String, String)]) -> String {
    let mut encoded: Vec<(String, String)> =
        pairs.iter().map(|(name, value)| (percent_encode(name), percent_encode(value))).collect();
    encoded.sort();
    let parts: Vec<String> = encoded.iter().map(|(name, value)| format!("{name}={value}")).collect();
    parts.join("&")
}

/// Trims a header's value and makes one space of several.
fn collapse(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The decoded pairs of a query string; `None` when it is not correctly encoded.
pub(super) fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}
