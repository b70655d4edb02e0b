//! Binding listeners: exclusively first, then once for each worker.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use crate::base::address::Address;
use crate::config::{self, Config, Direction, ListenerProtocol};
use crate::snapshot::{Command, ListenSocket, Protocol};

use super::socket_file::SocketFile;
use super::{Applied, ApplyError};

/// Connections that may wait to be accepted: a burst of a restart's size; the kernel caps it at `somaxconn` (4096).
const BACKLOG: i32 = 4096;

/// The listeners in force.
#[derive(Debug, Default)]
pub struct Listeners {
    open: BTreeMap<String, Opened>,
    last_id: u64,
}

#[derive(Debug)]
struct Opened {
    id: u64,
    key: Key,
    address: Address,
    shared: Option<UnixSocket>,
}

/// All workers, and every later listener at the same path, share one unix socket.
#[derive(Debug, Clone)]
struct UnixSocket {
    socket: Rc<UnixListener>,
    _file: Rc<SocketFile>,
}

/// What a listener's sockets depend on; all else changes with the snapshot alone.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    bind: Address,
    protocol: Protocol,
    inbound: bool,
}

/// A bound listener, as `/config` and the log show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// What it was bound to: with the port that the system chose where 0 was written.
    pub address: Address,
}

/// What a reload will do to the sockets. The new ones are bound.
#[derive(Debug, Default)]
pub(super) struct Plan {
    fresh: Vec<Fresh>,
    closing: Vec<String>,
}

#[derive(Debug)]
struct Fresh {
    name: String,
    key: Key,
    bound: BoundSockets,
}

#[derive(Debug)]
struct BoundSockets {
    address: Address,
    /// One for each worker.
    sockets: Vec<ListenSocket>,
    shared: Option<UnixSocket>,
}

impl Listeners {
    /// Binds what is new or has moved. On an error nothing has changed: what was bound is closed again.
    pub(super) fn plan(&self, config: &Config, workers: usize) -> Result<Plan, ApplyError> {
        let keys: BTreeMap<&str, Key> =
            config.listeners.iter().map(|listener| (&*listener.name, Key::of(listener))).collect();
        let closing: Vec<String> = self
            .open
            .iter()
            .filter(|(name, open)| keys.get(name.as_str()) != Some(&open.key))
            .map(|(name, _)| name.clone())
            .collect();
        let mut fresh = Vec::new();
        for listener in &config.listeners {
            let (name, key) = (&listener.name, Key::of(listener));
            let open = self.open.get(name);
            if open.is_some_and(|open| open.key == key) {
                continue;
            }
            // With port 0 written, a listener that changes in something else keeps its port.
            let address = match open {
                Some(open) if open.key.bind == key.bind => &open.address,
                _ => &key.bind,
            };
            let ours = closing.iter().filter_map(|name| self.open.get(name));
            let bound = bind(address, workers, ours).map_err(|error| ApplyError::Bind {
                listener: name.clone(),
                address: key.bind.to_string(),
                error,
            })?;
            fresh.push(Fresh { name: name.clone(), key, bound });
        }
        Ok(Plan { fresh, closing })
    }

    /// The commands for each of `workers`: new sockets first, so that a moved listener is never without one.
    pub(super) fn commit(
        &mut self,
        plan: Plan,
        workers: usize,
        applied: &mut Applied,
    ) -> Vec<Vec<Command>> {
        let moved = |name: &str| plan.fresh.iter().any(|fresh| fresh.name == name);
        let closing: Vec<(u64, bool)> = plan
            .closing
            .iter()
            .filter_map(|name| Some((self.open.remove(name)?.id, !moved(name))))
            .collect();
        let mut commands: Vec<Vec<Command>> =
            std::iter::repeat_with(Vec::new).take(workers).collect();
        for Fresh { name, key, bound } in plan.fresh {
            self.last_id += 1;
            for (commands, socket) in commands.iter_mut().zip(bound.sockets) {
                commands.push(Command::Listen {
                    id: self.last_id,
                    name: name.as_str().into(),
                    socket,
                    protocol: key.protocol,
                    inbound: key.inbound,
                });
            }
            tracing::info!(listener = %name, address = %bound.address, "listening");
            applied.listeners_bound.push(name.clone());
            let BoundSockets { address, shared, .. } = bound;
            self.open.insert(name, Opened { id: self.last_id, key, address, shared });
        }
        for commands in &mut commands {
            let close = closing.iter().map(|&(id, connections)| Command::Close { id, connections });
            commands.extend(close);
        }
        applied.listeners_closed = plan.closing;
        commands
    }

