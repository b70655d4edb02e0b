//! TLS towards the endpoints of an upstream, and which protocol they choose there.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::Tried;
use crate::balance::endpoint::Endpoint;
use crate::base::rng::Rng;
use crate::io::socket::Socket;
use crate::metrics::{HandshakeFailure, Handshakes};
use crate::net::{ConnectError, Http1, Http2, MadeWith, TlsTarget};
use crate::tls::handshake;
use crate::tls::{Alpn, ClientTls};

use super::connection::Held;
use super::local::LocalUpstream;
use super::pool::Http2Place;

/// An upstream's TLS.
#[derive(Debug)]
pub struct UpstreamTls {
    client: Arc<ClientTls>,
    handshakes: Handshakes,
    chosen: Chosen,
}

/// What the endpoints chose last, where the choice is theirs (`protocol: auto`). Endpoints of one upstream are
/// interchangeable: what one of them speaks, all are taken to speak, until one says otherwise.
#[derive(Debug, Default)]
struct Chosen {
    /// See [`UNKNOWN`] and what follows it.
    state: AtomicU8,
    /// When they may be asked again after they could not be, in milliseconds since [`START`].
    ask_again: AtomicU64,
}

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// Requests to endpoints that cannot be asked go over HTTP/1 for so long, instead of waiting for the answer again.
const PAUSE: Duration = Duration::from_secs(1);

/// What [`Chosen::ask_again`] counts from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Chosen {
    fn http2(&self) -> Option<bool> {
        match self.state.load(Ordering::Relaxed) {
            UNKNOWN => None,
            chosen => Some(chosen == HTTP2),
        }
    }

    fn note(&self, http2: bool) {
        self.state.store(if http2 { HTTP2 } else { HTTP1 }, Ordering::Relaxed);
    }

    fn may_ask(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(*START).as_millis();
        since >= u128::from(self.ask_again.load(Ordering::Relaxed))
    }

    fn could_not_ask(&self, now: Instant) {
        let until = now.saturating_duration_since(*START) + PAUSE;
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.ask_again.store(until, Ordering::Relaxed);
    }
}

impl UpstreamTls {
    /// With what the file says, and where handshakes are counted.
    pub fn new(client: Arc<ClientTls>, handshakes: Handshakes) -> Self {
        Self { client, handshakes, chosen: Chosen::default() }
    }

    /// Rules and certificates.
    pub fn client(&self) -> &Arc<ClientTls> {
        &self.client
    }

    /// With what to begin TLS with an endpoint, and of which set that is.
    pub(super) fn target(&self, endpoint: &Endpoint, alpn: Alpn) -> Option<(TlsTarget, MadeWith)> {
        let name = self.client.name_of(&endpoint.address)?;
        let generation = self.client.current();
        let config = generation.offering(alpn);
        Some((TlsTarget { config, name }, Some(generation)))
    }

    /// Counts an endpoint that did not take us after the handshake was done on our side.
    pub fn count_refused(&self) {
        self.handshakes.failed(HandshakeFailure::Refused);
    }

    /// Counts a handshake by how it ended.
    pub(super) fn count(&self, connected: &Result<Socket, ConnectError>) {
        match connected {
            Ok(socket) => {
                if let Some(session) = socket.tls() {
                    handshake::count(&self.handshakes, session, self.client.has_certificate());
                }
            }
            Err(ConnectError::Tls(error)) => {
                self.handshakes.failed(error.reason);
                if error.reason == HandshakeFailure::NoProtocol {
                    self.chosen.state.store(UNKNOWN, Ordering::Relaxed);
                }
            }
            Err(ConnectError::Io(_)) => {}
        }
    }
}

impl LocalUpstream {
    /// Whether requests that leave the choice to the endpoints (`protocol: auto`) go over HTTP/2; `None`: nobody has asked them.
    pub fn chosen_http2(&self) -> Option<bool> {
        let Some(tls) = &self.upstream.tls else { return Some(false) };
        match tls.chosen.http2() {
            None if !tls.chosen.may_ask(Instant::now()) => Some(false),
            chosen => chosen,
        }
    }

    /// Asks an endpoint which protocol it chooses, and keeps the connection for the request that wanted to know. Where
    /// none can be asked, HTTP/1: every server speaks that.
    pub async fn choose(self: &Rc<Self>, rng: &RefCell<Rng>) -> bool {
        let Some(tls) = &self.upstream.tls else { return false };
        let chosen = self.ask(tls, rng).await;
        if chosen.is_none() {
            tls.chosen.could_not_ask(Instant::now());
        }
        chosen.unwrap_or(false)
    }

    async fn ask(self: &Rc<Self>, tls: &UpstreamTls, rng: &RefCell<Rng>) -> Option<bool> {
        let now = Instant::now();
        let upstream = &self.upstream;
        let picked = upstream.balancer.pick(
            &upstream.endpoints(),
            &Tried::new(),
            now,
            &mut rng.borrow_mut(),
        )?;
        let endpoint = Arc::clone(picked.endpoint());
        drop(picked);
        let (pool, policy) = (self.pool(&endpoint), &upstream.policy.pool);
        let maker = loop {
            match pool.http2(policy, Instant::now()) {
                Http2Place::Stream(..) => {
                    tls.chosen.note(true);
                    return Some(true);
                }
                Http2Place::Wait(connecting) => {
                    connecting.finished().await.ok()?;
                    if let Some(chosen) = tls.chosen.http2() {
                        return Some(chosen);
                    }
                }
                Http2Place::Make(maker) => break maker,
            }
        };
        let opened = match self.open(&endpoint, Alpn::Either, self.place()?).await {
            Ok(opened) => opened,
            Err(error) => {
                maker.fail(&error);
                return None;
            }
        };
        let session = opened.socket.tls()?;
        let http2 = handshake::agreed_http2(session) == Some(true);
        tls.chosen.note(http2);
        let now = Instant::now();
        if !http2 {
            let interim = upstream.metrics.interim_dropped.clone();
            let connection = Http1::new(opened.socket, now, interim).made_with(opened.made_with);
            pool.checkin(connection, opened.place, policy, now);
            return Some(false);
        }
        let held = Held::new(opened.place, Rc::clone(self));
        let place = held.place();
        let interim = upstream.metrics.interim_dropped.clone();
        match Http2::start(opened.socket, now, interim, held).await {
            Ok(connection) => {
                drop(maker.succeed(connection.made_with(opened.made_with), place));
                Some(true)
            }
            Err(error) => {
                maker.fail(&self.not_started(&endpoint, &error));
                None
            }
        }
    }
}
