//! The demo's services: real HTTP servers on loopback ports, small enough to read.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What a service does with its n-th request.
type Behaviour = fn(u64, &str) -> Act;

/// One answer.
pub(super) struct Act {
    after: Duration,
    status: StatusCode,
    body: String,
}

/// A service that listens.
pub(super) struct Service {
    listener: TcpListener,
    behaviour: Behaviour,
}

impl Service {
    /// Binds a loopback port that the system chooses.
    pub(super) async fn bind(behaviour: Behaviour) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { listener, behaviour })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever.
    pub(super) async fn run(self) {
        let count = Rc::new(std::cell::Cell::new(0_u64));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else { continue };
            let (count, behaviour) = (Rc::clone(&count), self.behaviour);
            let service = service_fn(move |request: Request<Incoming>| {
                count.set(count.get() + 1);
                let act = behaviour(count.get(), request.uri().path());
                async move {
                    tokio::time::sleep(act.after).await;
                    let mut response = Response::new(Full::new(Bytes::from(act.body)));
                    *response.status_mut() = act.status;
                    Ok::<_, Infallible>(response)
                }
            });
            drop(tokio::task::spawn_local(async move {
                // A caller that hangs up is no concern of a demonstration.
                let _ended =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }));
        }
    }
}

fn ok(after: Duration, body: String) -> Act {
    Act { after, status: StatusCode::OK, body }
}

/// Answers at once.
pub(super) fn articles(_: u64, path: &str) -> Act {
    let body = format!("{{\"path\":\"{path}\",\"title\":\"Outriggers keep canoes upright\"}}\n");
    ok(Duration::ZERO, body)
}

/// Answers after a few milliseconds.
pub(super) fn comments(_: u64, path: &str) -> Act {
    let body = format!("{{\"path\":\"{path}\",\"comments\":[\"They do.\"]}}\n");
    ok(Duration::from_millis(3), body)
}

/// Of ten requests, two are slow and two fail, never two of them in a row: four in ten are bad, and asking again helps.
pub(super) fn flaky(count: u64, path: &str) -> Act {
    match count % 10 {
        2 | 7 => ok(Duration::from_millis(400), format!("{{\"path\":\"{path}\",\"slow\":true}}\n")),
        4 | 9 => Act {
            after: Duration::ZERO,
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: "overloaded\n".to_owned(),
        },
        _ => ok(Duration::from_millis(2), format!("{{\"path\":\"{path}\"}}\n")),
    }
}

/// The same, half a turn later: two of one service rarely fail together.
pub(super) fn flaky_later(count: u64, path: &str) -> Act {
    flaky(count + 5, path)
}
