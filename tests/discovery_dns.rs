//! DNS discovery against a real name server on a loopback socket, whose answers change while it runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use outrigger::base::rng::Rng;
use outrigger::discovery::dns::{Dns, Resolver, TtlRange};
use outrigger::discovery::{ErrorKind, Provider, Standing, Subscription, spawn};

/// A range in which the next question comes nearly at once, whatever the TTL says.
const HURRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(20));

/// What a name server says to one question.
#[derive(Clone)]
enum Reply {
    /// These addresses, for so many seconds.
    Addresses(Vec<&'static str>, u32),
    /// As `Addresses`, but over UDP only a truncated head.
    OverTcp(Vec<IpAddr>),
    /// An alias that counts for one second, of a name with this address for an hour.
    Alias(&'static str),
    /// The name does not exist.
    NxDomain,
    /// The name has no such records.
    NoData,
    /// The server could not find out.
    ServFail,
    /// No answer.
    Silence,
}

/// Replies by name and type; any other name does not exist.
type Zone = Arc<Mutex<HashMap<(String, RecordType), Reply>>>;

/// A name server on 127.0.0.1, UDP and TCP; ends when it is dropped.
struct NameServer {
    address: SocketAddr,
    zone: Zone,
    /// How many questions came.
    asked: watch::Receiver<usize>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl NameServer {
    async fn start() -> Self {
        let zone = Zone::default();
        let (count, asked) = watch::channel(0);
        let count = Arc::new(count);
        // The system gives a port for UDP; where TCP has it in use, it gives another.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let over_udp = tokio::spawn(serve_udp(udp, zone.clone(), count.clone()));
        let over_tcp = tokio::spawn(serve_tcp(tcp, zone.clone(), count));
        let _tasks = [over_udp, over_tcp].map(AbortOnDropHandle::new);
        Self { address, zone, asked, _tasks }
    }

    /// From now on `name` is answered so.
    fn set(&self, name: &str, v4: Reply, v6: Reply) {
        let mut zone = self.zone.lock().unwrap();
        zone.insert((name.to_owned(), RecordType::A), v4);
        zone.insert((name.to_owned(), RecordType::AAAA), v6);
    }

    /// Waits until `condition` holds, looking again at every question that comes.
    async fn until(&self, condition: impl Fn() -> bool) {
        let mut asked = self.asked.clone();
        soon(asked.wait_for(|_| condition())).await.unwrap();
    }
}

async fn serve_udp(socket: UdpSocket, zone: Zone, count: Arc<watch::Sender<usize>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(reply) = reply(&buffer[..length], &zone, false) {
            socket.send_to(&reply, peer).await.unwrap();
        }
        count.send_modify(|count| *count += 1);
    }
}

async fn serve_tcp(listener: TcpListener, zone: Zone, count: Arc<watch::Sender<usize>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve_stream(stream, zone.clone(), count.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Zone, count: Arc<watch::Sender<usize>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await.unwrap();
        if let Some(reply) = reply(&question, &zone, true) {
            stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
        count.send_modify(|count| *count += 1);
    }
}

/// The bytes of the answer; `None` for silence.
fn reply(question: &[u8], zone: &Zone, tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let key = (query.name().to_ascii().to_lowercase(), query.query_type());
    let reply = zone.lock().unwrap().get(&key).cloned().unwrap_or(Reply::NxDomain);

    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.add_query(query.clone());
    let record = |ip: IpAddr, ttl| Record::from_rdata(query.name().clone(), ttl, RData::from(ip));
    match reply {
        Reply::Addresses(texts, ttl) => {
            let ips = texts.into_iter().map(|text| text.parse().unwrap());
            message.add_answers(ips.map(|ip| record(ip, ttl)));
        }
        Reply::OverTcp(ips) if tcp => {
            message.add_answers(ips.into_iter().map(|ip| record(ip, 60)));
        }
        Reply::OverTcp(_) => message.metadata.truncation = true,
        Reply::Alias(text) => {
            let target = Name::from_ascii("target.test.").unwrap();
            let alias = RData::CNAME(CNAME(target.clone()));
            message.add_answer(Record::from_rdata(query.name().clone(), 1, alias));
            let address = RData::from(text.parse::<IpAddr>().unwrap());
            message.add_answer(Record::from_rdata(target, 3_600, address));
        }
        Reply::NxDomain => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(start_of_authority());
        }
        Reply::NoData => {
            message.add_authority(start_of_authority());
        }
        Reply::ServFail => message.metadata.response_code = ResponseCode::ServFail,
        Reply::Silence => return None,
    }
    Some(message.to_vec().unwrap())
}

/// Lets negative answers count for an hour.
fn start_of_authority() -> Record {
    let zone = Name::from_ascii("test.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 0, 0, 0, 3_600);
    Record::from_rdata(zone, 3_600, RData::SOA(soa))
}

fn a(addresses: &[&'static str]) -> Reply {
    Reply::Addresses(addresses.to_vec(), 3_600)
}

fn resolver(servers: &[&NameServer], search: &[&str]) -> Arc<Resolver> {
    let servers: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let search: Vec<String> = search.iter().map(ToString::to_string).collect();
    Arc::new(Resolver::new(&servers, &search).unwrap())
}

fn discover(resolver: &Arc<Resolver>, host: &str, ttl: (Duration, Duration)) -> Subscription {
    let ttl = TtlRange::new(ttl.0, ttl.1);
    let dns = Dns::new(host, 80, ttl, resolver.clone()).unwrap();
    spawn(Provider::Dns(dns), Rng::from_seed(1))
}

/// The next set that is published.
async fn next(running: &mut Subscription) -> Vec<String> {
    soon(running.updates.changed()).await.unwrap();
    let discovered = running.updates.borrow_and_update();
    assert!(discovered.answered);
    discovered.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

/// Fails a test that would wait for ever.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
}

#[tokio::test]
async fn an_answer_is_asked_again_when_its_ttl_is_up() {
    let server = NameServer::start().await;
    // The range alone would let it stand for an hour.
    let range = (Duration::from_millis(10), Duration::from_secs(3_600));
    server.set("a.test.", Reply::Addresses(vec!["192.0.2.2", "192.0.2.1"], 1), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", range);
    assert!(!running.updates.borrow().answered);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80", "192.0.2.2:80"]);

    server.set("a.test.", Reply::Addresses(vec!["192.0.2.3"], 1), Reply::NoData);
    assert_eq!(next(&mut running).await, ["192.0.2.3:80"]);
    assert_eq!(running.status.updates(), 2);
    assert_eq!(running.status.standing(), Standing::Fresh);
}

#[tokio::test]
async fn the_ttl_of_an_alias_counts_too() {
    let server = NameServer::start().await;
    let range = (Duration::from_millis(10), Duration::from_secs(3_600));
    server.set("a.test.", Reply::Alias("192.0.2.1"), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", range);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);

    server.set("a.test.", Reply::Alias("192.0.2.2"), Reply::NoData);
    assert_eq!(next(&mut running).await, ["192.0.2.2:80"]);
}

#[tokio::test]
async fn the_range_wins_over_the_ttl_and_nothing_below_it_caches() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["192.0.2.1"]), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);

    server.set("a.test.", a(&["192.0.2.2"]), Reply::NoData);
    assert_eq!(next(&mut running).await, ["192.0.2.2:80"]);
}

#[tokio::test]
async fn an_answer_that_changes_nothing_is_not_published() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["192.0.2.1", "192.0.2.2"]), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    next(&mut running).await;

    server.set("a.test.", a(&["192.0.2.2", "192.0.2.1"]), Reply::NoData);
    let asked = *server.asked.borrow();
    // Two questions a lookup: the third lookup comes after the second was taken in.
    server.until(|| *server.asked.borrow() > asked + 6).await;
    assert!(!running.updates.has_changed().unwrap());
    assert_eq!(running.status.updates(), 1);
}

#[tokio::test]
async fn servfail_keeps_the_last_good_set() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["192.0.2.1"]), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);

    server.set("a.test.", Reply::ServFail, Reply::ServFail);
    server.until(|| running.status.errors(ErrorKind::ServFail) >= 2).await;
    assert!(!running.updates.has_changed().unwrap());
    assert_eq!(running.updates.borrow().endpoints.len(), 1);
    assert!(running.status.is_stale());
    let error = running.status.last_error().unwrap();
    assert!(error.text.contains("a.test."), "{}", error.text);

    server.set("a.test.", a(&["192.0.2.2"]), Reply::NoData);
    assert_eq!(next(&mut running).await, ["192.0.2.2:80"]);
    assert!(!running.status.is_stale());
}

