//! Connections to a registry: which address, in which time, and what exactly failed. The words are those Amazon's error texts contain.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::EndpointTls;
use super::dns::{self, LookupError};

/// How the names of one pull become connections.
pub(crate) struct Dialer {
    /// `host:port` that is really elsewhere.
    pub fixed: Vec<(String, SocketAddr)>,
    /// Hosts whose certificates are checked in their own way.
    pub trusted: Vec<(String, EndpointTls)>,
    /// Names known without asking.
    pub hosts: Vec<(IpAddr, String)>,
    /// `None` asks as the host does.
    pub resolvers: Option<Vec<IpAddr>>,
    /// Of each attempt to connect.
    pub timeout: Duration,
    /// Made at the first encrypted connection: reading this host's certificates takes longer than asking a plain registry.
    pub tls: OnceLock<TlsConnector>,
}

/// A connection, encrypted or not.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct DialError {
    /// Such as `dial tcp 192.0.2.1:443: i/o timeout`.
    pub text: String,
    pub timed_out: bool,
}

impl Dialer {
    /// Connects to the host of an `http` or `https` address.
    pub(crate) async fn connect(&self, uri: &Uri) -> Result<Box<dyn Connection>, DialError> {
        let failed = |text: String| DialError { text, timed_out: false };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = self.connect_tcp(&host, port).await?;
        // A lost keep-alive is no reason to fail.
        let _ = stream.set_nodelay(true);
        if !secure {
            return Ok(Box::new(stream));
        }
        let (name, tls) = match self.trusted.iter().find(|(name, _)| *name == host) {
            Some((_, own)) => (own.server_name.clone(), &own_tls(&own.authorities).map_err(&failed)?),
            None => match self.tls.get() {
                Some(tls) => (host.clone(), tls),
                None => {
                    let made = tls().map_err(|error| failed(format!("tls: {error}")))?;
                    (host.clone(), self.tls.get_or_init(|| made))
                }
            },
        };
        let name = ServerName::try_from(name).map_err(|error| failed(format!("tls: {host}: {error}")))?;
        match timeout(self.timeout, tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(failed(format!("tls: {error}"))),
            Err(_) => Err(DialError { text: "net/http: TLS handshake timeout".to_owned(), timed_out: true }),
        }
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let mut last = DialError { text: format!("dial tcp: lookup {host}: no such host"), timed_out: false };
        for address in self.addresses(host, port).await? {
            match timeout(self.timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = describe(address, &error),
                Err(_) => last = DialError { text: format!("dial tcp {address}: i/o timeout"), timed_out: true },
            }
        }
        Err(last)
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        if let Some((_, address)) = self.fixed.iter().find(|(name, _)| *name == format!("{host}:{port}")) {
            return Ok(vec![*address]);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if is_local_name(host) {
            return Ok(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]);
        }
        let known: Vec<SocketAddr> = self
            .hosts
            .iter()
            .filter(|(_, name)| name.eq_ignore_ascii_case(host))
            .map(|(address, _)| SocketAddr::new(*address, port))
            .collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let lookup_failed =
            |reason: &str, timed_out| DialError { text: format!("dial tcp: lookup {host}: {reason}"), timed_out };
        match &self.resolvers {
            Some(servers) => match dns::lookup(host, servers).await {
                Ok(addresses) => Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
                Err(LookupError::NoSuchHost) => Err(lookup_failed("no such host", false)),
                Err(LookupError::Timeout) => Err(lookup_failed("i/o timeout", true)),
                Err(LookupError::Failed(reason)) => Err(lookup_failed(&reason, false)),
            },
            None => match timeout(self.timeout, tokio::net::lookup_host((host, port))).await {
                Ok(Ok(addresses)) => Ok(addresses.collect()),
                Ok(Err(error)) if error.to_string().contains("Temporary failure") => {
                    Err(lookup_failed("i/o timeout", true))
                }
                Ok(Err(_)) => Err(lookup_failed("no such host", false)),
                Err(_) => Err(lookup_failed("i/o timeout", true)),
            },
        }
    }
}

/// `localhost` and everything below it is this host, wherever a resolver would send it.
pub(crate) fn is_local_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost")
}

fn describe(address: SocketAddr, error: &io::Error) -> DialError {
    let (reason, timed_out) = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => ("connect: connection refused", false),
        Some(libc::ENETUNREACH) => ("connect: network is unreachable", false),
        Some(libc::EHOSTUNREACH) => ("connect: no route to host", false),
        Some(libc::ETIMEDOUT) => ("i/o timeout", true),
        _ => return DialError { text: format!("dial tcp {address}: {error}"), timed_out: false },
    };
    DialError { text: format!("dial tcp {address}: {reason}"), timed_out }
}

/// TLS with the certificates this host trusts.
fn tls() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    // A store without certificates fails each handshake with its own words; plain HTTP to a local registry needs none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    trusting(roots)
}

/// TLS with an endpoint's own authorities.
fn own_tls(authorities: &str) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities.as_bytes()).flatten());
    trusting(roots)
}

fn trusting(roots: RootCertStore) -> Result<TlsConnector, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
