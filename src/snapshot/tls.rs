//! `tls` of a listener.

use std::sync::Arc;

use crate::metrics::Handshakes;
use crate::tls::ServerTls;

/// TLS towards the callers of a listener.
#[derive(Debug)]
pub struct ListenerTls {
    /// Rules and certificates; shared with the listener of the same name before a reload, where its `tls` is the same.
    pub server: Arc<ServerTls>,
    /// Handles resolved once.
    pub handshakes: Handshakes,
}
