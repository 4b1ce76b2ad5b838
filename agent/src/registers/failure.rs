//! What became of a request that failed: whether etcd may have done it, and why it failed.
//!
//! | what came | whether a write is done |
//! |---|---|
//! | no connection, or no TLS | no: nothing was sent |
//! | the server refuses our certificate | no: nothing was sent |
//! | etcd's refusal: permission, form, size, no space | no: it checks before it writes |
//! | any other code, such as `Unavailable`: a timeout, a lost leader, a server that stops | perhaps |
//! | a connection that broke, no answer in time | perhaps |

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tonic::{Code, ConnectError, Status};

use super::error::StoreError;

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) done: Done,
}

/// Whether etcd did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// Surely not: it never came there. Another endpoint may be asked.
    NotSent,
    /// Surely not, and each endpoint says so.
    Refused,
    /// Surely not: the token is too old.
    OldToken,
    /// Perhaps, or perhaps later.
    Perhaps,
}

/// The endpoint and the key that a request is about, for the words of an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) endpoint: &'a str,
    pub(super) key: &'a str,
    /// The user, or the certificate that names one.
    pub(super) user: &'a str,
    /// The client's certificate.
    pub(super) certificate: &'a str,
}

impl Failure {
    /// What etcd or the way there says.
    pub(super) fn of(status: &Status, about: About<'_>) -> Failure {
        tls(status, about).or_else(|| not_sent(status, about)).unwrap_or_else(|| answered(status, about))
    }

    /// No answer in time.
    pub(super) fn late(about: About<'_>) -> Failure {
        no_answer(about, "its time is over")
    }
}

/// Errors of TLS, which come before a request is sent.
fn tls(status: &Status, about: About<'_>) -> Option<Failure> {
    let endpoint = about.endpoint.to_owned();
    let error = match chain(status).find_map(of_rustls)? {
        rustls::Error::InvalidCertificate(error) => {
            StoreError::ServerCertificate { endpoint, cause: certificate_words(error) }
        }
        rustls::Error::AlertReceived(alert) if is_about_certificates(*alert) => {
            let certificate = about.certificate.to_owned();
            StoreError::ClientCertificate { endpoint, certificate, cause: format!("TLS alert {alert:?}") }
        }
        _ => return None,
    };
    Some(Failure { error, done: Done::NotSent })
}

fn not_sent(status: &Status, about: About<'_>) -> Option<Failure> {
    let error = chain(status).find_map(|error| error.downcast_ref::<ConnectError>())?;
    let error = StoreError::Unreachable(format!("{}: {}", about.endpoint, innermost(error)));
    Some(Failure { error, done: Done::NotSent })
}

/// An answer of etcd, or a broken connection.
fn answered(status: &Status, about: About<'_>) -> Failure {
    let (endpoint, key, cause) = (about.endpoint.to_owned(), about.key.to_owned(), message(status));
    let user = about.user.to_owned();
    let refused = |done| Failure {
        error: StoreError::Refused { endpoint: endpoint.clone(), key: key.clone(), cause: cause.clone() },
        done,
    };
    match status.code() {
        Code::Unauthenticated => refused(Done::OldToken),
        Code::InvalidArgument if cause.contains("auth store is old") => refused(Done::OldToken),
        Code::PermissionDenied => {
            Failure { error: StoreError::NotPermitted { endpoint, user, key, cause }, done: Done::Refused }
        }
        // Without a user where etcd wants one, and with a wrong password.
        Code::InvalidArgument if cause.contains("user") => {
            Failure { error: StoreError::NotPermitted { endpoint, user, key, cause }, done: Done::Refused }
        }
        Code::InvalidArgument | Code::FailedPrecondition => refused(Done::Refused),
        // Others with this code come from gRPC itself, which cannot return an answer that is too large.
        Code::ResourceExhausted if status.message().starts_with("etcdserver:") => refused(Done::Refused),
        _ => no_answer(about, &cause),
    }
}

fn no_answer(about: About<'_>, cause: &str) -> Failure {
    let (endpoint, key) = (about.endpoint.to_owned(), about.key.to_owned());
    let error = StoreError::NoAnswer { endpoint, key, cause: cause.to_owned() };
    Failure { error, done: Done::Perhaps }
}

/// The cause in etcd's words, or in those of the way there.
fn message(status: &Status) -> String {
    let own = status.message().trim_start_matches("etcdserver: ");
    match status.source() {
        Some(source) => innermost(source),
        None if own.is_empty() => format!("gRPC code {:?}", status.code()),
        None => own.to_owned(),
    }
}

/// The error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// The innermost cause, which says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

/// An error of rustls, which comes inside one of input and output. That does not name it as its source.
fn of_rustls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref())
}

fn certificate_words(error: &CertificateError) -> String {
    match error {
        // Authorities of one name have different keys.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "none of our authorities has signed it".to_owned()
        }
        other => other.to_string(),
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}
