use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::metrics::HealthOutcome;
use crate::policy::health::HealthSettings;

const SETTINGS: HealthSettings = HealthSettings {
    interval: Duration::from_millis(20),
    timeout: Duration::from_secs(20),
    rise: 1,
    fall: 1,
};

fn http(path: &str, settings: HealthSettings) -> Check {
    let passing = [200..=299].into();
    let probe = Probe::Http { http2: false, path: path.into(), passing };
    Check { probe, host: None, tls: None, settings }
}

fn nobody() -> Rc<Listener> {
    Rc::new(|_, _, _| {})
}

/// Serves each connection with `each`.
async fn serve<F: Future<Output = ()> + 'static>(
    each: impl Fn(TcpStream) -> F + 'static,
) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(spawn_local(each(stream)));
        }
    }));
    Address::from(address)
}

/// Reads a request, and answers with these bytes before it closes.
async fn answering(answer: &'static [u8]) -> Address {
    serve(move |mut stream| async move {
        let mut request = [0; 1024];
        let _read = stream.read(&mut request).await;
        let _gone = stream.write_all(answer).await;
    })
    .await
}

async fn found(address: &Address, check: &Check) -> (HealthOutcome, String) {
    let finding = probe::probe(address, check).await;
    (finding.outcome, finding.text.into_owned())
}

