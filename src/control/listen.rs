//! Binding listeners: exclusively first, then once for each worker.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use crate::base::address::Address;
use crate::config::{self, Config, Direction, ListenerProtocol};
use crate::snapshot::{Command, ListenSocket, Protocol};

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
    address: Address,
    /// One for each worker.
    sockets: Vec<ListenSocket>,
}

impl Listeners {
    /// Binds what is new or has moved. On an error nothing has changed: what was bound is closed again.
    pub(super) fn plan(&self, config: &Config, workers: usize) -> Result<Plan, ApplyError> {
        let mut plan = Plan::default();
        for listener in &config.listeners {
            let key = Key::of(listener);
            if self.open.get(&listener.name).is_some_and(|open| open.key == key) {
                continue;
            }
            let (address, sockets) =
                bind(&key.bind, workers).map_err(|error| ApplyError::Bind {
                    listener: listener.name.clone(),
                    address: key.bind.to_string(),
                    error,
                })?;
            plan.fresh.push(Fresh { name: listener.name.clone(), key, address, sockets });
        }
        let kept = |name: &str| config.listeners.iter().any(|listener| listener.name == name);
        let moved = |name: &str| plan.fresh.iter().any(|fresh| fresh.name == name);
        plan.closing =
            self.open.keys().filter(|name| !kept(name) || moved(name)).cloned().collect();
        Ok(plan)
    }

    /// The commands for each worker: new sockets first, so that a moved listener is never without one.
    pub(super) fn commit(&mut self, plan: Plan, applied: &mut Applied) -> Vec<Vec<Command>> {
        let closing: Vec<u64> = plan
            .closing
            .iter()
            .filter_map(|name| self.open.remove(name))
            .map(|open| open.id)
            .collect();
        applied.listeners_closed = plan.closing;
        let mut commands: Vec<Vec<Command>> = Vec::new();
        for fresh in plan.fresh {
            self.last_id += 1;
            commands.resize_with(fresh.sockets.len().max(commands.len()), Vec::new);
            for (worker, socket) in fresh.sockets.into_iter().enumerate() {
                commands[worker].push(Command::Listen {
                    id: self.last_id,
                    name: fresh.name.as_str().into(),
                    socket,
                    protocol: fresh.key.protocol,
                    inbound: fresh.key.inbound,
                });
            }
            tracing::info!(listener = %fresh.name, address = %fresh.address, "listening");
            applied.listeners_bound.push(fresh.name.clone());
            let opened = Opened { id: self.last_id, key: fresh.key, address: fresh.address };
            self.open.insert(fresh.name, opened);
        }
        if !closing.is_empty() {
            commands.resize_with(commands.len().max(MAX_WORKERS), Vec::new);
        }
        for worker in &mut commands {
            worker.extend(closing.iter().map(|id| Command::Close { id: *id }));
        }
        commands
    }

    /// All of them, by name.
    pub(super) fn bound(&self) -> Vec<Bound> {
        self.open
            .iter()
            .map(|(name, open)| Bound { name: name.clone(), address: open.address.clone() })
            .collect()
    }
}

/// As many workers as a configuration may ask for.
const MAX_WORKERS: usize = 64;

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

fn bind(address: &Address, workers: usize) -> io::Result<(Address, Vec<ListenSocket>)> {
    match address {
        Address::Tcp(address) => bind_tcp(*address, workers),
        Address::Unix(path) => {
            let socket = Arc::new(bind_unix(path)?);
            let sockets = (0..workers)
                .map(|_| socket.try_clone().map(ListenSocket::Unix))
                .collect::<io::Result<_>>()?;
            Ok((address.clone(), sockets))
        }
    }
}

/// The first socket is bound without `SO_REUSEPORT`, so that an address in use is an error; it lets the others in after
/// that.
fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<(Address, Vec<ListenSocket>)> {
    let first = tcp_socket(address)?;
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
    Ok((Address::Tcp(resolved), listening.collect::<io::Result<_>>()?))
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

/// A socket file that nobody listens on any more is replaced; one that somebody does is an error.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::{UnixListener, UnixStream};
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            _ => return Err(error),
        },
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_a_socket_and_nobody_else_the_address() {
        let (address, sockets) = bind(&"127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        let Address::Tcp(resolved) = &address else { panic!("{address}") };
        assert_ne!(resolved.port(), 0);
        let error = bind(&address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        bind(&address, 2).unwrap();
    }

    #[test]
    fn a_left_over_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("a.sock"));
        let (_, sockets) = bind(&address, 2).unwrap();
        assert_eq!(bind(&address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        bind(&address, 1).unwrap();
    }
}
