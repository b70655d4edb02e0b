use super::*;
use crate::base::error::Reason;
use crate::base::rng::Rng;
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::LocalSet;

const LIMITS: HeadLimits = HeadLimits { fields: 20, bytes: 4_096 };

impl Splice for Full<Bytes> {
    type Error = Infallible;
}

fn pair() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::new(Socket::from_unix(ours), LIMITS), theirs)
}

/// Answers with what the request was: method, target, body.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ()> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| ())?.to_bytes();
    let text = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
    Ok(Response::new(Full::new(text.into())))
}

/// What a caller gets who sends `sent` in pieces and closes its side at the end of all answers, and how the connection ends.
fn exchange(sent: &[u8], pieces: &mut Rng) -> impl Future<Output = (String, Result<(), Fault>)> {
    // Boxed: all of a connection, and both of its ends.
    Box::pin(exchanged(sent, pieces))
}

async fn exchanged(sent: &[u8], pieces: &mut Rng) -> (String, Result<(), Fault>) {
    let (connection, theirs) = pair();
    let tick = Tick::new(Instant::now());
    let (mut reader, mut writer) = theirs.into_split();
    let say = async {
        let mut rest = sent;
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + pieces.below(30)).min(rest.len()));
            if writer.write_all(now).await.is_err() {
                break;
            }
            rest = later;
            tokio::task::yield_now().await;
        }
        writer
    };
    let hear = async {
        let mut heard = Vec::new();
        let mut byte = [0; 1024];
        while let Ok(read @ 1..) = reader.read(&mut byte).await {
            heard.extend_from_slice(&byte[..read]);
            if heard.ends_with(b"GET /last ") {
                break;
            }
        }
        String::from_utf8(heard).unwrap()
    };
    let serve = async move {
        let served = connection.serve(&tick, echo).await;
        drop(connection);
        served
    };
    let (served, heard) = tokio::join!(serve, async {
        let (open, heard) = tokio::join!(say, hear);
        drop(open);
        heard
    });
    (heard, served)
}

fn answer(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

#[tokio::test]
async fn requests_in_any_pieces_are_answered_one_after_the_other() {
    let sent = "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\
                GET /b HTTP/1.1\r\n\r\n\
                POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n\
                GET /last HTTP/1.1\r\n\r\n";
    let expected =
        ["POST /a hello", "GET /b ", "POST /c hello!", "GET /last "].map(answer).concat();
    let mut rng = Rng::from_seed(1);
    for _ in 0..100 {
        assert_eq!(exchange(sent.as_bytes(), &mut rng).await, (expected.clone(), Ok(())));
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_ends_the_connection() {
    let mut rng = Rng::from_seed(2);
    let (heard, served) =
        exchange(b"GET /a HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nx : y\r\n\r\n", &mut rng).await;
    let Err(Fault::Refused(refusal)) = served else { panic!("{served:?}") };
    assert_eq!(refusal.reason, Reason::DownstreamProtocol);
    let (first, second) = heard.split_at(answer("GET /a ").len());
    assert_eq!(first, answer("GET /a "));
    assert!(second.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{second}");
    assert!(second.contains("\r\nx-outrigger-reason: downstream_protocol_error\r\n"), "{second}");
    assert!(second.contains("\r\nconnection: close\r\n"), "{second}");
    assert!(second.ends_with(": a field's name is not one\n"), "{second}");
}

#[tokio::test]
async fn a_caller_that_waits_is_asked_for_its_body_once_somebody_reads_it() {
    let (connection, mut theirs) = pair();
    let tick = Tick::new(Instant::now());
    let calling = async {
        let head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        theirs.write_all(head).await.unwrap();
        let mut hundred = [0; 25];
        theirs.read_exact(&mut hundred).await.unwrap();
        assert_eq!(&hundred, b"HTTP/1.1 100 Continue\r\n\r\n");
        theirs.write_all(b"hi").await.unwrap();
        let mut got = vec![0; answer("POST / hi").len()];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(got, answer("POST / hi").as_bytes());
        drop(theirs);
    };
    let (served, ()) = tokio::join!(connection.serve(&tick, echo), calling);
    assert_eq!(served, Ok(()));
}

#[tokio::test]
async fn a_caller_that_waits_and_is_refused_is_not_asked() {
    let (connection, mut theirs) = pair();
    let tick = Tick::new(Instant::now());
    let refuse = |_: Request<Incoming>| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"no")));
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        Ok::<_, Infallible>(response)
    };
    let calling = async {
        let head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        theirs.write_all(head).await.unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        drop(theirs);
    };
    let (served, ()) = tokio::join!(connection.serve(&tick, refuse), calling);
    assert_eq!(served, Ok(()));
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_request_with_it() {
    let (connection, mut theirs) = pair();
    let tick = Tick::new(Instant::now());
    let never = |request: Request<Incoming>| async move {
        let _held = request;
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>().await
    };
    let calling = async {
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        drop(theirs);
    };
    let (served, ()) = tokio::join!(connection.serve(&tick, never), calling);
    assert_eq!(served, Err(Fault::Gone));
}

#[tokio::test]
async fn an_ending_connection_closes_at_rest_and_answers_what_has_begun() {
    let tick = Tick::new(Instant::now());
    let (connection, mut theirs) = pair();
    connection.end();
    assert_eq!(connection.serve(&tick, echo).await, Ok(()));
    assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);

    let (connection, mut theirs) = pair();
    let calling = async {
        theirs.write_all(b"GET /a HTTP/1.1\r\n").await.unwrap();
        while connection.wire.borrow().unread_length() == 0 {
            tokio::task::yield_now().await;
        }
        connection.end();
        theirs.write_all(b"\r\nGET /b HTTP/1.1\r\n\r\n").await.unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).await.unwrap();
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nGET /a ";
        assert_eq!(got, text, "and nothing of the second");
        drop(theirs);
    };
    let (served, ()) = tokio::join!(connection.serve(&tick, echo), calling);
    assert_eq!(served, Ok(()));
}

