//! Endpoints from a control plane: `ClusterLoadAssignment`s over an aggregated discovery stream (ADS, v3).
//!
//! All upstreams of one control plane share one [`Plane`], and with it one stream. `session` and `clusters` say what is asked and what
//! a response changes, by way of `subscription`, `endpoints` what an assignment means, `board` who waits for what; `stream` moves the bytes. A set
//! that was told stays in force until it is told otherwise, whatever becomes of the stream: a control plane that is gone
//! costs no request.
//!
//! Of clusters (CDS) only what they say of balancing is taken, where the configuration does not say it (`clusters`): all
//! else is written in the configuration file here, and the resource's name is that of the assignment. Not done: incremental
//! discovery (delta), which saves the control plane work and would save us none.

mod board;
mod calm;
mod clusters;
mod endpoints;
mod session;
mod stream;
mod subscription;

use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dns::{Resolver, ResolverError};
use super::publisher::Publisher;
use super::server::{Server, ServerTls};
use crate::base::rng::Rng;
use board::{Board, Wanted};

/// A control plane, and who we are to it. Equal ones share a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// A name or an IP address, in brackets where it is IPv6.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
    /// `None`: in clear.
    pub tls: Option<ServerTls>,
    /// What the control plane knows us by.
    pub node: String,
    /// The service that we stand beside.
    pub cluster: String,
    /// Where we stand.
    pub zone: Option<String>,
}

/// The connection to a control plane; made when the first upstream asks, gone with the last.
#[derive(Debug)]
pub struct Plane {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the task and those who wait for it share. Only the control thread takes the lock, and never across an await.
#[derive(Debug)]
struct Shared {
    control_plane: ControlPlane,
    server: Server,
    board: Mutex<Board>,
    /// Who waits for what has changed.
    changed: Notify,
}

impl Shared {
    fn board<T>(&self, with: impl FnOnce(&mut Board) -> T) -> T {
        with(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Plane {
    /// Connects to nothing yet. The control plane's name is looked up with `resolver` for each connection.
    ///
    /// # Errors
    /// Its host is no name that DNS could have.
    pub fn new(
        control_plane: ControlPlane,
        resolver: Arc<Resolver>,
    ) -> Result<Self, ResolverError> {
        let ControlPlane { host, port, tls, .. } = &control_plane;
        let server = Server::new(host, *port, tls.clone(), resolver)?;
        let (board, changed) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { control_plane, server, board, changed });
        Ok(Self { shared, task: Mutex::default() })
    }

    /// Whose connection it is.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.shared.control_plane
    }

    /// Waits for what is `wanted` until the guard is dropped.
    fn join(&self, wanted: Wanted, publisher: Publisher, rng: Rng) -> Joined {
        let id = self.shared.board(|board| board.join(wanted, publisher, Instant::now()));
        self.shared.changed.notify_one();
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.get_or_insert_with(|| {
            AbortOnDropHandle::new(tokio::task::spawn_local(stream::run(
                Arc::clone(&self.shared),
                rng,
            )))
        });
        Joined { shared: Arc::clone(&self.shared), id }
    }
}

/// A place on the board.
struct Joined {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.shared.board(|board| board.leave(self.id));
        self.shared.changed.notify_one();
    }
}

/// `discover: xds://host:port/resource`.
#[derive(Debug, Clone)]
pub struct Xds {
    plane: Arc<Plane>,
    wanted: Wanted,
    source: Arc<str>,
}

impl Xds {
    /// The assignment of that name, with `advice` what the cluster of that name says of balancing. `source` is how logs call it.
    pub fn new(plane: Arc<Plane>, resource: &str, advice: bool, source: &str) -> Self {
        let wanted = Wanted { resource: resource.to_owned(), advice };
        Self { plane, wanted, source: source.into() }
    }

    pub(super) fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    /// Waits for sets; ends only by being aborted.
    pub(super) async fn run(self, publisher: Publisher, rng: Rng) {
        let _joined = self.plane.join(self.wanted, publisher, rng);
        std::future::pending::<()>().await;
    }
}

impl ControlPlane {
    fn node(&self) -> Node {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let locality = |zone: &String| Locality { zone: zone.clone(), ..Locality::default() };
        Node {
            id: self.node.clone(),
            cluster: self.cluster.clone(),
            locality: self.zone.as_ref().map(locality),
            user_agent_name: "outrigger".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(version)),
            ..Node::default()
        }
    }
}

/// See `session::hostile`: the door for fuzz targets.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn hostile(bytes: &[u8]) {
    session::hostile(bytes);
}
