//! `outrigger demo`: the main job in one command.

mod load;
mod services;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::spawn_local;

use crate::base::address::Address;
use crate::config::load_str;
use crate::control::watch::FileWatch;
use crate::metrics::Summary;

use super::cli::DemoArgs;
use super::logging::FilterHandle;
use super::run::{Proxy, Signals};
use super::{check, logging, output, threads};

use load::Client;
use services::Service;

/// The file that the demo runs, as it stands in the repository.
const CONFIG: &str = include_str!("../../../config/demo.yaml");
const CONFIG_PATH: &str = "config/demo.yaml";

/// Of a hundred requests to services that fail so much, this many must have been answered well.
const GOOD_ENOUGH: f64 = 0.95;

/// Runs the demo.
pub(super) fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    let log = logging::start("warn");
    threads::local_runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let services = start_services().await.context("cannot start the demo's services")?;
        // Who drives it by hand wants ports to remember; whoever has them must not keep the demo from running.
        let wanted = if args.requests.is_some() { ANY } else { WANTED };
        let proxy = match start(&services, wanted, log.clone()).await {
            Err(_) if wanted != ANY => start(&services, ANY, log).await,
            started => started,
        }?;
        let blog = proxy.control.bound().into_iter().find(|bound| bound.name == "blog");
        let Some(Address::Tcp(address)) = blog.map(|bound| bound.address) else {
            bail!("the demo's listener is not bound");
        };
        match args.requests {
            Some(requests) => {
                let result = drive(&proxy, address, requests).await;
                proxy.stop().await;
                result
            }
            None => {
                explain(address, proxy.admin.as_ref());
                let load = spawn_local(load::background(Client::new(address), args.rate));
                let show = spawn_local(show_each_second(snapshot_summary(&proxy)));
                let mut watch = FileWatch::new(Path::new("/dev/null"));
                proxy.until_stopped(&mut signals, &mut watch).await;
                load.abort();
                show.abort();
                output::stdout("\n");
                proxy.stop().await;
                Ok(())
            }
        }
    })
}

/// Values of `${…}` in the demo's file.
type Ports = [(&'static str, u16)];

/// What the proxy listens on where it can.
const WANTED: &Ports = &[("BLOG_PORT", 8080), ("ADMIN_PORT", 9901)];

/// The system chooses.
const ANY: &Ports = &[("BLOG_PORT", 0), ("ADMIN_PORT", 0)];

async fn start(services: &Ports, own: &Ports, log: FilterHandle) -> anyhow::Result<Proxy> {
    let value = |name: &str| {
        let mut known = services.iter().chain(own);
        known.find(|(known, _)| *known == name).map(|(_, port)| port.to_string())
    };
    let loaded = load_str(CONFIG_PATH, CONFIG, &value);
    if loaded.config.is_none() {
        bail!("{}", check::findings(&loaded));
    }
    Proxy::start(Path::new(CONFIG_PATH), loaded, log).await
}

async fn start_services() -> std::io::Result<Vec<(&'static str, u16)>> {
    let mut ports = Vec::new();
    for (name, behaviour) in [
        ("ARTICLES_PORT", services::articles as fn(u64, &str) -> services::Act),
        ("COMMENTS_PORT", services::comments),
        ("FLAKY_PORT_1", services::flaky),
        ("FLAKY_PORT_2", services::flaky_later),
    ] {
        let service = Service::bind(behaviour).await?;
        ports.push((name, service.address()?.port()));
        drop(spawn_local(service.run()));
    }
    Ok(ports)
}

fn explain(address: SocketAddr, admin: Option<&Address>) {
    let mut text = format!(
        "outrigger runs {CONFIG_PATH} before three services. Try:\n\n  \
         curl http://{address}/articles/1\n  \
         curl http://{address}/comments/1\n  \
         curl -i http://{address}/flaky/1          # slow and failing by turns; retried\n  \
         curl -i http://{address}/nothing\n"
    );
    if let Some(admin) = admin {
        text.push_str(&format!(
            "  curl http://{admin}/metrics\n  curl http://{admin}/upstreams\n  curl http://{admin}/config\n"
        ));
    }
    text.push_str("\nCtrl-C drains and ends it.\n\n");
    output::stdout(&text);
}

/// Reads the summary of what is in force.
fn snapshot_summary(proxy: &Proxy) -> impl Fn() -> Summary + use<> {
    let snapshots = std::sync::Arc::clone(&proxy.snapshots);
    move || {
        let snapshot = snapshots.load();
        let routes = snapshot.listeners.iter().flat_map(|listener| &listener.routes);
        Summary::of(
            routes.map(|route| &route.metrics),
            snapshot.upstreams.iter().map(|upstream| &upstream.metrics),
        )
    }
}

async fn show_each_second(summary: impl Fn() -> Summary) {
    let mut each = tokio::time::interval(Duration::from_secs(1));
    loop {
        each.tick().await;
        output::stdout(&format!("\r{}   ", summary()));
    }
}

async fn drive(proxy: &Proxy, address: SocketAddr, requests: u64) -> anyhow::Result<()> {
    let answered = load::run(&Client::new(address), requests).await;
    let summary = snapshot_summary(proxy)();
    output::stdout(&format!("{summary}\n"));
    #[expect(clippy::cast_precision_loss, reason = "a count of requests of a demo")]
    let share = answered as f64 / requests.max(1) as f64;
    if share < GOOD_ENOUGH {
        bail!("only {answered} of {requests} requests were answered well");
    }
    Ok(())
}
