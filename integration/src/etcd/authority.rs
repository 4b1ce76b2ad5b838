//! An authority that signs certificates of a test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::fs;
use std::path::{Path, PathBuf};

/// An authority, and the folder of its certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// Makes one, whose files are in this new folder.
    pub fn new(folder: &Path) -> Authority {
        fs::create_dir(folder).expect("a folder of ours can be filled");
        let mut params = named("vlan-bridge test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, new_key()).expect("a certificate can be made");
        let authority = Authority { issuer, folder: folder.to_owned() };
        fs::write(authority.ca(), authority.issuer.pem()).expect("a folder of ours can be filled");
        authority
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The certificate and key of a client, whose name is that of its user in etcd. They are made at first.
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let pair = self.pair(name);
        if !pair.0.exists() {
            let mut params = named(name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            self.write(name, &params);
        }
        pair
    }

    /// A client's certificate that was valid years ago.
    pub fn expired_client(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = named(name);
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.write(name, &params);
        self.pair(name)
    }

    /// Makes the certificate of a server with these addresses.
    pub(super) fn server(&self, name: &str, addresses: &[String]) {
        let mut params = CertificateParams::new(addresses).expect("addresses are names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.write(name, &params);
    }

    /// Where a certificate and its key are.
    pub(super) fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(format!("{name}.crt")), self.folder.join(format!("{name}.key")))
    }

    fn write(&self, name: &str, params: &CertificateParams) {
        let (key, (cert, key_file)) = (new_key(), self.pair(name));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        fs::write(key_file, key.serialize_pem()).expect("a folder of ours can be filled");
        fs::write(cert, certificate.pem()).expect("a folder of ours can be filled");
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
