//! TLS with targets: encrypted, and nothing asked of their certificates, as Amazon's load balancers do it. Who a target is is
//! the VPC's word. <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-target-groups.html>

use std::{
    io,
    sync::{Arc, LazyLock},
};

use domain::balancing::ProtocolVersion;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

static HTTP1: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| config(b"http/1.1"));
static HTTP2: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| config(super::HTTP2));

/// Makes the handshake over a connection to a target. A name is not asked for.
pub async fn connect(stream: TcpStream, version: ProtocolVersion) -> io::Result<TlsStream<TcpStream>> {
    let config = match version {
        ProtocolVersion::Http1 => &*HTTP1,
        ProtocolVersion::Http2 => &*HTTP2,
    };
    let config = config.as_ref().map_err(io::Error::other)?;
    let name = ServerName::from(stream.peer_addr()?.ip());
    TlsConnector::from(config.clone()).connect(name, stream).await
}

fn config(protocol: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    // Connections are kept, so that little would be gained by remembering sessions of every target.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes every certificate. What it signs is not looked at either: that would only tell that somebody has its key.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
