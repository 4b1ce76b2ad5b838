//! What goes wrong between a client and etcd.

use std::path::PathBuf;

/// Why the store did not do what was asked. If that was to write, nothing is written and nothing will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A file of the configuration cannot be used.
    #[error("{}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// No endpoint can be connected to.
    #[error("etcd cannot be reached: {0}")]
    Unreachable(
        /// Each endpoint, and why.
        String,
    ),
    /// The certificate of an endpoint is not to be trusted.
    #[error("the certificate of {endpoint} is not valid: {cause}")]
    ServerCertificate {
        /// The endpoint.
        endpoint: String,
        /// Why.
        cause: String,
    },
    /// An endpoint does not accept the client's certificate.
    #[error("{endpoint} refuses {certificate}: {cause}")]
    ClientCertificate {
        /// The endpoint.
        endpoint: String,
        /// The client's certificate, or that there is none.
        certificate: String,
        /// Why.
        cause: String,
    },
    /// The user may not do this.
    #[error("{endpoint} does not permit {user} to use {key}: {cause}")]
    NotPermitted {
        /// The endpoint.
        endpoint: String,
        /// The user, or the certificate that names one.
        user: String,
        /// The key.
        key: String,
        /// What etcd says.
        cause: String,
    },
    /// etcd refuses this for another reason.
    #[error("{endpoint} refuses to use {key}: {cause}")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// The key.
        key: String,
        /// What etcd says.
        cause: String,
    },
    /// There is no answer, or only one that etcd cannot do it now.
    #[error("no answer from {endpoint} about {key}: {cause}")]
    NoAnswer {
        /// The endpoint.
        endpoint: String,
        /// The key.
        key: String,
        /// Why.
        cause: String,
    },
    /// The store has a value that cannot be read.
    #[error("{key}: {cause}")]
    Unreadable {
        /// The key.
        key: String,
        /// Why.
        cause: String,
    },
    /// There is no such pool, or an operator has changed its document since it was read.
    #[error("the pool's document has changed since it was read")]
    DocumentChanged,
}
