use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::super::{ControlPlane, Plane};
use super::*;
use crate::discovery::dns::Resolver;

fn shared() -> Arc<Shared> {
    let control_plane = ControlPlane {
        host: "127.0.0.1".to_owned(),
        port: 1,
        tls: None,
        node: "one".to_owned(),
        cluster: "orders".to_owned(),
        zone: None,
    };
    let resolver = Arc::new(Resolver::new(&[], &[]).unwrap());
    Plane::new(control_plane, resolver).unwrap().shared
}

/// A stream on `io` until it ends, and why.
async fn stream_over<S>(io: S, ping: Duration) -> (Trouble, Arc<Noted>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (channel, noted) = speak(io, "http", "plane.test:1", ping).await.unwrap();
    let shared = shared();
    let mut asked = Asked::new(&shared);
    asked.assignments.want(["articles".to_owned()].into());
    let end = follow(&shared, channel, &noted, &mut asked, &mut false).await;
    (end.unwrap_err(), noted)
}

/// Answers PINGs until `hangs`, and then nothing any more.
async fn serve(io: DuplexStream, hangs: Duration) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    let mut requests = Vec::new();
    let serving = async {
        while let Some(request) = connection.accept().await {
            requests.push(request.unwrap());
        }
    };
    let _late = timeout(hangs, serving).await;
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_hangs_is_found_out_within_a_minute() {
    let (theirs, ours) = duplex(64 * 1024);
    // Two PINGs are answered.
    let server = tokio::spawn(serve(theirs, Duration::from_secs(90)));
    let start = Instant::now();
    let (trouble, noted) = stream_over(ours, PING).await;
    let took = start.elapsed();
    assert_eq!(trouble.kind, ErrorKind::Timeout, "{trouble:?}");
    assert_eq!(trouble.text, "the control plane has not answered a PING in 10s");
    assert!(!noted.has_ended() && !noted.wants_calm());
    assert!(took >= Duration::from_secs(3 * 35 + 10), "{took:?}");
    assert!(took < Duration::from_secs(3 * 35 + 11), "{took:?}");
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_closes_has_not_hung() {
    let (theirs, ours) = duplex(64 * 1024);
    let server = tokio::spawn(serve(theirs, Duration::from_secs(3_600)));
    let closing = async {
        sleep(Duration::from_secs(10)).await;
        server.abort();
    };
    let ((trouble, noted), ()) = tokio::join!(stream_over(ours, PING), closing);
    assert_eq!(trouble.kind, ErrorKind::Unreachable, "{trouble:?}");
    assert!(noted.has_ended());
}

#[tokio::test(start_paused = true)]
async fn too_many_pings_are_understood() {
    let (theirs, ours) = duplex(64 * 1024);
    // As gRPC servers in Go say it.
    tokio::spawn(async move {
        let mut io = theirs;
        // Its SETTINGS, and some time later the answer to a PING that is one too many.
        io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let head = [0, 0, 22, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];
        let frame = [&head[..], b"too_many_pings"].concat();
        io.write_all(&frame).await.unwrap();
        // Our own frames are taken in, as a socket's buffer does.
        sleep(Duration::from_secs(1)).await;
    });
    let (trouble, noted) = stream_over(ours, PING).await;
    assert!(noted.wants_calm());
    assert_eq!(trouble.kind, ErrorKind::Unreachable, "{trouble:?}");
    assert_eq!(trouble.text, "the control plane closed: too many PINGs");
}
