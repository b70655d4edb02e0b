//! The admin server: what is in force, how it is doing, and the few things that can be told to a running proxy.
//!
//! `/metrics`, `/ready` and `/live` answer everybody who reaches the address. All else, and everything that changes
//! something, answers only peers on this machine, until `admin.token_file` is set: then whoever has the token.

mod access;
mod gate;
mod health;
mod services;
mod show;
mod standing;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_local;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::base::address::Address;
use crate::base::rng::Rng;
use crate::config::Admin;
use crate::control::{ApplyError, Control, SocketFile};

use access::Peer;
use services::{Events, Stream};

/// An answer that is there, or one that goes on.
type Body = Either<Full<Bytes>, Stream>;

/// Changes the level of the proxy's own log.
pub type SetLogLevel = Box<dyn Fn(&str) -> Result<(), String>>;

/// A request that takes longer than this to send its head is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Admin requests have no body to speak of.
const MAX_BODY: usize = 4096;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// Rest after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound admin server.
pub struct Server {
    listener: Listener,
    context: Rc<Context>,
}

enum Listener {
    Tcp(TcpListener),
    /// With its file, which goes when the server is dropped.
    Unix(UnixListener, #[expect(dead_code, reason = "held, never read")] SocketFile),
}

struct Context {
    control: Rc<Control>,
    settings: Admin,
    set_log_level: SetLogLevel,
    events: Rc<Events>,
}

impl Server {
    /// Binds the address. An address in use is an error.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(
        settings: Admin,
        control: Rc<Control>,
        set_log_level: SetLogLevel,
    ) -> std::io::Result<Self> {
        let listener = match &settings.bind {
            Address::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
            Address::Unix(path) => {
                let (socket, file) = SocketFile::bind(path)?;
                socket.set_nonblocking(true)?;
                Listener::Unix(UnixListener::from_std(socket)?, file)
            }
        };
        let events = Rc::new(Events::new(Rng::from_entropy().bits()));
        Ok(Self {
            listener,
            context: Rc::new(Context { control, settings, set_log_level, events }),
        })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> Address {
        match &self.listener {
            Listener::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| self.context.settings.bind.clone(), Into::into),
            Listener::Unix(..) => self.context.settings.bind.clone(),
        }
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        let events = Rc::clone(&self.context.events).run(Rc::clone(&self.context.control));
        let _told_while_this_runs = AbortOnDropHandle::new(spawn_local(events));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                    let context = Rc::clone(&self.context);
                    drop(spawn_local(serve(context, TokioIo::new(stream), Peer::Ip(peer), place)));
                }),
                Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                    let context = Rc::clone(&self.context);
                    drop(spawn_local(serve(context, TokioIo::new(stream), Peer::Unix, place)));
                }),
            };
            if let Err(error) = accepted {
                tracing::debug!(%error, "admin accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<I>(context: Rc<Context>, io: I, peer: Peer, place: OwnedSemaphorePermit)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request| {
        let context = Rc::clone(&context);
        async move { Ok::<_, Infallible>(context.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(io, service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection ended");
    }
    drop(place);
}

impl Context {
    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/services/events" {
            return self.events(peer, &request);
        }
        self.page(peer, request).await.map(Body::Left)
    }

    /// A stream of changes.
    fn events(&self, peer: Peer, request: &Request<Incoming>) -> Response<Body> {
        let token_file = self.settings.token_file.as_deref();
        if let Err(refusal) = access::authorise(peer, token_file, request.headers()) {
            return refusal.response().map(Body::Left);
        }
        if request.method() != Method::GET {
            return only("GET").map(Body::Left);
        }
        let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        match self.events.subscribe(&self.control, last) {
            Some(stream) => {
                let mut response = Response::new(Body::Right(stream));
                let kind = HeaderValue::from_static("text/event-stream");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            None => {
                let most = services::MAX_SUBSCRIBERS;
                let why = format!("{most} listeners are as many as there may be\n");
                let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why).map(Body::Left);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
                response
            }
        }
    }

    async fn page(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let reading = matches!(parts.method, Method::GET | Method::HEAD);
        match parts.uri.path() {
            "/live" if reading => return text(StatusCode::OK, "live\n"),
            "/ready" if reading => return self.ready(),
            "/metrics" if reading => return self.metrics(),
            _ => {}
        }
        let token_file = self.settings.token_file.as_deref();
        if let Err(refusal) = access::authorise(peer, token_file, &parts.headers) {
            return refusal.response();
        }
        let wanted = match parts.uri.path() {
            "/" | "/config" | "/upstreams" | "/services" | "/live" | "/ready" | "/metrics" => "GET",
            "/reload" | "/drain" => "POST",
            "/log-level" => "PUT",
            _ => return text(StatusCode::NOT_FOUND, show::INDEX),
        };
        let allowed = match wanted {
            "GET" => reading,
            // `curl -d` says POST.
            "PUT" => matches!(parts.method, Method::PUT | Method::POST),
            _ => parts.method == Method::POST,
        };
        if !allowed {
            return only(wanted);
        }
        match parts.uri.path() {
            "/config" => self.config(),
            "/upstreams" => json(StatusCode::OK, &show::upstreams(&self.control)),
            "/services" => json(StatusCode::OK, &services::page(&self.control)),
            "/reload" => self.reload().await,
            "/drain" => {
                self.control.request_drain();
                text(StatusCode::ACCEPTED, "draining\n")
            }
            "/log-level" => self.log_level(body).await,
            _ => text(StatusCode::OK, show::INDEX),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        match self.control.not_ready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.control.with_upstreams(|upstreams| upstreams.refresh_metrics(Instant::now()));
        match self.control.metrics.exposition() {
            Ok(series) => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                respond(StatusCode::OK, kind, series)
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn config(&self) -> Response<Full<Bytes>> {
        let kind = HeaderValue::from_static("application/yaml; charset=utf-8");
        respond(StatusCode::OK, kind, show::config(&self.control))
    }

    async fn reload(&self) -> Response<Full<Bytes>> {
        let control = Rc::clone(&self.control);
        // A task of its own: it goes on to its end where the caller does not wait for it.
        match spawn_local(async move { control.reload().await }).await {
            Ok(Ok(applied)) => json(StatusCode::OK, &show::applied(&applied)),
            Ok(Err(error @ ApplyError::Draining)) => {
                text(StatusCode::CONFLICT, format!("{error}\n"))
            }
            Ok(Err(error)) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    async fn log_level(&self, body: Incoming) -> Response<Full<Bytes>> {
        let body = Limited::new(body, MAX_BODY).collect().await;
        let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
        };
        let level = String::from_utf8_lossy(&body);
        match (self.set_log_level)(level.trim()) {
            Ok(()) => text(StatusCode::OK, format!("log level is {}\n", level.trim())),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

/// The refusal of every method but one.
fn only(method: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {method}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(status, HeaderValue::from_static("application/json"), format!("{value:#}\n"))
}

fn respond(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
