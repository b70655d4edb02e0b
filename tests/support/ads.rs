//! A control plane: state of the world over ADS, on the published protos, by the rules of "xDS REST and gRPC protocol".
//!
//! It answers a request where there is something that its stream was not told: a subscription that grew, or a set that
//! changed. It stays silent about resources that it does not know. Requests with a nonce that is not the last one are stale and
//! not answered. Whether it is faithful, Envoy shows (`tests/xds.rs`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{
    Address, Locality, SocketAddress, address, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use envoy_types::util::pack_any;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

pub const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is told, and to what it is an answer.
#[derive(Default)]
struct World {
    version: u64,
    resources: BTreeMap<String, Any>,
    clusters: BTreeMap<String, Any>,
}

impl World {
    fn of(&self, type_url: &str) -> &BTreeMap<String, Any> {
        if type_url == CDS { &self.clusters } else { &self.resources }
    }
}

/// Everything that came in, in its order.
#[derive(Default)]
struct Heard {
    requests: Mutex<Vec<DiscoveryRequest>>,
    streams: Mutex<usize>,
    more: Condvar,
}

/// A control plane on a port of its own. It outlives the connections to it: `stop` and `start` it at will.
pub struct ControlPlane {
    pub address: SocketAddr,
    world: Arc<watch::Sender<World>>,
    heard: Arc<Heard>,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl ControlPlane {
    pub fn start() -> Self {
        let mut plane = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            world: Arc::new(watch::channel(World::default()).0),
            heard: Arc::default(),
            running: None,
        };
        plane.resume();
        plane
    }

    /// Serves again, on the same port.
    pub fn resume(&mut self) {
        let stop = CancellationToken::new();
        let (service, address) = (self.service(&stop), self.address);
        let (bound, resolved) = std::sync::mpsc::channel();
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let incoming = TcpIncoming::bind(address).unwrap().with_nodelay(Some(true));
                bound.send(incoming.local_addr().unwrap()).unwrap();
                let service = AggregatedDiscoveryServiceServer::new(service);
                tokio::select! {
                    served = Server::builder().serve_with_incoming(service, incoming) => served.unwrap(),
                    // Connections die with the runtime: a process that was killed.
                    () = until.cancelled() => {}
                }
            });
        });
        self.address = resolved.recv_timeout(PATIENCE).unwrap();
        self.running = Some(Running { stop, thread });
    }

    fn service(&self, stop: &CancellationToken) -> Ads {
        Ads { world: Arc::clone(&self.world), heard: Arc::clone(&self.heard), stop: stop.clone() }
    }

    /// Dies: every connection breaks, and nobody listens.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            stop.cancel();
            thread.join().unwrap();
        }
    }

    /// Tells these endpoints from now on.
    pub fn set(&self, name: &str, endpoints: &[SocketAddr]) {
        self.tell(assignment(name, endpoints));
    }

    /// Tells this assignment from now on.
    pub fn tell(&self, assignment: ClusterLoadAssignment) {
        let name = assignment.cluster_name.clone();
        self.tell_raw(&name, pack_any(assignment));
    }

    /// Tells this under a name, whatever it is.
    pub fn tell_raw(&self, name: &str, resource: Any) {
        self.world.send_modify(|world| {
            world.version += 1;
            world.resources.insert(name.to_owned(), resource);
        });
    }

    /// Tells this cluster from now on.
    pub fn tell_cluster(&self, cluster: Cluster) {
        self.world.send_modify(|world| {
            world.version += 1;
            world.clusters.insert(cluster.name.clone(), pack_any(cluster));
        });
    }

    /// Forgets a resource: others go on being told.
    pub fn forget(&self, name: &str) {
        self.world.send_modify(|world| {
            world.version += 1;
            world.resources.remove(name);
        });
    }

    /// Waits for a request that `wanted` takes.
    pub fn wait<T>(&self, what: &str, wanted: impl Fn(&DiscoveryRequest) -> Option<T>) -> T {
        let requests = self.heard.requests.lock().unwrap();
        let found = |requests: &mut Vec<DiscoveryRequest>| {
            !requests.iter().any(|one| wanted(one).is_some())
        };
        let (requests, _) = self.heard.more.wait_timeout_while(requests, PATIENCE, found).unwrap();
        let found = requests.iter().find_map(&wanted);
        found.unwrap_or_else(|| panic!("no {what} in {requests:#?}"))
    }

    pub fn requests(&self) -> Vec<DiscoveryRequest> {
        self.heard.requests.lock().unwrap().clone()
    }

    /// How many streams there have been.
    pub fn streams(&self) -> usize {
        *self.heard.streams.lock().unwrap()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.cancel();
        }
    }
}

