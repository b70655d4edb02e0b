//! Whom attempts are made for: the request of a caller, or one that is sent beside it.

use http::{HeaderMap, Method, Request, Uri};
use tokio::time::Instant;

use crate::io::request_body::RequestBody;

use super::exchange::Exchange;
use super::response::Flow;

/// Whom an attempt is made for.
pub(super) trait Subject {
    /// A gRPC call: its status counts.
    fn is_grpc(&self) -> bool;
    /// Writes method, target and fields. `attempts`: the most that there may be; the last may take what it writes.
    fn write(&mut self, request: &mut Request<RequestBody>, attempts: u32);
    /// Takes what is held until the end of the answer, whose head is there `now`.
    fn answered(&mut self, flow: Flow, grpc_status: Option<u8>, now: Instant);
}

impl Subject for Exchange {
    fn is_grpc(&self) -> bool {
        self.fields.grpc
    }

    fn write(&mut self, request: &mut Request<RequestBody>, attempts: u32) {
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target().clone();
        let last = self.attempts >= attempts;
        let head = &mut self.head.headers;
        // The others leave the fields for the next.
        *request.headers_mut() = if last { std::mem::take(head) } else { head.clone() };
    }

    fn answered(&mut self, flow: Flow, grpc_status: Option<u8>, now: Instant) {
        self.grpc_status = grpc_status;
        self.head_at = Some(now);
        self.flow = Some(flow);
    }
}

/// A request that is sent beside the one that its caller waits for.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
    pub(super) grpc: bool,
    pub(super) grpc_status: Option<u8>,
    pub(super) head_at: Option<Instant>,
    pub(super) flow: Option<Flow>,
}

impl Spare {
    /// A copy of a request's head, as it goes upstream.
    pub(super) fn of(exchange: &Exchange) -> Self {
        Self {
            method: exchange.head.method.clone(),
            target: exchange.target().clone(),
            headers: exchange.head.headers.clone(),
            grpc: exchange.fields.grpc,
            grpc_status: None,
            head_at: None,
            flow: None,
        }
    }
}

impl Exchange {
    /// Goes on with the answer of an attempt that was made beside.
    pub(super) fn adopt(&mut self, spare: Spare) {
        self.grpc_status = spare.grpc_status;
        self.head_at = spare.head_at;
        self.flow = spare.flow;
    }
}

impl Subject for Spare {
    fn is_grpc(&self) -> bool {
        self.grpc
    }

    fn write(&mut self, request: &mut Request<RequestBody>, _: u32) {
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = std::mem::take(&mut self.headers);
    }

    fn answered(&mut self, flow: Flow, grpc_status: Option<u8>, now: Instant) {
        self.grpc_status = grpc_status;
        self.head_at = Some(now);
        self.flow = Some(flow);
    }
}
