//! `outrigger health`: asks a running proxy whether it is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tower::Service;

use crate::base::address::Address;
use crate::config::load_file;
use crate::net::{Connect, Target};

use super::threads;

/// Container engines give a health check some seconds; an answer from this machine takes a millisecond.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Fails unless `/ready` of the admin address in `path` answers 200.
pub(super) fn health(path: &Path) -> anyhow::Result<()> {
    let Some(config) = load_file(path).config else { bail!("{} is not valid", path.display()) };
    let Some(admin) = config.admin else { bail!("{} has no `admin`", path.display()) };
    let address = reachable(admin.bind);
    let asked = async {
        tokio::time::timeout(TIMEOUT, ask(&address)).await.context("no answer within 2 s")?
    };
    threads::local_runtime()?.block_on(asked)
}

/// What is bound to every address is reached on this machine's own.
fn reachable(bind: Address) -> Address {
    match bind {
        Address::Tcp(mut address) if address.ip().is_unspecified() => {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            Address::Tcp(address)
        }
        bind => bind,
    }
}

async fn ask(address: &Address) -> anyhow::Result<()> {
    let target = Target { address: address.clone(), timeout: TIMEOUT, tls: None };
    let socket =
        Connect.call(target).await.with_context(|| format!("cannot connect to {address}"))?;
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let driving = tokio::task::spawn_local(connection);
    let request = http::Request::get("/ready").header("host", "localhost");
    let response = send.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
    let status = response.status();
    let text = response.into_body().collect().await?.to_bytes();
    driving.abort();
    if !status.is_success() {
        bail!("not ready: {}", String::from_utf8_lossy(&text).trim());
    }
    Ok(())
}
