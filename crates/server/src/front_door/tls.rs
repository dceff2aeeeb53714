//! TLS for a control plane beyond loopback: a certificate authority of its own, made at the first start, whose
//! certificate people give to their tools.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The authority's certificate, for `AWS_CA_BUNDLE` and the like.
pub const AUTHORITY: &str = "ca.pem";

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// A certificate for `address` from the authority in `keys`, which is made if it is missing.
    pub fn generate(address: IpAddr, keys: &Path) -> io::Result<Self> {
        let authority = authority(keys)?;
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "*.localhost".to_owned()]).map_err(other)?;
        let addresses = if address.is_unspecified() { own_addresses()? } else { vec![address] };
        params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
        params.distinguished_name.push(DnType::CommonName, "longshore");
        let key = KeyPair::generate().map_err(other)?;
        let certificate = params.signed_by(&key, &authority).map_err(other)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .map_err(other)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

/// The addresses of this host, which a listener on all of them is reached at.
fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect())
}

fn authority(keys: &Path) -> io::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "longshore certificate authority");
    let (certificate_path, key_path) = (keys.join(AUTHORITY), keys.join("ca.key"));
    let key = match fs::read_to_string(&key_path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(other)?,
        Err(_) => {
            let key = KeyPair::generate().map_err(other)?;
            let certificate = params.self_signed(&key).map_err(other)?;
            write(&certificate_path, certificate.pem().as_bytes(), 0o644)?;
            // Last, since its presence says that both are there.
            write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
            key
        }
    };
    Ok(Issuer::new(params, key))
}

fn write(path: &PathBuf, content: &[u8], mode: u32) -> io::Result<()> {
    use io::Write;
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