#[tokio::test]
async fn an_answer_is_told_from_none_and_from_nonsense() {
    let told: [(&[u8], _, _); 6] = [
        (b"HTTP/1.1 204 No Content\r\n\r\n", HealthOutcome::Success, "status 204"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", HealthOutcome::Success, "status 200"),
        // The head decides, whatever becomes of the body.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nless", HealthOutcome::Success, "status 200"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", HealthOutcome::Status, "status 503"),
        (b"", HealthOutcome::Protocol, "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", HealthOutcome::Protocol, "the answer is not valid HTTP/1"),
    ];
    let checks = async {
        for (answer, outcome, text) in told {
            let address = answering(answer).await;
            assert_eq!(found(&address, &http("/", SETTINGS)).await, (outcome, text.to_owned()));
        }
    };
    LocalSet::new().run_until(checks).await;
}

#[tokio::test]
async fn an_answer_that_never_ends_passes_when_the_time_is_over() {
    let check = http("/", HealthSettings { timeout: Duration::from_millis(50), ..SETTINGS });
    let endless = async {
        let address = serve(|mut stream| async move {
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            std::future::pending::<()>().await;
        });
        found(&address.await, &check).await
    };
    let found = LocalSet::new().run_until(endless).await;
    assert_eq!(found, (HealthOutcome::Success, "status 200".to_owned()));
}

#[tokio::test]
async fn a_large_answer_is_not_read_to_its_end() {
    let large = async {
        let address = serve(|mut stream| async move {
            let _gone =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").await;
            while stream.write_all(&[0; 4096]).await.is_ok() {}
        });
        found(&address.await, &http("/", SETTINGS)).await
    };
    let found = LocalSet::new().run_until(large).await;
    assert_eq!(found, (HealthOutcome::Success, "status 200".to_owned()));
}

/// Counts connections, and answers all of them with 200.
async fn counting() -> (Address, Rc<Cell<usize>>, Rc<Notify>) {
    let (count, more) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    let counted = (Rc::clone(&count), Rc::clone(&more));
    let address = serve(move |mut stream| {
        counted.0.set(counted.0.get() + 1);
        counted.1.notify_one();
        async move {
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).await;
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    (address.await, count, more)
}

#[tokio::test]
async fn who_wants_the_same_shares_one_check_until_the_last_one_is_gone() {
    let shared = async {
        let checks = Checks::new(Rng::from_seed(1));
        let (address, asked, more) = counting().await;
        let heard = Rc::new(Cell::new((0, 0)));
        let listener = |which: usize| -> Rc<Listener> {
            let heard = Rc::clone(&heard);
            Rc::new(move |finding: &Finding, report: &Report, _| {
                assert_eq!(finding.passed(), Some(true));
                assert_eq!((report.verdict, report.failures), (Verdict::Healthy, 0));
                let (a, b) = heard.get();
                heard.set(if which == 0 { (a + 1, b) } else { (a, b + 1) });
            })
        };
        let first = checks.watch(&address, &http("/", SETTINGS), listener(0));
        let second = checks.watch(&address, &http("/", SETTINGS), listener(1));
        let other = checks.watch(&address, &http("/other", SETTINGS), nobody());
        assert_eq!(checks.running.borrow().len(), 2);
        drop(other);
        assert_eq!(checks.running.borrow().len(), 1);
        assert_eq!((first.verdict(), first.report().last.is_none()), (Verdict::Unknown, true));
        while heard.get().0 < 3 {
            more.notified().await;
        }
        let (a, b) = heard.get();
        assert_eq!(a, b);
        // The other one's first check may have been on its way, and one of ours is.
        assert!((a..=a + 2).contains(&asked.get()), "{a} heard, {} asked", asked.get());
        drop(first);
        while heard.get().1 < b + 2 {
            more.notified().await;
        }
        assert_eq!(heard.get().0, a);
        assert_eq!(second.report().passes, u32::try_from(heard.get().1).unwrap());
        // Known at once by whoever comes later.
        let third = checks.watch(&address, &http("/", SETTINGS), nobody());
        assert_eq!(third.verdict(), Verdict::Healthy);
        drop((second, third));
        assert!(checks.running.borrow().is_empty());
    };
    LocalSet::new().run_until(shared).await;
}

#[tokio::test]
async fn a_check_that_nobody_wants_any_more_ends_in_the_middle() {
    let ended = async {
        let checks = Checks::new(Rng::from_seed(2));
        let (asked, closed) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let told = (Rc::clone(&asked), Rc::clone(&closed));
        let address = serve(move |mut stream| {
            let (asked, closed) = (Rc::clone(&told.0), Rc::clone(&told.1));
            async move {
                let mut request = [0; 1024];
                let _read = stream.read(&mut request).await;
                asked.notify_one();
                // Its end, and nothing more.
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
                closed.notify_one();
            }
        });
        let watch = checks.watch(&address.await, &http("/", SETTINGS), nobody());
        asked.notified().await;
        drop(watch);
        closed.notified().await;
    };
    let ended =
        LocalSet::new().run_until(tokio::time::timeout(Duration::from_secs(20), ended)).await;
    assert!(ended.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn only_so_many_checks_are_under_way_at_once() {
    let many = async {
        let checks = Checks::new(Rng::from_seed(3));
        let (arrived, more) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let told = (Rc::clone(&arrived), Rc::clone(&more));
        let address = serve(move |stream| {
            told.0.set(told.0.get() + 1);
            told.1.notify_one();
            async move {
                let _held = stream;
                std::future::pending::<()>().await;
            }
        })
        .await;
        let once = HealthSettings { interval: Duration::from_secs(60), ..SETTINGS };
        let watches: Vec<_> = (0..AT_ONCE + 50)
            .map(|i| checks.watch(&address, &http(&format!("/{i}"), once), nobody()))
            .collect();
        while arrived.get() < AT_ONCE {
            more.notified().await;
        }
        assert_eq!((checks.places.available_permits(), watches.len()), (0, AT_ONCE + 50));
        // Those that end make room for those that wait.
        drop(watches.into_iter().take(AT_ONCE + 49).collect::<Vec<_>>());
    };
    LocalSet::new().run_until(many).await;
}

#[tokio::test]
async fn a_failure_of_our_own_is_counted_and_changes_nothing() {
    let local = async {
        let checks = Checks::new(Rng::from_seed(4));
        // A host that the configuration refuses: the request cannot be made.
        let mut check = http("/", SETTINGS);
        check.host = Some("a b".into());
        let (address, asked, _) = counting().await;
        let told = Rc::new(Notify::new());
        let heard = Rc::clone(&told);
        let listener: Rc<Listener> = Rc::new(move |finding: &Finding, report: &Report, before| {
            assert_eq!((finding.outcome, finding.passed()), (HealthOutcome::Local, None));
            assert_eq!((report.verdict, before), (Verdict::Unknown, Verdict::Unknown));
            heard.notify_one();
        });
        check.probe = Probe::Grpc { service: "".into() };
        let _watch = checks.watch(&address, &check, listener);
        told.notified().await;
        told.notified().await;
        assert!(asked.get() >= 2);
    };
    LocalSet::new().run_until(local).await;
}

#[tokio::test]
async fn a_refused_connection_and_one_that_hangs_have_their_own_words() {
    let words = async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed: SocketAddr = listener.local_addr().unwrap();
        drop(listener);
        let tcp = |settings| Check { probe: Probe::Tcp, host: None, tls: None, settings };
        let refused = found(&closed.into(), &tcp(SETTINGS)).await;
        assert_eq!(refused, (HealthOutcome::ConnectFailed, "connection refused".to_owned()));
        let silent = serve(|stream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
        .await;
        let short = HealthSettings { timeout: Duration::from_millis(30), ..SETTINGS };
        let late = (HealthOutcome::Timeout, "timeout after 30ms".to_owned());
        assert_eq!(found(&silent, &http("/", short)).await, late);
        assert_eq!(found(&silent, &tcp(short)).await.0, HealthOutcome::Success);
        let grpc = Check {
            probe: Probe::Grpc { service: "".into() },
            host: None,
            tls: None,
            settings: short,
        };
        assert_eq!(found(&silent, &grpc).await, late);
    };
    LocalSet::new().run_until(words).await;
}