#[tokio::test]
async fn a_body_of_an_earlier_request_reads_nothing_of_a_later_one() {
    let (connection, mut theirs) = pair();
    let tick = Tick::new(Instant::now());
    let kept = Rc::new(RefCell::new(None));
    let keep = |request: Request<Incoming>| {
        let earlier = kept.borrow_mut().replace(request.into_body());
        async move {
            if let Some(mut earlier) = earlier {
                assert!(earlier.frame().await.unwrap().is_err());
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    };
    let calling = async {
        theirs
            .write_all(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx".repeat(2).as_slice())
            .await
            .unwrap();
        let mut got = vec![0; 2 * answer("").len()];
        theirs.read_exact(&mut got).await.unwrap();
        drop(theirs);
    };
    LocalSet::new()
        .run_until(async {
            let (served, ()) = tokio::join!(connection.serve(&tick, keep), calling);
            assert_eq!(served, Ok(()));
        })
        .await;
}

#[tokio::test]
async fn what_comes_while_an_answer_goes_out_is_not_a_head_that_is_late() {
    const LENGTH: usize = 4 << 20;
    let (connection, mut theirs) = pair();
    let tick = Tick::new(Instant::now());
    let large = async |_| Ok::<_, ()>(Response::new(Full::new(Bytes::from(vec![b'x'; LENGTH]))));
    theirs.write_all(b"GET /a HTTP/1.1\r\n\r\n\r\nGE").await.unwrap();
    let mut serving = pin!(connection.serve(&tick, large));
    let mut poll = async || poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_ready())).await;
    let mut got = Vec::new();
    // The body was given away whole with its first piece; far less than half of it fits into the sockets.
    while got.len() < LENGTH / 2 {
        assert!(!poll().await && !connection.has_part_of_head());
        let mut piece = [0; 65_536];
        if let Ok(read) = theirs.try_read(&mut piece) {
            got.extend_from_slice(&piece[..read]);
        }
        tokio::task::yield_now().await;
    }
    while !connection.has_part_of_head() {
        assert!(!poll().await);
        let _rest = theirs.try_read(&mut [0; 1_024]);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn empty_lines_are_no_head_that_is_late() {
    let (connection, mut theirs) = pair();
    let tick = Tick::new(Instant::now());
    theirs.write_all(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\r\n").await.unwrap();
    let mut serving = pin!(connection.serve(&tick, echo));
    let mut poll = async || poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_ready())).await;
    let mut answered = Vec::new();
    while answered.len() < answer("POST /a hi").len() || !connection.awaits_head.get() {
        assert!(!poll().await);
        let _none_yet = theirs.try_read_buf(&mut answered);
        tokio::task::yield_now().await;
    }
    assert_eq!(String::from_utf8(answered).unwrap(), answer("POST /a hi"));
    assert!(connection.wire.borrow().unread_length() > 0 && !connection.has_part_of_head());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_reads_ends_as_well() {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &ours, &[b'x'; 65_536]).is_ok() {}
    let ours = UnixStream::from_std(ours).unwrap();
    let connection = Connection::new(Socket::from_unix(ours), LIMITS);
    let tick = Tick::new(Instant::now());
    let mut refusing = pin!(connection.refuse(&LATE, &tick));
    let mut poll = async || poll_fn(|cx| Poll::Ready(refusing.as_mut().poll(cx).is_ready())).await;
    assert!(!poll().await);
    tokio::time::advance(LINGER.0 * 2).await;
    tick.advance(Instant::now());
    assert!(poll().await);
}
