//! Version 2 of the PROXY protocol: what precedes a connection's bytes where the target group asks for it.
//! <https://www.haproxy.org/download/2.3/doc/proxy-protocol.txt>

use std::net::SocketAddr;

use super::Ends;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header of a client's connection.
pub fn proxied(ends: Ends) -> Vec<u8> {
    let (SocketAddr::V4(client), SocketAddr::V4(node)) = (ends.client, ends.node) else { return local() };
    // Version 2 and PROXY; TCP over IPv4; twelve bytes of addresses.
    let mut header = [SIGNATURE, &[0x21, 0x11, 0, 12]].concat();
    header.extend(client.ip().octets());
    header.extend(node.ip().octets());
    header.extend(client.port().to_be_bytes());
    header.extend(node.port().to_be_bytes());
    header
}

/// The header of a connection of our own, which is what a health check is: version 2 and LOCAL, nothing else.
pub fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}
