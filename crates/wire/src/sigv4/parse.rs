//! Reading what a request claims about its signer, from the header or the query string.

use std::fmt;

use super::canonical::{self, UNSIGNED};
use super::{ALGORITHM, Error, SKEW_MILLIS};
use crate::Timestamp;
use crate::request::Request;

/// Longest validity of a presigned request, one week.
const LONGEST_EXPIRY: i64 = 604_800;

/// Parts of a signature are short; anything longer is refused before it is looked at.
const PART_LIMIT: usize = 8192;

/// Who a request says signed it, not yet verified.
#[derive(Clone)]
pub struct Claim {
    /// The access key id.
    pub access_key_id: String,
    /// The day of the scope, `YYYYMMDD`.
    pub date: String,
    /// The region of the scope.
    pub region: String,
    /// The service of the scope, such as `elasticloadbalancing`.
    pub service: String,
    /// The names of the signed headers, in order.
    pub signed_headers: Vec<String>,
    /// The session token of temporary credentials.
    pub session_token: Option<String>,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// Seconds for which a presigned request is valid; `None` for the header form.
    pub expires: Option<i64>,
    pub(super) timestamp: String,
    pub(super) signature: Vec<u8>,
    pub(super) canonical: String,
    pub(super) payload: Option<String>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token and the signature are credentials while they last.
        f.debug_struct("Claim")
            .field("access_key_id", &self.access_key_id)
            .field("region", &self.region)
            .field("service", &self.service)
            .field("signed_at", &self.signed_at)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Claim {
    /// Refuses requests signed too long ago, or in the future.
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Error> {
        let signed = &self.timestamp;
        let current = now.to_amz_date();
        let latest = Timestamp(now.0.saturating_add(SKEW_MILLIS));
        if self.signed_at > latest {
            let latest = latest.to_amz_date();
            let text = format!("Signature not yet current: {signed} is still later than {latest} ({current} + 5 min.)");
            return Err(Error::Time(text));
        }
        match self.expires {
            Some(seconds) => {
                let end = Timestamp(self.signed_at.0.saturating_add(seconds * 1000));
                if now > end {
                    let text = format!("Signature expired: {signed} + {seconds} sec. is now earlier than {current}");
                    return Err(Error::Time(text));
                }
            }
            None => {
                let earliest = Timestamp(now.0.saturating_sub(SKEW_MILLIS));
                if self.signed_at < earliest {
                    let earliest = earliest.to_amz_date();
                    let text =
                        format!("Signature expired: {signed} is now earlier than {earliest} ({current} - 5 min.)");
                    return Err(Error::Time(text));
                }
            }
        }
        Ok(())
    }
}

/// What a signature is made of, wherever it came from.
struct Parts {
    credential: String,
    signed_headers: String,
    signature: String,
    timestamp: String,
    session_token: Option<String>,
    expires: Option<i64>,
}

/// Reads the claim of a request. Nothing is believed yet.
///
/// # Errors
/// [`Error::Missing`] without a signature, [`Error::Incomplete`] and [`Error::Invalid`] with a broken
/// one, [`Error::Unsupported`] for other ways to sign.
pub fn parse(request: &Request<'_>) -> Result<Claim, Error> {
    let pairs = canonical::pairs(request.query)
        .ok_or_else(|| Error::Incomplete("The query string is not correctly encoded.".to_owned()))?;
    let presigned = pairs.iter().any(|(name, _)| name == "X-Amz-Algorithm" || name == "X-Amz-Signature");
    let in_header = request.headers.contains_key("authorization");
    let (parts, pairs) = match (in_header, presigned) {
        (true, true) => {
            let text =
                "Only one of the Authorization header and the X-Amz-Algorithm query parameter may sign a request.";
            return Err(Error::Incomplete(text.to_owned()));
        }
        (true, false) => (from_header(request)?, pairs),
        (false, true) => {
            let parts = from_query(&pairs)?;
            (parts, pairs.into_iter().filter(|(name, _)| name != "X-Amz-Signature").collect())
        }
        (false, false) => return Err(Error::Missing),
    };
    claim(request, parts, &pairs)
}

fn claim(request: &Request<'_>, parts: Parts, pairs: &[(String, String)]) -> Result<Claim, Error> {
    let elements: Vec<&str> = parts.credential.split('/').collect();
    let [access_key_id, date, region, service, "aws4_request"] = elements.as_slice() else {
        return Err(Error::Incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
            clip(&parts.credential)
        )));
    };
    let signed_at = Timestamp::parse_amz_date(&parts.timestamp).ok_or_else(|| {
        Error::Incomplete(format!("Date must be in ISO-8601 'basic format'. Got '{}'.", clip(&parts.timestamp)))
    })?;
    let day = parts.timestamp.get(..8).unwrap_or_default();
    if day != *date {
        return Err(Error::Invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{day}', from '{}'.",
            clip(date),
            parts.timestamp
        )));
    }
    let signed_headers: Vec<String> = parts.signed_headers.split(';').map(str::to_ascii_lowercase).collect();
    if !signed_headers.iter().any(|name| name == "host") {
        let text = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.";
        return Err(Error::Invalid(text.to_owned()));
    }
    let signature = hex::decode(&parts.signature).unwrap_or_default();
    if signature.len() != 32 {
        return Err(Error::Mismatch);
    }
    let canonical =
        canonical::head(request.method.as_str(), request.path, pairs, request.headers, &signed_headers, service)
            .ok_or_else(|| Error::Invalid("A signed header is missing from the request.".to_owned()))?;
    Ok(Claim {
        access_key_id: (*access_key_id).to_owned(),
        date: (*date).to_owned(),
        region: (*region).to_owned(),
        service: (*service).to_owned(),
        payload: payload(request, parts.expires.is_some())?,
        signed_headers,
        session_token: parts.session_token,
        signed_at,
        expires: parts.expires,
        timestamp: parts.timestamp,
        signature,
        canonical,
    })
}

