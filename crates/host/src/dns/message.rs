//! The little of the DNS wire format (RFC 1035) that answering needs: one question in, addresses out. Everything else
//! is passed on as it came.

use std::net::Ipv4Addr;

/// Type A.
pub(crate) const A: u16 = 1;
/// Type PTR.
pub(crate) const PTR: u16 = 12;
const IN: u16 = 1;
const HEADER: usize = 12;
const MAX_NAME: usize = 255;
/// How long an answer may be kept, in seconds: names of load balancers follow their addresses.
const TTL: u32 = 60;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    NoError = 0,
    ServerFailure = 2,
    NameError = 3,
    Refused = 5,
}

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Lower case, without the final dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

/// What an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Address(Ipv4Addr),
    Name(String),
}

/// Reads a standard query with one question of class IN. `None` for everything else.
pub(crate) fn parse(message: &[u8]) -> Option<Question> {
    let header = message.get(..HEADER)?;
    let (is_response, opcode) = (header[2] & 0x80 != 0, header[2] >> 3 & 0x0f);
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if is_response || opcode != 0 || questions != 1 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Longer ones are pointers, which a single question has no use for.
        if length > 63 {
            return None;
        }
        let label = message.get(at..at + length)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        for byte in label {
            // A dot within a label, or anything that is no text, is no name we could know or would pass on.
            if *byte == b'.' || !byte.is_ascii_graphic() {
                return None;
            }
            name.push(char::from(byte.to_ascii_lowercase()));
        }
        if name.len() > MAX_NAME {
            return None;
        }
    }
    let rest = message.get(at..at + 4)?;
    let (kind, class) = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
    (class == IN).then_some(Question { name, kind, end: at + 4 })
}

/// Writes a response to a query that [`parse`] has read.
pub(crate) fn respond(query: &[u8], question: &Question, code: Code, answers: &[Data]) -> Vec<u8> {
    let mut message: Vec<u8> = query.get(..question.end).unwrap_or_default().to_vec();
    if message.len() < HEADER {
        return Vec::new();
    }
    let count = u16::try_from(answers.len()).unwrap_or(u16::MAX);
    // Response, recursion desired as it was, recursion available.
    message[2] = 0x80 | message[2] & 0x01;
    message[3] = 0x80 | code as u8;
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message[8..HEADER].fill(0);
    for answer in answers.iter().take(usize::from(count)) {
        let (kind, data) = match answer {
            Data::Address(address) => (A, address.octets().to_vec()),
            Data::Name(name) => (PTR, encode_name(name)),
        };
        // The answer's name is the question's, which begins after the header.
        message.extend_from_slice(&[0xc0, 0x0c]);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&IN.to_be_bytes());
        message.extend_from_slice(&TTL.to_be_bytes());
        message.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        message.extend_from_slice(&data);
    }
    message
}

/// A refusal of a message that cannot be read, if it has at least an id.
pub(crate) fn refuse(query: &[u8]) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    let mut message = vec![0; HEADER];
    message[..2].copy_from_slice(id);
    message[2] = 0x80;
    message[3] = 0x80 | Code::Refused as u8;
    Some(message)
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty() && label.len() <= 63) {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(encode_name(name));
        message.extend(kind.to_be_bytes());
        message.extend(IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_read_in_lower_case() {
        let question = parse(&query("My-LB.us-east-1.elb.longshore.internal", A)).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("my-lb.us-east-1.elb.longshore.internal", A));
    }

    #[test]
    fn an_answer_repeats_the_question_and_carries_the_addresses() {
        let query = query("a.b", A);
        let question = parse(&query).unwrap();
        let answer = respond(&query, &question, Code::NoError, &[Data::Address(Ipv4Addr::new(10, 0, 0, 5))]);
        assert_eq!(&answer[..2], &[0x12, 0x34]);
        assert_eq!(&answer[2..4], &[0x81, 0x80]);
        assert_eq!(&answer[4..8], &[0, 1, 0, 1]);
        assert_eq!(&answer[12..query.len()], &query[12..]);
        assert_eq!(answer[answer.len() - 4..], [10, 0, 0, 5]);
    }

    #[test]
    fn what_is_no_single_question_is_not_read() {
        let good = query("a.b", A);
        for (at, value) in [(2, 0x81), (2, 0x29), (5, 2), (12, 0xc0), (12, 64)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad), None, "byte {at} = {value}");
        }
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(question) = parse(&bytes) {
                let answer = respond(&bytes, &question, Code::NameError, &[]);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
            }
            let _ = refuse(&bytes);
        }
    }
}
