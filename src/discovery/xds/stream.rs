//! The connection to a control plane: made, used, and made again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tracing::warn;

use super::super::ErrorKind;
use super::super::backoff::backoff;
use super::super::last_good::Trouble;
use super::Shared;
use super::session::Session;
use crate::base::rng::Rng;

/// Name, TCP and the HTTP/2 preface together. It costs no request, so it may be generous.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A response may be so long, bytes: 10 000 endpoints with metadata take some 3 MiB. gRPC's own default of 4 MiB is too near.
const MAX_RESPONSE: usize = 16 << 20;

/// Requests that may wait for a control plane that does not read; one more ends the stream.
const MAX_UNREAD: usize = 16;

/// Finds out that the other machine is gone when nothing is sent: after 30 s without a byte the kernel asks, three times,
/// 10 s apart. Costs a control plane nothing.
const TCP_KEEPALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Finds out that the other process hangs: an HTTP/2 PING after six minutes without a frame. gRPC servers in Go close
/// connections on which they are pinged more often than every five, unless they are told otherwise.
const PING: (Duration, Duration) = (Duration::from_secs(360), Duration::from_secs(20));

/// Keeps a stream up for as long as somebody waits for something; ends only by being aborted.
pub(super) async fn run(shared: Arc<Shared>, mut rng: Rng) {
    let mut session = Session::new(shared.control_plane.node());
    let mut misses = 0;
    loop {
        session.want(wait_for_names(&shared).await);
        let mut heard = false;
        let end = follow(&shared, &mut session, &mut heard).await;
        session.close();
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
async fn follow(shared: &Shared, session: &mut Session, heard: &mut bool) -> Result<(), Trouble> {
    let channel = connect(shared).await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    let (requests, queue) = mpsc::channel(MAX_UNREAD);
    send(&requests, session.open())?;
    shared.board(|board| board.opened(Instant::now()));
    // Some servers send the head with the first response only: what changes until then must reach them all the same.
    let mut call = std::pin::pin!(client.stream_aggregated_resources(ReceiverStream::new(queue)));
    let mut responses: Option<Streaming<DiscoveryResponse>> = None;
    loop {
        let review = shared.board(|board| board.next_review());
        tokio::select! {
            opened = &mut call, if responses.is_none() => {
                responses = Some(opened.map_err(|status| refused(&status))?.into_inner());
            }
            response = next(&mut responses) => {
                let response = response?;
                *heard = true;
                take(shared, session, &requests, response)?;
            }
            () = shared.changed.notified() => {
                let names = shared.board(|board| board.names());
                if names.is_empty() {
                    return Ok(());
                }
                send(&requests, session.want(names))?;
            }
            () = until(review) => shared.board(|board| board.review(Instant::now())),
        }
    }
}

fn take(
    shared: &Shared,
    session: &mut Session,
    requests: &mpsc::Sender<DiscoveryRequest>,
    response: DiscoveryResponse,
) -> Result<(), Trouble> {
    let taken = session.take(response);
    for (resource, error) in &taken.mistakes {
        let control_plane = &*shared.control_plane.host;
        warn!(control_plane, resource, error, "what the control plane says is refused");
    }
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
) -> Result<DiscoveryResponse, Trouble> {
    let Some(responses) = responses else { return std::future::pending().await };
    match responses.message().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err(Trouble::new(ErrorKind::Unreachable, "the control plane ended the stream")),
        Err(status) => Err(refused(&status)),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn connect(shared: &Shared) -> Result<Channel, Trouble> {
    let plane = &shared.control_plane;
    let unreachable = |error: &dyn std::error::Error| {
        Trouble::new(ErrorKind::Unreachable, format!("connect: {}", chain(error)))
    };
    let (idle, interval, retries) = TCP_KEEPALIVE;
    let (ping, pong) = PING;
    let endpoint = Endpoint::from_shared(format!("http://{}:{}", plane.host, plane.port))
        .map_err(|error| unreachable(&error))?
        .tcp_nodelay(true)
        .tcp_keepalive(Some(idle))
        .tcp_keepalive_interval(Some(interval))
        .tcp_keepalive_retries(Some(retries))
        .http2_keep_alive_interval(ping)
        .keep_alive_timeout(pong);
    match timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| unreachable(&error)),
        Err(_) => {
            let text = format!("connect: no answer in {CONNECT_TIMEOUT:?}");
            Err(Trouble::new(ErrorKind::Timeout, text))
        }
    }
}

/// What a stream ended with.
fn refused(status: &Status) -> Trouble {
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
