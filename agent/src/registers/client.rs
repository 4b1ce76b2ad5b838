//! Requests to etcd: one endpoint at a time, and the next one if that does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cni_conf::pool::EtcdConfig;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoStreamingRequest, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::access;
use super::connection::Connector;
use super::error::StoreError;
use super::failure::{About, Done, Failure};
use super::messages::{
    AUTHENTICATE, AuthenticateRequest, AuthenticateResponse, WATCH, WatchRequest, WatchResponse,
};
use super::place;

/// The time limit of a request, its tries at all endpoints included.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// The time limit of connecting to one of several endpoints.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a connection with a watch is tried, and how long an answer may take. etcd closes connections
/// that are tried more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Whether a request may be sent once more if nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// The endpoints, and the user's token.
#[derive(Debug)]
pub(super) struct Client {
    config: EtcdConfig,
    members: Vec<Member>,
    /// The endpoint that is asked.
    at: AtomicUsize,
    token: Mutex<Option<Token>>,
    /// How errors call the user and the client's certificate.
    user: String,
    certificate: String,
}

type Token = MetadataValue<Ascii>;

#[derive(Debug)]
struct Member {
    url: String,
    channel: Mutex<Option<Channel>>,
}

impl Client {
    /// A client that has not connected yet. It begins with an endpoint at random.
    pub(super) fn new(config: &EtcdConfig) -> Result<Client, StoreError> {
        access::tls(config)?;
        if config.endpoints.is_empty() {
            return Err(StoreError::Unreachable("no endpoint is configured".to_owned()));
        }
        for url in &config.endpoints {
            endpoint(url)?;
        }
        if let Some(path) = &config.password_file {
            access::password(path)?;
        }
        let certificate = match &config.cert {
            Some(path) => format!("the certificate {}", path.display()),
            None => "a client without a certificate".to_owned(),
        };
        let user = config.user.as_ref().map(|user| format!("user {user}"));
        let member = |url: &String| Member { url: url.clone(), channel: Mutex::default() };
        Ok(Client {
            members: config.endpoints.iter().map(member).collect(),
            at: AtomicUsize::new(place::random() as usize),
            token: Mutex::default(),
            user: user.unwrap_or_else(|| certificate.clone()),
            certificate,
            config: config.clone(),
        })
    }

    /// Asks, and returns the answer. `key` is what it is about, for the words of an error.
    pub(super) async fn call<Q, A>(
        &self,
        kind: Kind,
        path: &'static str,
        key: &str,
        question: &Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let at = self.at();
        let tries = self.tries(kind, path, key, question);
        timeout(DEADLINE, tries).await.unwrap_or_else(|_| {
            let failure = Failure::late(self.about(self.at(), key));
            self.leave(at);
            Err(failure)
        })
    }

    /// Asks one endpoint after the other, while that changes nothing twice.
    async fn tries<Q, A>(&self, kind: Kind, path: &'static str, key: &str, question: &Q) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        // One endpoint must not take the time of all.
        let limit = if kind == Kind::Read { DEADLINE / self.members.len() as u32 } else { DEADLINE };
        let mut unreachable = Vec::new();
        for last in (0..self.members.len()).rev() {
            let at = self.at();
            let failure = match timeout(limit, self.with_token(at, path, key, question)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::late(self.about(at, key)),
            };
            let perhaps = failure.done == Done::Perhaps;
            if perhaps || failure.done == Done::NotSent {
                self.leave(at);
            }
            let goes_on = failure.done == Done::NotSent || perhaps && kind == Kind::Read;
            if !goes_on || last == 0 && unreachable.is_empty() {
                return Err(failure);
            }
            unreachable.push(failure.error);
        }
        Err(Failure { error: of_all(unreachable), done: Done::NotSent })
    }

    /// Asks an endpoint, with a new token if the old one is no longer valid.
    async fn with_token<Q, A>(
        &self,
        at: usize,
        path: &'static str,
        key: &str,
        question: &Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let token = self.token(at).await?;
        match self.ask(at, path, key, question, token.clone()).await {
            Err(failure) if failure.done == Done::OldToken && token.is_some() => {
                self.forget_token();
                let token = self.token(at).await?;
                self.ask(at, path, key, question, token).await
            }
            outcome => outcome,
        }
    }

