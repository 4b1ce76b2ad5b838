//! The files by which a client is let into etcd: certificates, a key, a password. They are read again for
//! every new connection, because they are replaced while the agent runs.

use std::fs;
use std::path::Path;

use cni_conf::pool::EtcdConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::error::StoreError;

/// How endpoints with `https` are spoken to.
pub(super) fn tls(config: &EtcdConfig) -> Result<ClientTlsConfig, StoreError> {
    let mut tls = ClientTlsConfig::new();
    tls = match &config.ca {
        None => tls.with_native_roots(),
        Some(path) => tls.ca_certificate(Certificate::from_pem(certificates(path)?)),
    };
    if let (Some(cert), Some(key)) = (&config.cert, &config.key) {
        let certificate = certificates(cert)?;
        let pem = read(key)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(key, format!("no key: {error}")))?;
        tls = tls.identity(Identity::from_pem(certificate, pem));
    }
    Ok(tls)
}

/// The password of the user.
pub(super) fn password(path: &Path) -> Result<String, StoreError> {
    let password = String::from_utf8(read(path)?).map_err(|error| unusable(path, error.to_string()))?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// A file with certificates, all of which can be read.
fn certificates(path: &Path) -> Result<Vec<u8>, StoreError> {
    let pem = read(path)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        certificate.map_err(|error| unusable(path, format!("no certificate: {error}")))?;
        count += 1;
    }
    if count == 0 {
        return Err(unusable(path, "it has no certificate".to_owned()));
    }
    Ok(pem)
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|error| unusable(path, error.to_string()))
}

fn unusable(path: &Path, cause: String) -> StoreError {
    StoreError::File { path: path.to_owned(), cause }
}
