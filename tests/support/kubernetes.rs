//! An API server for tests: EndpointSlices of one namespace over TLS, listed in pages and watched, as the API's
//! documentation has it ("Kubernetes API Concepts": resource versions, watches, bookmarks, 410 Gone, pages).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{PATIENCE, read_request};

/// Where Kubernetes puts a pod's credentials.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A certificate authority and a server's certificate of it.
pub struct Authority {
    pub pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { pem: ca.pem(), server: Arc::new(server) }
    }
}

/// How the server fails, where it does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Answers 200 with what is no JSON.
    Garbage,
    /// Closes instead of answering.
    Close,
}

struct World {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// Events by the version that they made.
    events: Vec<(u64, Value)>,
    /// Versions below this are forgotten.
    oldest: u64,
    token: String,
    page: usize,
    fault: Option<Fault>,
    /// Watches send what they have in pieces of so many bytes.
    piece: usize,
    lists: Vec<String>,
    watches: Vec<String>,
    watching: usize,
    /// Raised to end every watch, with or without an end of the stream.
    era: u64,
    orderly: bool,
    listening: bool,
}

/// The server.
pub struct Api {
    pub address: SocketAddr,
    pub authority: Authority,
    dir: tempfile::TempDir,
    world: Arc<(Mutex<World>, Condvar)>,
}

impl Api {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = World {
            version: 100,
            slices: BTreeMap::new(),
            events: Vec::new(),
            oldest: 0,
            token: "first".to_owned(),
            page: 500,
            fault: None,
            piece: usize::MAX,
            lists: Vec::new(),
            watches: Vec::new(),
            watching: 0,
            era: 0,
            orderly: true,
            listening: true,
        };
        let (world, dir) =
            (Arc::new((Mutex::new(world), Condvar::new())), tempfile::tempdir().unwrap());
        let api = Self { address, authority: Authority::new(), dir, world };
        std::fs::write(api.token_file(), "first").unwrap();
        std::fs::write(api.path("ca.crt"), &api.authority.pem).unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "blog",
            "clusters": [{ "name": "blog", "cluster": {
                "server": format!("https://{address}"), "certificate-authority": api.path("ca.crt"),
            } }],
            "users": [{ "name": "outrigger", "user": { "tokenFile": api.token_file() } }],
            "contexts": [{ "name": "blog", "context": { "cluster": "blog", "user": "outrigger" } }],
        });
        std::fs::write(api.kubeconfig(), kubeconfig.to_string()).unwrap();
        api.listen(listener);
        api
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path("config")
    }

    pub fn token_file(&self) -> PathBuf {
        self.path("token")
    }

    /// Writes what a pod of the service account has, where it has it.
    pub fn write_service_account(&self) {
        let dir = Path::new(SERVICE_ACCOUNT);
        std::fs::create_dir_all(dir).unwrap();
        for (name, text) in
            [("token", "first"), ("ca.crt", &self.authority.pem), ("namespace", "blog")]
        {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    /// Replaces the CA that clients trust.
    pub fn trust(&self, pem: &str) {
        std::fs::write(self.path("ca.crt"), pem).unwrap();
    }

    fn listen(&self, listener: TcpListener) {
        let (world, tls) = (Arc::clone(&self.world), Arc::clone(&self.authority.server));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if !world.0.lock().unwrap().listening {
                    return;
                }
                let (world, tls) = (Arc::clone(&world), Arc::clone(&tls));
                std::thread::spawn(move || serve(&world, stream, tls));
            }
        });
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world());
        self.world.1.notify_all();
    }

    /// Puts a slice of the service `articles` in place: added or modified.
    pub fn put(&self, name: &str, slice: Value) {
        self.change(|world| {
            world.version += 1;
            let mut slice = slice;
            slice["metadata"] = json!({
                "name": name, "namespace": "blog", "resourceVersion": world.version.to_string(),
                "labels": { "kubernetes.io/service-name": "articles" },
            });
            let known = world.slices.insert(name.to_owned(), slice.clone());
            let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
            world.events.push((world.version, json!({ "type": kind, "object": slice })));
        });
    }

    pub fn delete(&self, name: &str) {
        self.change(|world| {
            world.version += 1;
            let mut slice = world.slices.remove(name).unwrap();
            slice["metadata"]["resourceVersion"] = json!(world.version.to_string());
            world.events.push((world.version, json!({ "type": "DELETED", "object": slice })));
        });
    }

    /// Lets watches know that all up to now, and something of no concern to them, has been told.
    pub fn bookmark(&self) -> u64 {
        self.change(|world| {
            world.version += 10;
            let object = json!({
                "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                "metadata": { "resourceVersion": world.version.to_string() },
            });
            world.events.push((world.version, json!({ "type": "BOOKMARK", "object": object })));
        });
        self.world().version
    }

    /// Forgets what has been.
    pub fn compact(&self) {
        self.change(|world| {
            world.version += 1;
            world.oldest = world.version;
            world.events.clear();
        });
    }

    /// Ends every watch, in order (as after its time) or in the middle of a chunk.
    pub fn end_watches(&self, orderly: bool) {
        self.change(|world| (world.era, world.orderly) = (world.era + 1, orderly));
    }

    pub fn fail(&self, fault: Option<Fault>) {
        self.change(|world| world.fault = fault);
    }

    pub fn want_token(&self, token: &str) {
        self.change(|world| world.token = token.to_owned());
    }

    pub fn pages_of(&self, slices: usize) {
        self.change(|world| world.page = slices);
    }

    pub fn pieces_of(&self, bytes: usize) {
        self.change(|world| world.piece = bytes);
    }

    /// The targets of all lists.
    pub fn lists(&self) -> Vec<String> {
        self.world().lists.clone()
    }

    /// The targets of all watches.
    pub fn watches(&self) -> Vec<String> {
        self.world().watches.clone()
    }

    /// Waits until somebody watches.
    pub fn until_watched(&self) {
        let (world, more) = &*self.world;
        let waited = more.wait_timeout_while(world.lock().unwrap(), PATIENCE, |w| w.watching == 0);
        assert!(!waited.unwrap().1.timed_out(), "nobody watches");
    }

    /// Refuses connections and breaks off what is open.
    pub fn stop(&self) {
        self.change(|world| {
            (world.listening, world.orderly, world.era) = (false, false, world.era + 1);
        });
        let _wakes_the_listener = TcpStream::connect(self.address);
    }

    pub fn restart(&self) {
        let end = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::yield_now();
        };
        self.change(|world| world.listening = true);
        self.listen(listener);
    }
}

