//! The bar for discovery: 10 000 endpoints in a file, 1 % of them replaced each second. The control thread takes less than a
//! fifth of a core, and requests do not feel it: prints its share and the p99 of requests with and without. The list is written
//! each second in both cases; only where it goes differs.
//!
//! `cargo bench --bench discovery`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench"
)]

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use support::{Connection, Proxy};
use traffic::{ok, pause};

const ENDPOINTS: u32 = 10_000;
/// Of each second.
const REPLACED: u32 = ENDPOINTS / 100;
/// Of each measurement.
const TIME: Duration = Duration::from_secs(10);
/// Measurements of each kind, by turns.
const ROUNDS: u32 = 3;
/// The file that the proxy reads.
const WATCHED: &str = "articles.yaml";
/// Between requests.
const GAP: Duration = Duration::from_millis(5);
/// What the clock of `/proc` counts in a second.
const TICKS: f64 = 100.0;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let port = service();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(WATCHED);
    write(&path, 0, port);
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\nlisteners:\n  outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ to: articles \
         }}] }}\nupstreams:\n  articles: {{ discover: \"file://{}\" }}\n",
        path.display()
    ));
    proxy.wait_metrics("all endpoints", |metrics| {
        metrics.sum("outrigger_upstream_endpoints", &[]) > f64::from(ENDPOINTS) - 0.5
    });
    println!("endpoints       control thread   other threads   requests   failed   p50       p99");
    let (mut still, mut moving) = (Vec::new(), Vec::new());
    let mut first = 0;
    for _ in 0..ROUNDS {
        still.push(measure(&proxy, &dir.path().join("comments.yaml"), port, &mut first));
        moving.push(measure(&proxy, &path, port, &mut first));
    }
    let updates = proxy.metrics().sum("outrigger_discovery_updates_total", &[]);
    println!("{updates} sets were published");
    // Whatever else the machine does only adds: the lowest of each says most.
    let p99 = |rounds: &[Measured]| rounds.iter().map(|round| round.p99).min().unwrap();
    let unseen = p99(&moving) < p99(&still).mul_f64(1.5) + Duration::from_micros(500);
    let cheap = moving.iter().all(|round| round.control < 0.2);
    let passed = cheap && unseen && moving.iter().all(|round| round.failed == 0);
    println!("{}", if passed { "pass" } else { "FAIL" });
}

struct Measured {
    /// Share of a core.
    control: f64,
    failed: usize,
    p99: Duration,
}

/// Measures while the list is written to `path`, from endpoint `first` on, which moves with each list that is read.
fn measure(proxy: &Proxy, path: &Path, port: u16, first: &mut u32) -> Measured {
    let to = proxy.address("outbound");
    let (before, start) = (ticks(proxy), Instant::now());
    let (mut took, failed) = std::thread::scope(|scope| {
        let caller = scope.spawn(move || {
            let mut connection = Connection::open(to);
            let (mut took, mut failed) = (Vec::new(), 0);
            while start.elapsed() < TIME {
                let sent = Instant::now();
                connection.request("GET", "/", &[], b"");
                failed += usize::from(connection.reply().status != 200);
                took.push(sent.elapsed());
                pause(u64::try_from(GAP.as_millis()).unwrap());
            }
            (took, failed)
        });
        for _ in 0..TIME.as_secs() {
            if path.ends_with(WATCHED) {
                *first += REPLACED;
            }
            write(path, *first, port);
            pause(1_000);
        }
        caller.join().unwrap()
    });
    let (after, elapsed) = (ticks(proxy), start.elapsed().as_secs_f64());
    let share = |after: f64, before: f64| (after - before) / TICKS / elapsed;
    let (control, other) = (share(after.0, before.0), share(after.1, before.1));
    took.sort();
    let at = |part: usize| took[took.len() * part / 100];
    let name = if path.ends_with(WATCHED) { "1 % a second" } else { "unchanged" };
    println!(
        "{name:<15} {:>5.1} %          {:>5.1} %         {:<10} {failed:<8} {:<9.3?} {:.3?}",
        control * 100.0,
        other * 100.0,
        took.len(),
        at(50),
        at(99)
    );
    Measured { control, failed, p99: at(99) }
}

/// Processor time of the control thread, and of all threads but it: user and system, in ticks.
fn ticks(proxy: &Proxy) -> (f64, f64) {
    let of = |path: &str| -> f64 {
        let stat = fs::read_to_string(path).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    let pid = proxy.pid();
    let control = of(&format!("/proc/{pid}/task/{pid}/stat"));
    (control, of(&format!("/proc/{pid}/stat")) - control)
}

/// The list whose first endpoint is the one of number `first`: each is an address of 127/8 that the service listens at.
fn write(path: &Path, first: u32, port: u16) {
    let line = |number: u32| {
        let [_, a, b, c] = (number + (1 << 16)).to_be_bytes();
        format!(
            "- {{ address: \"127.{a}.{b}.{c}:{port}\", zone: eu-1a, labels: {{ version: v2 }} }}\n"
        )
    };
    let list: String = (first..first + ENDPOINTS).map(line).collect();
    let next = path.with_extension("next");
    fs::write(&next, list).unwrap();
    fs::rename(next, path).unwrap();
}

/// Answers at every address of 127/8. One thread serves all connections: what it costs to end a hundred threads, as the
/// connections to removed endpoints end, would be seen in the requests of that moment.
fn service() -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    port
}

async fn serve(mut stream: TcpStream) {
    let mut request = Vec::new();
    while matches!(stream.read_buf(&mut request).await, Ok(read) if read > 0) {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(&ok("ok")).await.is_err() {
                return;
            }
        }
    }
}