/// The body hash the request names; `None` leaves it to the body's own.
fn payload(request: &Request<'_>, presigned: bool) -> Result<Option<String>, Error> {
    let Some(text) = request.headers.get("x-amz-content-sha256") else {
        return Ok(
            (presigned && request.query.contains("X-Amz-Content-Sha256=UNSIGNED-PAYLOAD")).then(|| UNSIGNED.to_owned())
        );
    };
    let text = text.to_str().unwrap_or_default();
    if text.starts_with("STREAMING-") {
        return Err(Error::Unsupported(format!(
            "The payload signing {} is not supported by Longshore: x-amz-content-sha256",
            clip(text)
        )));
    }
    if text != UNSIGNED && (text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Error::Invalid(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a valid sha256 value.".to_owned(),
        ));
    }
    Ok(Some(text.to_owned()))
}

fn from_header(request: &Request<'_>) -> Result<Parts, Error> {
    let mut values = request.headers.get_all("authorization").iter();
    let text = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if values.next().is_some() || text.len() > PART_LIMIT {
        return Err(Error::Incomplete("There must be one Authorization header of reasonable length.".to_owned()));
    }
    let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
    if algorithm != ALGORITHM {
        return Err(unsupported(algorithm));
    }
    let part = |wanted: &str| {
        rest.split(',')
            .filter_map(|piece| piece.trim().split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.to_owned())
            .filter(|value| !value.is_empty())
    };
    let found = (part("Credential"), part("SignedHeaders"), part("Signature"), date_header(request));
    match found {
        (Some(credential), Some(signed_headers), Some(signature), Some(timestamp)) => Ok(Parts {
            credential,
            signed_headers,
            signature,
            timestamp,
            session_token: request.header("x-amz-security-token").map(str::to_owned),
            expires: None,
        }),
        (credential, signed_headers, signature, timestamp) => {
            let mut text = String::new();
            for (absent, name) in [
                (credential.is_none(), "Credential"),
                (signature.is_none(), "Signature"),
                (signed_headers.is_none(), "SignedHeaders"),
            ] {
                if absent {
                    text.push_str(&format!("Authorization header requires '{name}' parameter. "));
                }
            }
            if timestamp.is_none() {
                text.push_str("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
            }
            Err(Error::Incomplete(text.trim_end().to_owned()))
        }
    }
}

/// The signing time in the compact form.
fn date_header(request: &Request<'_>) -> Option<String> {
    match request.header("x-amz-date") {
        Some(text) => Some(text.to_owned()),
        None => Timestamp::parse(request.header("date")?).map(Timestamp::to_amz_date),
    }
}

fn from_query(pairs: &[(String, String)]) -> Result<Parts, Error> {
    let get = |wanted: &str| {
        let mut found = pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (Some(value), None) if value.len() <= PART_LIMIT => Some(value.clone()),
            _ => None,
        }
    };
    let algorithm = get("X-Amz-Algorithm").unwrap_or_default();
    if algorithm != ALGORITHM {
        return Err(unsupported(&algorithm));
    }
    let need = |name: &str| {
        get(name).ok_or_else(|| Error::Incomplete(format!("AWS query-string parameters must include '{name}'.")))
    };
    let expires = need("X-Amz-Expires")?;
    let expires =
        expires.parse().ok().filter(|seconds| (1..=LONGEST_EXPIRY).contains(seconds)).ok_or_else(|| {
            Error::Incomplete(format!("X-Amz-Expires must be between 1 and {LONGEST_EXPIRY} seconds."))
        })?;
    Ok(Parts {
        credential: need("X-Amz-Credential")?,
        signed_headers: need("X-Amz-SignedHeaders")?,
        signature: need("X-Amz-Signature")?,
        timestamp: need("X-Amz-Date")?,
        session_token: get("X-Amz-Security-Token"),
        expires: Some(expires),
    })
}

fn unsupported(algorithm: &str) -> Error {
    Error::Incomplete(format!("Unsupported AWS 'algorithm': '{}'.", clip(algorithm)))
}

/// What a caller sent, short enough to send back.
fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}
