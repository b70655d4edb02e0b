//! HTTP/2 by hand, frame by frame, for upstreams that misbehave; and a client on the h2 crate.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

/// `:status: 200` in HPACK.
const STATUS_200: u8 = 0x88;

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The server's side of a connection.
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Reads the preface and sends SETTINGS, with a limit of streams where there is one.
    pub fn accept(mut stream: TcpStream, max_streams: Option<u32>) -> Option<Self> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).ok()?;
        assert!(preface.starts_with(b"PRI * HTTP/2.0"));
        let mut raw = Self { stream };
        let settings = max_streams
            .map(|max| [&[0, 3][..], &max.to_be_bytes()[..]].concat())
            .unwrap_or_default();
        raw.send(SETTINGS, 0, 0, &settings);
        Some(raw)
    }

    /// A connection that has ended.
    pub fn ended() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // A peer that is gone is found out by reading.
        let _gone = self.stream.write_all(&[&head, payload].concat());
    }

    /// The next frame; acknowledges SETTINGS and PING by itself. `None` at the end.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        match frame.kind {
            SETTINGS | PING if frame.flags & ACK == 0 => {
                let back = if frame.kind == PING { frame.payload.clone() } else { Vec::new() };
                self.send(frame.kind, ACK, 0, &back);
            }
            _ => {}
        }
        Some(frame)
    }

    /// The stream of the next request, read to its end.
    pub fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next()?;
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Some(frame.stream);
            }
        }
    }

    /// Waits for a frame of `kind`.
    pub fn wait(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    pub fn answer(&mut self, stream: u32, body: &str) {
        self.send(HEADERS, END_HEADERS, stream, &[STATUS_200]);
        self.send(DATA, END_STREAM, stream, body.as_bytes());
    }

    /// The head of an answer whose body is still to come.
    pub fn answer_head(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[STATUS_200]);
    }

    pub fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// No stream above `last` was looked at.
    pub fn go_away(&mut self, last: u32, code: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
    }

    /// Answers every request until the end.
    pub fn serve(&mut self, body: &str) {
        while let Some(stream) = self.request() {
            self.answer(stream, body);
        }
    }
}

/// Runs a client to its end, with what it spawns.
pub fn run<F: Future>(client: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(crate::support::PATIENCE, client).await.unwrap()
    })
}

/// A connection with prior knowledge.
pub async fn connect(to: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let handshake = h2::client::Builder::new()
        .initial_window_size(1 << 16)
        // One stream that is not read must not hold back the others.
        .initial_connection_window_size(1 << 20)
        // Streams wait for the peer's SETTINGS: of those that are opened before, it refuses what is too many.
        .initial_max_send_streams(0)
        // Many small frames may wait.
        .data_frame_budget(1 << 40)
        .handshake(stream);
    let (send, connection) = handshake.await.unwrap();
    drop(tokio::task::spawn_local(async move {
        let _ended = connection.await;
    }));
    send
}

/// What came back, whole.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).unwrap()
}

pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}")).body(()).unwrap()
}

/// Sends a request whole, with trailers where there are some.
pub async fn ask(
    send: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<Answer, h2::Error> {
    let mut send = send.clone().ready().await?;
    let alone = body.is_empty() && trailers.is_none();
    let (response, mut stream) = send.send_request(request, alone)?;
    let body = Bytes::copy_from_slice(body);
    if !alone {
        let ends = trailers.is_none();
        drop(tokio::task::spawn_local(async move {
            let _refused = send_all(&mut stream, body, ends).await;
            if let Some(trailers) = trailers {
                let _refused = stream.send_trailers(trailers);
            }
        }));
    }
    let (head, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend(data);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { head: Response::from_parts(head, ()), body, trailers })
}

/// Sends as the window allows. Returns how much went out.
pub async fn send_all(
    stream: &mut h2::SendStream<Bytes>,
    mut body: Bytes,
    ends: bool,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Ok(());
        };
        let piece = body.split_to(room?.min(body.len()));
        stream.send_data(piece, ends && body.is_empty())?;
    }
    Ok(())
}
