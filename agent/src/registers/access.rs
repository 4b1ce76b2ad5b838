//! The files by which a client is let into etcd: certificates, a key, a password. They are read again for
//! every new connection, because they are replaced while the agent runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cni_conf::pool::EtcdConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::error::StoreError;

/// How endpoints with `https` are spoken to.
pub(super) fn tls(config: &EtcdConfig) -> Result<Arc<ClientConfig>, StoreError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| StoreError::Unreachable(error.to_string()))?;
    let builder = builder.with_root_certificates(match &config.ca {
        Some(path) => authorities(path)?,
        None => of_machine(),
    });
    let mut tls = match (&config.cert, &config.key) {
        (Some(cert), Some(path)) => {
            let key = PrivateKeyDer::from_pem_slice(&read(path)?)
                .map_err(|error| unusable(path, format!("no key: {error}")))?;
            let tls = builder.with_client_auth_cert(certificates(cert)?, key);
            tls.map_err(|error| unusable(path, format!("not the key of {}: {error}", cert.display())))?
        }
        _ => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls))
}

/// The password of the user.
pub(super) fn password(path: &Path) -> Result<String, StoreError> {
    let password = String::from_utf8(read(path)?).map_err(|error| unusable(path, error.to_string()))?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

fn authorities(path: &Path) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, error.to_string()))?;
    }
    Ok(roots)
}

/// The authorities that the machine trusts. Certificates that cannot be read are left out.
fn of_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A file with certificates, all of which can be read.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(path, "it has no certificate".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(path, format!("no certificate: {error}"))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|error| unusable(path, error.to_string()))
}

fn unusable(path: &Path, cause: String) -> StoreError {
    StoreError::File { path: path.to_owned(), cause }
}
