//! TLS with rustls and aws-lc-rs: certificates from files, what is checked of them and of peers, and how a new set replaces
//! the one in force.
//!
//! [`files`] reads a set and says what is wrong with it; [`server`] and [`client`] make the library's configurations of it,
//! with the rules about who the peer may be; [`rotation`] holds the one in force, and knows by when a connection that was made
//! with an earlier one has to end; [`peer`] tells who is at the other end; [`handshake`] runs a handshake and names its failure.
//!
//! TLS 1.3 and 1.2 with the library's cipher suites, X25519MLKEM768 offered first (the hybrid of X25519 and ML-KEM-768: recorded
//! today, it cannot be opened by a quantum computer later). Nothing of this can be weakened by configuration.

pub mod client;
mod der;
pub mod files;
pub mod handshake;
pub mod peer;
pub mod rotation;
pub mod server;
#[cfg(test)]
mod testing;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use client::{Alpn, ClientSettings, ClientTls};
pub use files::{FileError, Material};
pub use server::{ClientCert, ServerSettings, ServerTls};

/// The one provider of cryptography.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