#[tokio::test]
async fn a_removed_name_is_believed_the_third_time() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["192.0.2.1"]), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);

    server.set("a.test.", Reply::NxDomain, Reply::NxDomain);
    assert_eq!(next(&mut running).await, [""; 0]);
    assert_eq!(running.status.errors(ErrorKind::NxDomain), 3);
    assert_eq!(running.status.standing(), Standing::Empty);

    server.set("a.test.", a(&["192.0.2.2"]), Reply::NoData);
    assert_eq!(next(&mut running).await, ["192.0.2.2:80"]);
}

#[tokio::test]
async fn a_name_with_ipv6_alone_is_found() {
    let server = NameServer::start().await;
    server.set("a.test.", Reply::NoData, a(&["2001:db8::2", "2001:db8::1"]));
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["[2001:db8::1]:80", "[2001:db8::2]:80"]);
    assert_eq!(running.status.standing(), Standing::Fresh);
}

#[tokio::test]
async fn a_family_that_is_never_answered_does_not_hold_the_other_back() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["192.0.2.1"]), Reply::Silence);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);
    assert_eq!(running.status.standing(), Standing::Fresh);
    assert!(running.status.errors(ErrorKind::Timeout) >= 1);
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let server = NameServer::start().await;
    let all: Vec<IpAddr> = (1..=200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    server.set("a.test.", Reply::OverTcp(all), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await.len(), 200);
}

