//! A small load for the demo.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

/// Requests that [`run`] has under way at once.
const AT_ONCE: u64 = 8;

const PATHS: [&str; 3] = ["/articles/1", "/comments/1", "/flaky/1"];

/// Calls the demo's proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    address: SocketAddr,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends `count` requests, every `step`-th of a row, on one connection. How many were answered below 500.
    async fn calls(self, first: u64, step: u64, count: u64) -> anyhow::Result<u64> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driving = spawn_local(connection);
        let mut good = 0;
        for number in (first..count).step_by(usize::try_from(step)?) {
            let path = PATHS[usize::try_from(number % PATHS.len() as u64)?];
            send.ready().await?;
            let request = Request::get(path).header("host", "blog");
            let response = send.send_request(request.body(Empty::<Bytes>::new())?).await?;
            good += u64::from(!response.status().is_server_error());
            response.into_body().collect().await?;
        }
        drop(send);
        driving.await??;
        Ok(good)
    }
}

/// Sends `requests` and says how many were answered well.
pub(super) async fn run(client: &Client, requests: u64) -> u64 {
    let running: Vec<_> = (0..AT_ONCE.min(requests))
        .map(|first| spawn_local(client.calls(first, AT_ONCE, requests)))
        .collect();
    let mut good = 0;
    for task in running {
        match task.await {
            Ok(Ok(answered)) => good += answered,
            Ok(Err(error)) => tracing::error!(%error, "a connection of the demo's load broke"),
            Err(error) => tracing::error!(%error, "the demo's load broke"),
        }
    }
    good
}

/// Sends `rate` requests each second until it is aborted.
pub(super) async fn background(client: Client, rate: u32) {
    if rate == 0 {
        return;
    }
    let mut each = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut number = 0;
    loop {
        each.tick().await;
        number += 1;
        drop(spawn_local(client.calls(number, 1, number + 1)));
    }
}
