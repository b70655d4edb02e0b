use super::*;
use bytes::Bytes;
use h2::server;
use http_body_util::BodyExt;
use tokio::net::UnixStream;
use tokio::task::LocalSet;

use crate::net::BrokenBody;

type Peer = server::Connection<UnixStream, Bytes>;
type Answering = (Request<h2::RecvStream>, server::SendResponse<Bytes>);

/// Runs `test` where tasks that are not `Send` may be spawned.
fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A connection and its peer, which reads and writes whenever `next` is asked for a request.
async fn pair() -> (Http2, Peer, IntCounter) {
    let (ours, peer) = UnixStream::pair().unwrap();
    let interim = IntCounter::new("interim", "for tests").unwrap();
    let started = Http2::start(Socket::from_unix(ours), Instant::now(), interim.clone(), ());
    let (http2, peer) = tokio::join!(started, server::handshake(peer));
    (http2.unwrap(), peer.unwrap(), interim)
}

/// The next request, with the peer's connection driven by a task from then on.
async fn next(mut peer: Peer) -> Answering {
    let request = peer.accept().await.unwrap().unwrap();
    drop(tokio::task::spawn_local(async move {
        while peer.accept().await.is_some_and(|accepted| accepted.is_ok()) {}
    }));
    request
}

async fn ask(http2: &mut Http2) -> Result<UpstreamResponse, SendFailure> {
    let (head, ()) = Request::get("http://a/").body(()).unwrap().into_parts();
    let _stream = http2.open_stream();
    http2.send(&(&head).into(), RequestBody::empty()).await
}

fn head() -> Response<()> {
    Response::new(())
}

#[test]
fn a_response_that_is_dropped_resets_its_stream() {
    run(async {
        let (mut http2, peer, _) = pair().await;
        let peer = async {
            let (_, mut respond) = next(peer).await;
            let mut stream = respond.send_response(head(), false).unwrap();
            stream.send_data(Bytes::from_static(b"some"), false).unwrap();
            poll_fn(|cx| stream.poll_reset(cx)).await.unwrap()
        };
        let asking = async {
            let response = ask(&mut http2).await.unwrap();
            let mut body = response.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
        };
        let (reason, ()) = tokio::join!(peer, asking);
        assert_eq!(reason, H2Reason::CANCEL);
        assert!(!http2.is_closed());
    });
}

#[test]
fn a_response_is_whole_only_where_the_peer_has_ended_it() {
    run(async {
        for code in [H2Reason::CANCEL, H2Reason::NO_ERROR, H2Reason::INTERNAL_ERROR] {
            let (mut http2, peer, _) = pair().await;
            let peer = async {
                let (_, mut respond) = next(peer).await;
                let mut stream = respond.send_response(head(), false).unwrap();
                stream.send_data(Bytes::from_static(b"some"), false).unwrap();
                tokio::task::yield_now().await;
                stream.send_reset(code);
            };
            let asking = async {
                let collected = ask(&mut http2).await.unwrap().into_body().collect().await;
                assert!(matches!(collected, Err(BrokenBody::Http2(_))), "{code}");
            };
            let ((), ()) = tokio::join!(peer, asking);
        }
    });
}

#[test]
fn interim_answers_are_counted_and_left_out() {
    run(async {
        let (mut http2, peer, interim) = pair().await;
        let peer = async {
            let (_, mut respond) = next(peer).await;
            for _ in 0..3 {
                let early = Response::builder().status(103).body(()).unwrap();
                respond.send_informational(early).unwrap();
                tokio::task::yield_now().await;
            }
            respond.send_response(head(), true).unwrap();
        };
        let ((), response) = tokio::join!(peer, ask(&mut http2));
        let response = response.unwrap();
        assert_eq!((response.status().as_u16(), interim.get()), (200, 3));
        assert!(response.into_body().is_end_stream());
    });
}

#[test]
fn a_connection_ends_with_its_last_handle() {
    run(async {
        let (http2, mut peer, _) = pair().await;
        let clone = http2.clone();
        drop((http2, clone));
        let ended = peer.accept().await.map(|accepted| accepted.map(|_| ()));
        assert!(!matches!(ended, Some(Ok(()))), "GOAWAY and the end");
    });
}

#[test]
fn a_connection_that_was_told_to_go_takes_no_more() {
    run(async {
        let (http2, mut peer, _) = pair().await;
        assert!(!http2.is_closed() && http2.has_room());
        peer.graceful_shutdown();
        let ended = peer.accept().await.map(|accepted| accepted.map(|_| ()));
        assert!(!matches!(ended, Some(Ok(()))));
        drop(peer);
        while !http2.is_closed() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_peer_that_has_vanished_is_noticed_by_a_ping() {
    run(async {
        let (mut http2, mut peer, _) = pair().await;
        let start = Instant::now();
        let peer = async {
            let request = peer.accept().await.unwrap().unwrap();
            // It stays open and says nothing: nobody reads or writes for it.
            (request, peer)
        };
        let ((_request, _peer), failed) = tokio::join!(peer, ask(&mut http2));
        assert!(matches!(failed, Err(SendFailure::Closed)), "{failed:?}");
        assert!(http2.is_closed());
        // Three looks without a sign of it, then the PING. It has spoken before the first of them.
        assert_eq!(start.elapsed().as_secs(), 50);
    });
}