    async fn ask<Q, A>(
        &self,
        at: usize,
        path: &'static str,
        key: &str,
        question: &Q,
        token: Option<Token>,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let about = self.about(at, key);
        let mut grpc = Grpc::new(self.channel(at).map_err(impossible)?);
        let outcome = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let request = with(Request::new(question.clone()), token);
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(request, PathAndQuery::from_static(path), codec).await
        };
        let answer = outcome.await.map_err(|status| Failure::of(&status, about))?;
        Ok(answer.into_inner())
    }

    /// Begins a watch at an endpoint. The stream is silent until something happens.
    pub(super) async fn watch(&self, key: &str, request: WatchRequest) -> Result<Watching, StoreError> {
        let at = self.at();
        let about = self.about(at, key);
        let outcome = timeout(DEADLINE, self.watch_at(at, about, request)).await;
        outcome.unwrap_or_else(|_| Err(Failure::late(about))).map_err(|failure| {
            self.leave(at);
            failure.error
        })
    }

    async fn watch_at(
        &self,
        at: usize,
        about: About<'_>,
        request: WatchRequest,
    ) -> Result<Watching, Failure> {
        let token = self.token(at).await?;
        let mut grpc = Grpc::new(self.channel(at).map_err(impossible)?);
        let outcome = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            // The watch ends when the client ends its side.
            let requests = tokio_stream::once(request).chain(tokio_stream::pending());
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let mut request = with(requests.into_streaming_request(), token);
            // A member that has lost its leader would be silent too.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            grpc.streaming(request, PathAndQuery::from_static(WATCH), codec).await
        };
        let answer = outcome.await.map_err(|status| Failure::of(&status, about))?;
        Ok(Watching { stream: answer.into_inner(), at })
    }

    /// Why a watch failed.
    pub(super) fn watch_failure(&self, watching: &Watching, key: &str, status: &Status) -> StoreError {
        self.leave(watching.at);
        self.forget_token();
        Failure::of(status, self.about(watching.at, key)).error
    }

    /// The token of the user. None if the configuration has none.
    async fn token(&self, at: usize) -> Result<Option<Token>, Failure> {
        let (Some(name), Some(path)) = (&self.config.user, &self.config.password_file) else {
            return Ok(None);
        };
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return Ok(known);
        }
        let password = access::password(path).map_err(impossible)?;
        let question = AuthenticateRequest { name: name.clone(), password };
        let answer: AuthenticateResponse = self
            .ask(at, AUTHENTICATE, "its own password", &question, None)
            .await
            .map_err(|failure| Failure { done: not_yet(failure.done), ..failure })?;
        let token = Token::try_from(answer.token.as_str()).map_err(|_| Failure {
            error: StoreError::Unreadable { key: "token".into(), cause: "no text".into() },
            done: Done::Refused,
        })?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    fn forget_token(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The connection to an endpoint.
    fn channel(&self, at: usize) -> Result<Channel, StoreError> {
        let member = &self.members[at];
        let mut channel = member.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channel.as_ref() {
            return Ok(channel.clone());
        }
        let connector = Connector { tls: access::tls(&self.config)? };
        let new = endpoint(&member.url)?.connect_with_connector_lazy(connector);
        *channel = Some(new.clone());
        Ok(new)
    }

    fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed) % self.members.len()
    }

    /// Turns to the next endpoint, unless another request has done so, and closes the connection.
    fn leave(&self, at: usize) {
        *self.members[at].channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let next = (at + 1) % self.members.len();
        let turn = |current| (current % self.members.len() == at).then_some(next);
        let _ = self.at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn);
    }

    fn about<'a>(&'a self, at: usize, key: &'a str) -> About<'a> {
        let endpoint = &self.members[at].url;
        About { endpoint, key, user: &self.user, certificate: &self.certificate }
    }
}

/// A watch, and the endpoint that it is at.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) stream: Streaming<WatchResponse>,
    at: usize,
}

fn with<T>(mut request: Request<T>, token: Option<Token>) -> Request<T> {
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

/// What could not even be tried.
fn impossible(error: StoreError) -> Failure {
    Failure { error, done: Done::Refused }
}

/// What it means for a request that the user's token could not be had.
fn not_yet(done: Done) -> Done {
    if done == Done::Perhaps { Done::NotSent } else { done }
}

/// One error for the endpoints that were all tried. A wrong certificate at one of them is the one to know.
fn of_all(errors: Vec<StoreError>) -> StoreError {
    let mut said = Vec::new();
    for error in errors {
        match error {
            StoreError::Unreachable(cause) => said.push(cause),
            StoreError::NoAnswer { endpoint, cause, .. } => said.push(format!("{endpoint}: {cause}")),
            other => return other,
        }
    }
    StoreError::Unreachable(said.join("; "))
}

fn endpoint(url: &str) -> Result<Endpoint, StoreError> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|error| StoreError::Unreachable(format!("{url}: {error}")))?;
    Ok(endpoint.connect_timeout(CONNECT).http2_keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_LIMIT))
}
