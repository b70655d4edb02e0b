//! The connection to a control plane: made, used, and made again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::BoxError;
use tracing::{info, warn};

use super::super::ErrorKind;
use super::super::backoff::backoff;
use super::super::last_good::Trouble;
use super::Shared;
use super::calm::{Noted, Watched};
use super::clusters::Clusters;
use super::session::Session;
use crate::base::rng::Rng;
use crate::tls::Alpn;

/// Name, TCP, TLS and the HTTP/2 preface together. It costs no request, so it may be generous.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// TCP and TLS with one address: another one gets its turn within the time above.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// A response may be so long, bytes: 10 000 endpoints with metadata take some 3 MiB. gRPC's own default of 4 MiB is too near.
const MAX_RESPONSE: usize = 32 << 20;

/// Requests that may wait for a control plane that does not read; one more ends the stream.
const MAX_UNREAD: usize = 16;

/// Finds out that the other process hangs, or that the network is gone: an HTTP/2 PING after so much silence.
///
/// Control planes on go-control-plane allow one in 30 s by custom, Istio's one in 15 s; five seconds more, so that a network which delays
/// one and not the next does not bring two too near to each other.
const PING: Duration = Duration::from_secs(35);

/// The same for one that has told us that this is too often: gRPC servers in Go allow one in five minutes unless they are told
/// otherwise, and close at the fourth.
const PING_CALMLY: Duration = Duration::from_secs(360);

/// Until a PING is answered.
const PONG: Duration = Duration::from_secs(10);

/// What is asked for on a stream.
struct Asked {
    assignments: Session,
    clusters: Clusters,
}

impl Asked {
    fn new(shared: &Shared) -> Self {
        Self { assignments: Session::new(shared.control_plane.node()), clusters: Clusters::new() }
    }
}

/// Keeps a stream up for as long as somebody waits for something; ends only by being aborted.
pub(super) async fn run(shared: Arc<Shared>, mut rng: Rng) {
    let mut asked = Asked::new(&shared);
    let (mut misses, mut ping) = (0, PING);
    loop {
        asked.assignments.want(wait_for_names(&shared).await);
        asked.clusters.want(shared.board(|board| board.clusters()));
        let mut heard = false;
        let end = match connect(&shared, ping, &mut rng).await {
            Err(trouble) => Err(trouble),
            Ok((channel, noted)) => {
                let end = follow(&shared, channel, &noted, &mut asked, &mut heard).await;
                if noted.wants_calm() && ping != PING_CALMLY {
                    ping = PING_CALMLY;
                    let control_plane = &*shared.server.address;
                    info!(control_plane, "the control plane wants fewer PINGs, and gets them");
                }
                end
            }
        };
        asked.assignments.close();
        asked.clusters.close();
        let Err(trouble) = end else { continue };
        misses = if heard { 1 } else { misses + 1 };
        shared.board(|board| board.closed(&trouble, Instant::now()));
        sleep(backoff(misses, &mut rng)).await;
    }
}

async fn wait_for_names(shared: &Shared) -> BTreeSet<String> {
    loop {
        let names = shared.board(|board| board.names());
        if !names.is_empty() {
            return names;
        }
        shared.changed.notified().await;
    }
}

/// One stream. Ends well when nobody waits for anything any more.
async fn follow(
    shared: &Shared,
    channel: Channel,
    noted: &Noted,
    asked: &mut Asked,
    heard: &mut bool,
) -> Result<(), Trouble> {
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    let (requests, queue) = mpsc::channel(MAX_UNREAD);
    // The node is told with the first.
    send(&requests, asked.assignments.open())?;
    send(&requests, asked.clusters.open())?;
    shared.board(|board| board.opened(Instant::now()));
    // Some servers send the head with the first response only: what changes until then must reach them all the same.
    let mut call = std::pin::pin!(client.stream_aggregated_resources(ReceiverStream::new(queue)));
    let mut responses: Option<Streaming<DiscoveryResponse>> = None;
    loop {
        let review = shared.board(|board| board.next_review());
        tokio::select! {
            opened = &mut call, if responses.is_none() => {
                responses = Some(opened.map_err(|status| refused(&status, noted))?.into_inner());
            }
            response = next(&mut responses, noted) => {
                let response = response?;
                *heard = true;
                take(shared, asked, &requests, response)?;
            }
            () = shared.changed.notified() => {
                let names = shared.board(|board| board.names());
                if names.is_empty() {
                    return Ok(());
                }
                send(&requests, asked.assignments.want(names))?;
                // An empty list might be taken for all that there are.
                let clusters = shared.board(|board| board.clusters());
                if !clusters.is_empty() {
                    send(&requests, asked.clusters.want(clusters))?;
                }
            }
            () = until(review) => shared.board(|board| board.review(Instant::now())),
        }
    }
}