struct Ads {
    world: Arc<watch::Sender<World>>,
    heard: Arc<Heard>,
    stop: CancellationToken,
}

type Responses = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses;
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        *self.heard.streams.lock().unwrap() += 1;
        let (responses, queue) = mpsc::channel(16);
        let (world, heard) = (self.world.subscribe(), Arc::clone(&self.heard));
        let served = serve(request.into_inner(), responses, world, heard);
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(served).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}

/// One stream's view of one type.
#[derive(Default)]
struct Told {
    names: BTreeSet<String>,
    version: u64,
    nonce: u64,
}

async fn serve(
    mut requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    mut world: watch::Receiver<World>,
    heard: Arc<Heard>,
) {
    let mut told: BTreeMap<&str, Told> = [(CDS, Told::default()), (EDS, Told::default())].into();
    loop {
        let grown = tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                let of_type = told.get_mut(&*request.type_url);
                let grown = of_type.is_some_and(|told| subscribe(told, &request));
                let grown = grown.then(|| request.type_url.clone());
                heard.requests.lock().unwrap().push(request);
                heard.more.notify_all();
                grown
            }
            changed = world.changed() => {
                if changed.is_err() {
                    return;
                }
                None
            }
        };
        for (type_url, told) in &mut told {
            let grown = grown.as_deref() == Some(type_url);
            let response = respond(type_url, told, &world.borrow_and_update(), grown);
            let Some(response) = response else { continue };
            if responses.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

/// Takes a subscription in; `true` where it asks for more than the one before.
fn subscribe(told: &mut Told, request: &DiscoveryRequest) -> bool {
    let stale =
        !request.response_nonce.is_empty() && request.response_nonce != told.nonce.to_string();
    if stale {
        return false;
    }
    let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
    let grown = !names.is_subset(&told.names);
    told.names = names;
    grown
}

fn respond(
    type_url: &str,
    told: &mut Told,
    world: &World,
    grown: bool,
) -> Option<DiscoveryResponse> {
    let known = world.of(type_url).iter().filter(|(name, _)| told.names.contains(*name));
    let resources: Vec<Any> = known.map(|(_, resource)| resource.clone()).collect();
    if resources.is_empty() || (told.version == world.version && !grown) {
        return None;
    }
    told.version = world.version;
    told.nonce += 1;
    Some(DiscoveryResponse {
        version_info: world.version.to_string(),
        nonce: told.nonce.to_string(),
        type_url: type_url.to_owned(),
        resources,
        ..DiscoveryResponse::default()
    })
}

/// An assignment of healthy endpoints in one locality.
pub fn assignment(name: &str, endpoints: &[SocketAddr]) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().copied().map(endpoint).collect();
    assignment_of(name, vec![locality("zone-a", 0, lb_endpoints)])
}

pub fn assignment_of(name: &str, endpoints: Vec<LocalityLbEndpoints>) -> ClusterLoadAssignment {
    let cluster_name = name.to_owned();
    ClusterLoadAssignment { cluster_name, endpoints, ..ClusterLoadAssignment::default() }
}

pub fn locality(zone: &str, priority: u32, lb_endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality { zone: zone.to_owned(), ..Locality::default() }),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        priority,
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    }
}

pub fn endpoint(address: SocketAddr) -> LbEndpoint {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let endpoint = Endpoint { address, ..Endpoint::default() };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    }
}
