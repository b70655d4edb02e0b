//! Whom attempts are made for: the request of a caller, or one that is sent beside it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::time::Instant;

use crate::net::RequestHead;

use super::exchange::Exchange;
use super::flow::Flow;

/// Whom an attempt is made for.
pub(super) trait Subject {
    /// A gRPC call: its status counts.
    fn is_grpc(&self) -> bool;
    /// The fields that came, and those that are added.
    fn fields(&mut self) -> (&mut HeaderMap, &mut Vec<(HeaderName, HeaderValue)>);
    /// All of its head.
    fn head(&self) -> RequestHead<'_>;
    /// Takes what is held until the end of the answer, whose head is there `now`.
    fn answered(&mut self, flow: Flow, grpc_status: Option<u8>, now: Instant);
}

impl Subject for Exchange {
    fn is_grpc(&self) -> bool {
        self.fields.grpc
    }

    fn fields(&mut self) -> (&mut HeaderMap, &mut Vec<(HeaderName, HeaderValue)>) {
        (&mut self.head.headers, &mut self.added)
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.head.method,
            target: self.target(),
            fields: &self.head.headers,
            added: &self.added,
        }
    }

    fn answered(&mut self, flow: Flow, grpc_status: Option<u8>, now: Instant) {
        self.grpc_status = grpc_status;
        self.head_at = Some(now);
        self.flow = Some(Box::new(flow));
    }
}

/// A request that is sent beside the one that its caller waits for.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) method: Method,
    pub(super) target: Uri,
    /// Those that came and those that this hop has added.
    pub(super) headers: HeaderMap,
    pub(super) added: Vec<(HeaderName, HeaderValue)>,
    pub(super) grpc: bool,
    pub(super) grpc_status: Option<u8>,
    pub(super) head_at: Option<Instant>,
    pub(super) flow: Option<Box<Flow>>,
}

impl Spare {
    /// A copy of a request's head, as it goes upstream.
    pub(super) fn of(exchange: &Exchange) -> Self {
        Self {
            method: exchange.head.method.clone(),
            target: exchange.target().clone(),
            headers: exchange.head().to_map(),
            added: Vec::new(),
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

    fn fields(&mut self) -> (&mut HeaderMap, &mut Vec<(HeaderName, HeaderValue)>) {
        (&mut self.headers, &mut self.added)
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            target: &self.target,
            fields: &self.headers,
            added: &self.added,
        }
    }

    fn answered(&mut self, flow: Flow, grpc_status: Option<u8>, now: Instant) {
        self.grpc_status = grpc_status;
        self.head_at = Some(now);
        self.flow = Some(Box::new(flow));
    }
}
