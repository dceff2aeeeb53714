//! The parameters of a session's URL.

/// Reads `name=value` pairs; a pair that is not correctly encoded is left out.
pub(super) fn parameter(query: &str, wanted: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == wanted).then(|| decode(value)).flatten()
    })
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "clusterArn=a%2Fb&sendCredentials=true&broken=%zz&empty";
        assert_eq!(parameter(query, "clusterArn").as_deref(), Some("a/b"));
        assert_eq!(parameter(query, "sendCredentials").as_deref(), Some("true"));
        assert_eq!(parameter(query, "broken"), None);
        assert_eq!(parameter(query, "empty").as_deref(), Some(""));
        assert_eq!(parameter(query, "absent"), None);
    }
}