/// A slice of IPv4 endpoints, each with its own port where they differ from the slice's: here all have the first's.
pub fn slice(endpoints: &[SocketAddr]) -> Value {
    slice_with(endpoints, |_, _| {})
}

/// With changes to each endpoint, by its number.
pub fn slice_with(endpoints: &[SocketAddr], change: impl Fn(usize, &mut Value)) -> Value {
    let port = endpoints.first().map_or(1, SocketAddr::port);
    let each = endpoints.iter().enumerate().map(|(number, at)| {
        let mut endpoint = json!({
            "addresses": [at.ip().to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": "node-1", "zone": "eu-1a",
            "targetRef": { "kind": "Pod", "namespace": "blog", "name": format!("articles-{at}"), "uid": at.to_string() },
        });
        change(number, &mut endpoint);
        endpoint
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        "endpoints": each.collect::<Vec<_>>(),
    })
}

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

fn serve(world: &(Mutex<World>, Condvar), stream: TcpStream, tls: Arc<ServerConfig>) {
    stream.set_nodelay(true).unwrap();
    let raw = stream.try_clone().unwrap();
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream));
    while let Some(request) = read_request(&mut stream) {
        let request = String::from_utf8_lossy(&request).into_owned();
        if !answer(world, &request, &mut stream) {
            break;
        }
    }
    let _gone = raw.shutdown(Shutdown::Both);
}

