//! The beginning of a connection on a listener with `tls`: TLS or not, and the handshake.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::io::socket::Socket;
use crate::metrics::HandshakeFailure;
use crate::snapshot::ListenerTls;
use crate::tls::handshake::{self, HandshakeError};
use crate::tls::peer;
use crate::tls::rotation::Generation;
use crate::tls::server::ServerConfigs;

use super::connection::{Accepted, Downstream};
use super::exchange::Exchange;
use super::worker::Stop;

/// How long a handshake may take where the listener's `header_timeout` is unlimited.
const LONGEST: Duration = Duration::from_secs(10);

/// How long a handshake may go on when the listener ends.
const ENDING: Duration = Duration::from_secs(1);

/// The first byte of a TLS record that holds a handshake (RFC 8446 §5.1).
pub(super) const HANDSHAKE: u8 = 22;

/// What a client that begins with HTTP/1 is told before it is closed on.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 26\r\nconnection: close\r\nx-outrigger-reason: plain_text\r\n\r\nthis port speaks TLS only\n";

/// What a connection under TLS was made with.
#[derive(Debug)]
pub(super) struct Secured {
    generation: Arc<Generation<ServerConfigs>>,
    made: Instant,
    /// HTTP/2 was agreed on, or HTTP/1; `None`: nothing was.
    pub(super) http2: Option<bool>,
}

impl Secured {
    /// The URI that our certificate was for.
    pub(super) fn own_uri(&self) -> Option<&str> {
        self.generation.value.own_uri.as_deref()
    }

    /// When the connection has to be asked to end, because its certificates were replaced.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.generation.ends_at(self.made)
    }

    /// When it has to end although its peer may be about to send a request.
    pub(super) fn closes_at(&self) -> Option<Instant> {
        self.generation.closes_at()
    }
}

/// The connection of a request, where it may have to end because its certificates were replaced and its next answer says so:
/// HTTP/1 under TLS.
pub(super) fn may_be_replaced(exchange: &Exchange) -> Option<Rc<Downstream>> {
    let downstream = &exchange.downstream;
    let replaceable = downstream.secured.is_some()
        && !downstream.http2
        && exchange.head.method != Method::CONNECT;
    replaceable.then(|| Rc::clone(downstream))
}

/// Says with an answer that it is the connection's last, where its certificates were replaced and its time has come. No request
/// can be on its way then, as none can be told to a caller that is not waiting.
pub(super) fn announce_end<B>(downstream: &Downstream, response: &mut Response<B>) {
    let Some(at) = downstream.secured.as_ref().and_then(Secured::ends_at) else { return };
    if Instant::now() >= at && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Begins TLS on a connection: what is behind it, and what it was made with; nothing where the listener serves connections in
/// clear as well and this is one. `None`: it has ended. Notes in `accepted` who the peer is.
pub(super) async fn begin(
    accepted: &mut Accepted,
    tls: &ListenerTls,
    socket: Socket,
    stopped: &watch::Receiver<Stop>,
) -> Option<(Socket, Option<Secured>)> {
    let limit = accepted.active.listener.limits.header_timeout.unwrap_or(LONGEST);
    let mut alarm = accepted.worker.tick.alarm();
    alarm.set(Some(Instant::now() + limit));
    let mut stopped = stopped.clone();
    let mut ending = false;
    let worker = Rc::clone(&accepted.worker);
    let mut opening = pin!(open(tls, socket, &worker.handshakes));
    let opened = loop {
        tokio::select! {
            opened = &mut opening => break opened,
            () = alarm.elapsed() => break Err(HandshakeError {
                reason: HandshakeFailure::Timeout,
                detail: format!("not done within {} ms", limit.as_millis()),
            }),
            _ = stopped.wait_for(|stop| *stop == Stop::Connections), if !ending => {
                // It was accepted in time, and is served if it goes on at once.
                ending = true;
                alarm.set(Some(Instant::now() + limit.min(ENDING)));
            }
        }
    };
    match opened {
        Ok((socket, secured)) => {
            if let Some(session) = socket.tls() {
                accepted.identity = peer::of_session(session).map(Arc::new);
                handshake::count(&tls.handshakes, session, session.peer_certificates().is_some());
            }
            Some((socket, secured))
        }
        Err(error) => {
            failed(accepted, tls, &error);
            None
        }
    }
}

async fn open(
    tls: &ListenerTls,
    mut socket: Socket,
    turns: &Semaphore,
) -> Result<(Socket, Option<Secured>), HandshakeError> {
    let mut first = [0; 16];
    let read = match socket.read(&mut first).await {
        Ok(0) | Err(_) => {
            let detail = "the peer closed the connection before it said anything".to_owned();
            return Err(HandshakeError { reason: HandshakeFailure::Closed, detail });
        }
        Ok(read) => read,
    };
    let begun = first[0];
    let socket_again = |socket: Socket| socket.with_ahead(Bytes::copy_from_slice(&first[..read]));
    if begun != HANDSHAKE {
        if tls.server.settings().plain_text {
            return Ok((socket_again(socket), None));
        }
        if begun.is_ascii_uppercase() && tls.server.settings().http {
            // Whoever it is waits for an answer in HTTP.
            let _gone = socket.write_all(NOT_TLS).await;
            let _gone = socket.shutdown().await;
        }
        let detail = "the connection does not begin with TLS".to_owned();
        return Err(HandshakeError { reason: HandshakeFailure::PlainText, detail });
    }
    let generation = tls.server.current();
    let accepting = handshake::accept(Arc::clone(&generation.value.config), socket_again(socket));
    let stream = in_turns(turns, accepting).await?;
    let http2 = handshake::agreed_http2(stream.get_ref().1);
    Ok((Socket::from_tls(stream), Some(Secured { generation, made: Instant::now(), http2 })))
}

/// Works at handshakes one after the other, and between two of them at whatever else this worker has to do.
///
/// A handshake is some twenty requests' worth of cryptography that any peer may ask for. Thousands of them that come at once would
/// run one behind the other before a request of an open connection is looked at; so each step of one takes a turn (first come,
/// first served), which begins with a look at all other tasks and sockets: a request waits for one handshake, whatever their number,
/// and an idle worker does them as fast as ever. Nobody holds a turn while waiting for its peer, so silent ones block nobody. Those
/// that wait too long for theirs end by the limit of time. HAProxy's `maxsslrate` bounds the rate instead, off by default: it has to
/// be measured for each machine, and holds up the peers of a restart that an idle proxy could serve.
async fn in_turns<T>(
    turns: &Semaphore,
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    let mut handshake = pin!(handshake);
    loop {
        // Never closed: an error would only mean no turn.
        let turn = turns.acquire().await;
        tokio::task::yield_now().await;
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await {
            return done;
        }
        drop(turn);
        // Until the handshake wakes this task: it was asked last.
        let mut asked = true;
        poll_fn(|_| if std::mem::take(&mut asked) { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

fn failed(accepted: &Accepted, tls: &ListenerTls, error: &HandshakeError) {
    tls.handshakes.failed(error.reason);
    let (listener, peer) = (&accepted.active.listener.name, accepted.peer);
    let reason = error.reason.word();
    match error.reason {
        // Checks of a port by load balancers look like this, every few seconds.
        HandshakeFailure::Closed => {
            tracing::debug!(%listener, %peer, reason, %error, "TLS handshake failed");
        }
        _ => tracing::info!(%listener, %peer, reason, %error, "TLS handshake failed"),
    }
}