    /// Where connections over TCP will be accepted once `plan` is carried out.
    pub(super) fn addresses_after(&self, plan: &Plan) -> Vec<SocketAddr> {
        let kept = self.open.iter().filter(|(name, _)| !plan.closing.contains(name));
        let kept = kept.map(|(_, open)| &open.address);
        let all = kept.chain(plan.fresh.iter().map(|fresh| &fresh.bound.address));
        let tcp = all.filter_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        tcp.collect()
    }

    /// Lets go of the unix sockets of one direction, whose files are removed: the workers close theirs.
    pub(super) fn drain(&mut self, inbound: bool) {
        let draining = self.open.values_mut().filter(|open| open.key.inbound == inbound);
        draining.for_each(|open| open.shared = None);
    }

    /// All of them, by name.
    pub(super) fn bound(&self) -> Vec<Bound> {
        self.open
            .iter()
            .map(|(name, open)| Bound { name: name.clone(), address: open.address.clone() })
            .collect()
    }
}

impl Key {
    fn of(listener: &config::Listener) -> Self {
        Self {
            bind: listener.bind.clone(),
            protocol: match listener.protocol {
                ListenerProtocol::Auto | ListenerProtocol::Http => Protocol::Http,
                ListenerProtocol::Tcp => Protocol::Tcp,
            },
            inbound: listener.direction == Direction::Inbound,
        }
    }
}

/// Binds for every worker. `ours`: listeners that end with this reload; their addresses are free for us, as two listeners
/// may swap their ports, and one may change its name or protocol and stay where it is.
fn bind<'a>(
    address: &Address,
    workers: usize,
    mut ours: impl Iterator<Item = &'a Opened>,
) -> io::Result<BoundSockets> {
    match address {
        Address::Tcp(address) => {
            bind_tcp(*address, workers, ours.any(|open| open.covers(*address)))
        }
        Address::Unix(path) => {
            let shared = match ours.find(|open| open.address == *address) {
                Some(Opened { shared: Some(shared), .. }) => shared.clone(),
                _ => {
                    let (socket, file) = SocketFile::bind(path)?;
                    socket.set_nonblocking(true)?;
                    UnixSocket { socket: Rc::new(socket), _file: Rc::new(file) }
                }
            };
            let sockets = (0..workers)
                .map(|_| shared.socket.try_clone().map(ListenSocket::Unix))
                .collect::<io::Result<_>>()?;
            Ok(BoundSockets { address: address.clone(), sockets, shared: Some(shared) })
        }
    }
}

impl Opened {
    /// True where `wanted` cannot be bound as long as this listens.
    fn covers(&self, wanted: SocketAddr) -> bool {
        let Address::Tcp(address) = self.address else { return false };
        let any = |address: SocketAddr| address.ip().is_unspecified();
        address.port() == wanted.port()
            && (address.ip() == wanted.ip() || any(address) || any(wanted))
    }
}

/// The first socket is bound without `SO_REUSEPORT`, so that an address in use is an error; it lets the others in after
/// that. `join`: the address is in use by ourselves.
fn bind_tcp(address: SocketAddr, workers: usize, join: bool) -> io::Result<BoundSockets> {
    let first = tcp_socket(address)?;
    first.set_reuse_port(join)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let resolved = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the bound socket has no IP address"))?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        let socket = tcp_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&resolved.into())?;
        sockets.push(socket);
    }
    let listening = sockets.into_iter().map(|socket| {
        socket.listen(BACKLOG)?;
        Ok(ListenSocket::Tcp(socket.into()))
    });
    let sockets = listening.collect::<io::Result<_>>()?;
    Ok(BoundSockets { address: Address::Tcp(resolved), sockets, shared: None })
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    // An address whose old connections linger (TIME_WAIT) is free; one that is listened on is not.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4, too, as users of the peers expect.
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(address: &Address, workers: usize) -> io::Result<BoundSockets> {
        bind(address, workers, std::iter::empty())
    }

    #[test]
    fn every_worker_gets_a_socket_and_nobody_else_the_address() {
        let first = bound(&"127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(first.sockets.len(), 3);
        let Address::Tcp(resolved) = first.address else { panic!("{}", first.address) };
        assert_ne!(resolved.port(), 0);
        let address = first.address.clone();
        let error = bound(&address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bound(&address, 2).unwrap();
    }

    #[test]
    fn a_unix_socket_is_shared_by_all_workers_and_refused_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let address = Address::Unix(path.clone());
        let first = bound(&address, 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        assert_eq!(bound(&address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        bound(&address, 1).unwrap();
    }
}