#[tokio::test]
async fn addresses_that_cannot_be_connected_to_are_left_out() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["0.0.0.0", "224.0.0.1", "192.0.2.1"]), a(&["::"]));
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);
}

#[tokio::test]
async fn the_second_server_is_asked_when_the_first_one_fails() {
    let (first, second) = (NameServer::start().await, NameServer::start().await);
    first.set("a.test.", Reply::ServFail, Reply::ServFail);
    second.set("a.test.", a(&["192.0.2.2"]), Reply::NoData);
    let mut running = discover(&resolver(&[&first, &second], &[]), "a.test.", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.2:80"]);

    // Whatever the second one says: the first one comes first.
    first.set("a.test.", a(&["192.0.2.1"]), Reply::NoData);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);
}

#[tokio::test]
async fn a_failure_does_not_lead_to_another_name_of_the_search_list() {
    let server = NameServer::start().await;
    server.set("a.blog.test.", a(&["192.0.2.1"]), Reply::NoData);
    server.set("a.wild.test.", a(&["192.0.2.99"]), Reply::NoData);
    let resolver = resolver(&[&server], &["none.test", "blog.test", "wild.test"]);
    let mut running = discover(&resolver, "a", HURRY);
    assert_eq!(next(&mut running).await, ["192.0.2.1:80"]);

    server.set("a.blog.test.", Reply::ServFail, Reply::ServFail);
    server.until(|| running.status.errors(ErrorKind::ServFail) >= 2).await;
    assert!(!running.updates.has_changed().unwrap());

    // Denied often enough, the name is searched again, and found further down.
    server.set("a.blog.test.", Reply::NxDomain, Reply::NxDomain);
    assert_eq!(next(&mut running).await, [""; 0]);
    assert_eq!(next(&mut running).await, ["192.0.2.99:80"]);
}

#[tokio::test]
async fn dropping_the_subscription_ends_the_questions() {
    let server = NameServer::start().await;
    server.set("a.test.", a(&["192.0.2.1"]), Reply::NoData);
    let mut running = discover(&resolver(&[&server], &[]), "a.test.", HURRY);
    next(&mut running).await;
    let mut updates = running.updates.clone();
    drop(running);
    assert!(soon(updates.changed()).await.is_err());
}