/// Whether the connection may go on.
fn answer(world: &(Mutex<World>, Condvar), request: &str, stream: &mut Stream) -> bool {
    let target = request.split(' ').nth(1).unwrap().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let parameters: BTreeMap<&str, &str> =
        query.split('&').filter_map(|part| part.split_once('=')).collect();
    let mut known = world.0.lock().unwrap();
    let is_watch = parameters.get("watch") == Some(&"true");
    match is_watch {
        true => known.watches.push(target.clone()),
        false => known.lists.push(target.clone()),
    }
    let shown = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
    if shown != Some(&known.token) {
        drop(known);
        return reply(stream, 401, &status(401, "Unauthorized", "Unauthorized"));
    }
    if path != "/apis/discovery.k8s.io/v1/namespaces/blog/endpointslices" {
        drop(known);
        return reply(stream, 404, &status(404, "NotFound", "the server could not find it"));
    }
    match known.fault {
        Some(Fault::Close) => return false,
        Some(Fault::Garbage) => {
            drop(known);
            return reply(stream, 200, "<html>nobody home</html>");
        }
        Some(Fault::Status(code)) => {
            drop(known);
            return reply(stream, code, &status(code, "Failure", "it was told to fail"));
        }
        None => {}
    }
    if is_watch {
        // As of the moment that it is listed, so that who has seen it there can end it.
        let era = known.era;
        drop(known);
        return watch(world, era, &parameters, stream);
    }
    let skip: usize = parameters.get("continue").map_or(0, |token| token.parse().unwrap());
    let items: Vec<_> = known.slices.values().skip(skip).take(known.page).cloned().collect();
    let mut metadata = json!({ "resourceVersion": known.version.to_string() });
    let next = skip + items.len();
    if next < known.slices.len() {
        metadata["continue"] = json!(next.to_string());
        metadata["remainingItemCount"] = json!(known.slices.len() - next);
    }
    drop(known);
    let list = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": metadata, "items": items,
    });
    reply(stream, 200, &list.to_string())
}

fn reply(stream: &mut Stream, status: u16, body: &str) -> bool {
    let head = format!(
        "HTTP/1.1 {status} Text\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream
        .write_all(&[head.as_bytes(), body.as_bytes()].concat())
        .and_then(|()| stream.flush())
        .is_ok()
}

/// A `Status` object, as every failure has it.
fn status(code: u16, reason: &str, message: &str) -> String {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
    .to_string()
}

/// Sends events newer than `resourceVersion` until the watch ends: one JSON object a line, in chunks. Whether the
/// connection may go on.
fn watch(
    world: &(Mutex<World>, Condvar),
    era: u64,
    parameters: &BTreeMap<&str, &str>,
    stream: &mut Stream,
) -> bool {
    let mut seen: u64 = parameters["resourceVersion"].parse().unwrap();
    let timeout = parameters.get("timeoutSeconds").map_or(300, |time| time.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(timeout);
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    if stream.get_mut().write_all(head.as_bytes()).and_then(|()| stream.get_mut().flush()).is_err()
    {
        return false;
    }
    let (known, more) = world;
    let mut known = known.lock().unwrap();
    known.watching += 1;
    more.notify_all();
    let orderly = loop {
        if seen < known.oldest {
            let gone = status(410, "Expired", "too old resource version");
            let gone: Value = serde_json::from_str(&gone).unwrap();
            let event = json!({ "type": "ERROR", "object": gone });
            break send(stream, &event, usize::MAX);
        }
        let news: Vec<_> = known.events.iter().filter(|(at, _)| *at > seen).cloned().collect();
        let piece = known.piece;
        if !news.is_empty() {
            drop(known);
            let sent = news.iter().all(|(at, event)| {
                seen = *at;
                send(stream, event, piece)
            });
            known = world.0.lock().unwrap();
            if !sent {
                break false;
            }
            continue;
        }
        let left = end.saturating_duration_since(Instant::now());
        if known.era != era || left.is_zero() {
            break known.orderly;
        }
        known = more.wait_timeout(known, left).unwrap().0;
    };
    known.watching -= 1;
    drop(known);
    let last: &[u8] = if orderly { b"0\r\n\r\n" } else { b"5\r\n{" };
    let sent = stream.get_mut().write_all(last).and_then(|()| stream.get_mut().flush()).is_ok();
    sent && orderly
}

fn send(stream: &mut Stream, event: &Value, piece: usize) -> bool {
    let line = format!("{event}\n").into_bytes();
    line.chunks(piece.min(line.len())).all(|part| {
        let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        let stream = stream.get_mut();
        stream.write_all(&chunk).and_then(|()| stream.flush()).is_ok()
    })
}

/// Another authority's certificate, of which nobody has heard.
pub fn stranger() -> String {
    Authority::new().pem
}

/// Writes a file so that a reader sees the old or the new content.
pub fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}
