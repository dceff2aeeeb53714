//! TLS towards a control plane on another machine: which certificates are trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// How the agent speaks TLS: with what this machine trusts, and with the authorities in `bundle` (PEM), such as the
/// `ca.pem` of a platform.
///
/// # Errors
/// A bundle that cannot be read, or has no certificate in it.
pub fn config(bundle: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    // A machine that trusts nobody fails each handshake with its own words; plain HTTP to this host needs none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(bundle) = bundle {
        let found = rustls_native_certs::load_certs_from_paths(Some(bundle), None);
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map_or_else(|| "it has no certificate".to_owned(), ToString::to_string);
            return Err(format!("the certificate bundle {}: {why}", bundle.display()));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = config(Some(file.path())).expect_err("nothing in it");
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        assert!(config(Some(Path::new("/nonexistent/ca.pem"))).is_err());
        assert!(config(None).is_ok());
    }
}