fn take(
    shared: &Shared,
    asked: &mut Asked,
    requests: &mpsc::Sender<DiscoveryRequest>,
    response: DiscoveryResponse,
) -> Result<(), Trouble> {
    let refused = |mistakes: &BTreeMap<String, String>| {
        for (resource, error) in mistakes {
            let control_plane = &*shared.server.address;
            warn!(control_plane, resource, error, "what the control plane says is refused");
        }
    };
    if let Some(advice) = asked.clusters.take(&response) {
        refused(&advice.mistakes);
        send(requests, Some(advice.answer.clone()))?;
        shared.board(|board| board.advise(advice, Instant::now()));
        return Ok(());
    }
    let taken = asked.assignments.take(response);
    refused(&taken.mistakes);
    send(requests, taken.answer.clone())?;
    shared.board(|board| board.take(taken, Instant::now()));
    Ok(())
}

fn send(
    requests: &mpsc::Sender<DiscoveryRequest>,
    request: Option<DiscoveryRequest>,
) -> Result<(), Trouble> {
    let Some(request) = request else { return Ok(()) };
    let unread = |_| Trouble::new(ErrorKind::Timeout, "the control plane does not read");
    requests.try_send(request).map_err(unread)
}

async fn next(
    responses: &mut Option<Streaming<DiscoveryResponse>>,
    noted: &Noted,
) -> Result<DiscoveryResponse, Trouble> {
    let Some(responses) = responses else { return std::future::pending().await };
    match responses.message().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err(Trouble::new(ErrorKind::Unreachable, "the control plane ended the stream")),
        Err(status) => Err(refused(&status, noted)),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A connection, and what is noted of it. Sidecars that begin together do not all begin with the same address.
async fn connect(
    shared: &Shared,
    ping: Duration,
    rng: &mut Rng,
) -> Result<(Channel, Arc<Noted>), Trouble> {
    let server = &shared.server;
    let connecting = async {
        let mut addresses = server.addresses().await?;
        let turn = rng.below(addresses.len());
        addresses.rotate_left(turn);
        let socket = server.connect(addresses, ADDRESS_TIMEOUT, Alpn::Http2).await?;
        let scheme = if shared.control_plane.tls.is_some() { "https" } else { "http" };
        let speaking = speak(socket, scheme, &server.address, ping).await;
        speaking.map_err(|error| server.trouble(ErrorKind::Unreachable, &chain(&*error)))
    };
    let late = |_| {
        let text = format!("no connection in {CONNECT_TIMEOUT:?}");
        server.trouble(ErrorKind::Timeout, &text)
    };
    timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?
}

/// HTTP/2 on `io`. The channel's own ways to connect are not used: it would do so anew behind our back, by the system's resolver.
async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    io: S,
    scheme: &str,
    address: &str,
    ping: Duration,
) -> Result<(Channel, Arc<Noted>), BoxError> {
    let (watched, noted) = Watched::new(io);
    let mut once = Some(TokioIo::new(watched));
    let again = || io::Error::other("the connection is gone");
    let connector =
        tower::service_fn(move |_: Uri| std::future::ready(once.take().ok_or_else(again)));
    let origin = Uri::try_from(format!("{scheme}://{address}"))?;
    // It takes `https` for a wish that it should do TLS itself.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .origin(origin)
        .http2_keep_alive_interval(ping)
        .keep_alive_timeout(PONG);
    Ok((endpoint.connect_with_connector(connector).await?, noted))
}

/// What a stream ended with.
fn refused(status: &Status, noted: &Noted) -> Trouble {
    // What the control plane said itself has no cause.
    if let Some(cause) = std::error::Error::source(status) {
        return broken(cause, noted);
    }
    let kind = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Denied,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unavailable => ErrorKind::Unreachable,
        // Too long a response, and one that is no protobuf.
        Code::OutOfRange | Code::Internal => ErrorKind::Malformed,
        _ => ErrorKind::Other,
    };
    let message = super::endpoints::shortened(status.message());
    Trouble::new(
        kind,
        format!("the control plane ended the stream: {:?}: {message}", status.code()),
    )
}

/// What broke a stream that nobody has ended.
fn broken(cause: &(dyn std::error::Error + 'static), noted: &Noted) -> Trouble {
    if noted.wants_calm() {
        return Trouble::new(ErrorKind::Unreachable, "the control plane closed: too many PINGs");
    }
    let text = format!("the stream broke: {}", chain(cause));
    let mut causes = std::iter::successors(Some(cause), |cause| cause.source());
    let h2 = causes.find_map(|cause| cause.downcast_ref::<h2::Error>());
    match h2.filter(|error| !error.is_io()) {
        Some(error) if error.is_library() => Trouble::new(ErrorKind::Malformed, text),
        None if !noted.has_ended() => {
            // Nobody else closes a connection that still stands.
            let text = format!("the control plane has not answered a PING in {PONG:?}");
            Trouble::new(ErrorKind::Timeout, text)
        }
        _ => Trouble::new(ErrorKind::Unreachable, text),
    }
}

/// An error and its causes: tonic's own texts say no more than "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
