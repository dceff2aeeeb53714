//! A stub resolver for a pull inside a network namespace: the C library's would read the host's configuration, and may ask a local service
//! that sits in another network.
//!
//! It asks for IPv4 addresses (a VPC has no others), over UDP, then over TCP if the answer was cut off.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// For each question to each server.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ATTEMPTS: usize = 2;
/// The identity of a question; the answer must repeat it and come from the server asked, over a socket of its own.
const A: u16 = 1;
const CNAME: u16 = 5;

/// Why a name has no address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// The servers say so.
    NoSuchHost,
    /// No server answered.
    Timeout,
    /// They answered something else.
    Failed(String),
}

/// The addresses of a name.
pub(crate) async fn lookup(name: &str, servers: &[IpAddr]) -> Result<Vec<IpAddr>, LookupError> {
    let mut last = LookupError::Timeout;
    for _ in 0..ATTEMPTS {
        for server in servers {
            match timeout(PATIENCE, ask(name, SocketAddr::new(*server, 53))).await {
                Ok(Ok(Ok(addresses))) => return Ok(addresses),
                Ok(Ok(Err(LookupError::NoSuchHost))) => return Err(LookupError::NoSuchHost),
                Ok(Ok(Err(error))) => last = error,
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => return Err(LookupError::NoSuchHost),
                Ok(Err(error)) => last = LookupError::Failed(error.to_string()),
                Err(_) => {}
            }
        }
    }
    Err(last)
}

async fn ask(name: &str, server: SocketAddr) -> io::Result<Result<Vec<IpAddr>, LookupError>> {
    let id = u16::from_le_bytes(random()?);
    let question = question(id, name).ok_or(io::ErrorKind::InvalidInput)?;
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        match parse(answer.get(..length).unwrap_or_default(), id) {
            Some(Answer::Truncated) => break,
            Some(Answer::Addresses(addresses)) => return Ok(Ok(addresses)),
            Some(Answer::Refused(error)) => return Ok(Err(error)),
            // Not ours; the real one may still come.
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(match parse(&answer, id) {
        Some(Answer::Addresses(addresses)) => Ok(addresses),
        Some(Answer::Refused(error)) => Err(error),
        _ => Err(LookupError::Failed("malformed answer".to_owned())),
    })
}

fn random() -> io::Result<[u8; 2]> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 2];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    Ok(bytes)
}

/// `None` for what is no host name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    let mut bytes = Vec::with_capacity(name.len() + 18);
    bytes.extend_from_slice(&id.to_be_bytes());
    // Recursion desired, one question.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    Some(bytes)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Addresses(Vec<IpAddr>),
    Truncated,
    Refused(LookupError),
}

/// `None` for what is no answer to our question.
fn parse(bytes: &[u8], id: u16) -> Option<Answer> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let flags = word(2)?;
    if word(0)? != id || flags & 0x8000 == 0 {
        return None;
    }
    match flags & 0xf {
        0 => {}
        // A resolver that got no answer itself, as the VPC's for an interface without a way out.
        2 => return Some(Answer::Refused(LookupError::Timeout)),
        3 => return Some(Answer::Refused(LookupError::NoSuchHost)),
        code => return Some(Answer::Refused(LookupError::Failed(format!("server answered with code {code}")))),
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(bytes, at)? + 4;
    }
    let mut addresses = Vec::new();
    let mut aliases = 0;
    for _ in 0..word(6)?.min(200) {
        at = skip_name(bytes, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = bytes.get(at + 10..at + 10 + length)?;
        match (kind, data) {
            // A recursive server puts the addresses of an alias into the same answer, so the names need no following.
            (A, [a, b, c, d]) => addresses.push(IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d))),
            (CNAME, _) => aliases += 1,
            _ => {}
        }
        at += 10 + length;
    }
    Some(match (addresses.is_empty(), aliases) {
        (false, _) => Answer::Addresses(addresses),
        (true, _) => Answer::Refused(LookupError::NoSuchHost),
    })
}

/// Past a name: labels up to a zero, or up to a pointer, which is not followed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..128 {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u16, flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question(id, "example.com").unwrap();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (kind, data) in records {
            bytes.extend_from_slice(&[0xc0, 12]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn answers() {
        let good = answer(7, 0x8180, &[(CNAME, &[1, b'x', 0]), (A, &[10, 0, 0, 1])]);
        assert_eq!(parse(&good, 7), Some(Answer::Addresses(vec![IpAddr::from([10, 0, 0, 1])])));
        assert_eq!(parse(&good, 8), None);
        assert_eq!(parse(&answer(7, 0x8183, &[]), 7), Some(Answer::Refused(LookupError::NoSuchHost)));
        assert_eq!(parse(&answer(7, 0x8380, &[]), 7), Some(Answer::Truncated));
        assert_eq!(parse(&answer(7, 0x8182, &[]), 7), Some(Answer::Refused(LookupError::Timeout)));
        assert!(matches!(parse(&answer(7, 0x8185, &[]), 7), Some(Answer::Refused(LookupError::Failed(_)))));
        for length in 0..good.len() {
            assert!(!matches!(parse(&good[..length], 7), Some(Answer::Addresses(_))), "{length}");
        }
    }

    #[test]
    fn questions() {
        assert!(question(1, "a.example").is_some());
        for bad in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(127)] {
            assert!(question(1, bad).is_none() || bad.len() <= 254, "{bad}");
        }
        assert!(question(1, "a..b").is_none());
    }
}
