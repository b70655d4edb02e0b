//! TLS: handshakes, and the certificates in force.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::{Register, names};

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// Why a handshake failed: one closed list, for both sides.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum HandshakeFailure { $($(#[$doc])* $name,)+ }

        impl HandshakeFailure {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in metrics and logs.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

failures! {
    /// It was not done in time.
    Timeout = "timeout";
    /// The peer closed or reset the connection.
    Closed = "closed";
    /// What came first is not TLS.
    PlainText = "plain_text";
    /// No version, cipher suite or key exchange that both sides know.
    Incompatible = "incompatible";
    /// No protocol (ALPN) that both sides speak.
    NoProtocol = "no_protocol";
    /// The peer has shown no certificate, and has to.
    NoCertificate = "no_certificate";
    /// Its certificate has expired, or is not valid yet.
    Expired = "expired_certificate";
    /// No authority that we trust vouches for it.
    UnknownAuthority = "unknown_authority";
    /// It is on a list of revoked certificates.
    Revoked = "revoked_certificate";
    /// It is somebody else's than the one wanted (`verify`, `sni`), or than those let in (`allow`).
    WrongIdentity = "wrong_identity";
    /// Anything else about it.
    BadCertificate = "bad_certificate";
    /// The peer refused, and told so by an alert: mostly, it does not trust our certificate or wants one.
    Refused = "refused_by_peer";
    /// What came is not what the protocol allows.
    Protocol = "protocol_error";
}

impl HandshakeFailure {
    const fn index(self) -> usize {
        self as usize
    }
}

const VERSIONS: [&str; 2] = ["1.3", "1.2"];
const YES_NO: [&str; 2] = ["no", "yes"];

/// Families of both sides.
#[derive(Debug, Clone)]
pub struct TlsFamilies {
    downstream: [IntCounterVec; 2],
    upstream: [IntCounterVec; 2],
    not_after: IntGaugeVec,
    reloads: IntCounterVec,
    reload_failures: IntCounterVec,
}

impl TlsFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let done = |side| [side, "version", "mtls", "resumed"];
        Ok(Self {
            downstream: [
                register.counters(names::DOWNSTREAM_TLS, &done("listener"))?,
                register.counters(names::DOWNSTREAM_TLS_FAILURES, &["listener", "reason"])?,
            ],
            upstream: [
                register.counters(names::UPSTREAM_TLS, &done("upstream"))?,
                register.counters(names::UPSTREAM_TLS_FAILURES, &["upstream", "reason"])?,
            ],
            not_after: register.gauges(names::TLS_CERT_NOT_AFTER, &["owner", "name", "kind"])?,
            reloads: register.counters(names::TLS_RELOADS, &["owner", "name"])?,
            reload_failures: register.counters(names::TLS_RELOAD_FAILURES, &["owner", "name"])?,
        })
    }

    /// The handles of a listener that speaks TLS.
    pub fn listener(&self, name: &str) -> Handshakes {
        Handshakes::new(&self.downstream, name)
    }

    /// The handles of an upstream that is spoken to in TLS.
    pub fn upstream(&self, name: &str) -> Handshakes {
        Handshakes::new(&self.upstream, name)
    }

    /// Drops the series of a listener that speaks no TLS any more.
    pub fn forget_listener(&self, name: &str) {
        forget(&self.downstream, name);
    }

    /// Drops the series of an upstream that is not spoken to in TLS any more.
    pub fn forget_upstream(&self, name: &str) {
        forget(&self.upstream, name);
    }

    /// The handles of a set of certificates: of the `identity`, of a `listener` or of an `upstream`.
    pub fn certificates(&self, owner: &str, name: &str) -> CertificateMetrics {
        CertificateMetrics {
            not_after: self.not_after.clone(),
            owner: [owner.to_owned(), name.to_owned()],
            reloads: self.reloads.with_label_values(&[owner, name]),
            reload_failures: self.reload_failures.with_label_values(&[owner, name]),
        }
    }

    /// Drops the series of a set that nobody uses any more.
    pub fn forget_certificates(&self, owner: &str, name: &str) {
        for kind in KINDS {
            let _absent = self.not_after.remove_label_values(&[owner, name, kind]);
        }
        let _absent = self.reloads.remove_label_values(&[owner, name]);
        let _absent = self.reload_failures.remove_label_values(&[owner, name]);
    }
}

fn forget([done, failed]: &[IntCounterVec; 2], name: &str) {
    for (version, mtls, resumed) in combinations() {
        let _absent = done.remove_label_values(&[name, version, mtls, resumed]);
    }
    for failure in HandshakeFailure::ALL {
        let _absent = failed.remove_label_values(&[name, failure.word()]);
    }
}

fn combinations() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let each = VERSIONS.into_iter().flat_map(|version| YES_NO.map(|mtls| (version, mtls)));
    each.flat_map(|(version, mtls)| YES_NO.map(|resumed| (version, mtls, resumed)))
}

/// The handshakes of one listener or upstream.
#[derive(Debug)]
pub struct Handshakes {
    /// In the order of [`combinations`].
    done: Box<[IntCounter]>,
    failed: Box<[IntCounter]>,
}

impl Handshakes {
    fn new([done, failed]: &[IntCounterVec; 2], name: &str) -> Self {
        let all = combinations().map(|(version, mtls, resumed)| {
            done.with_label_values(&[name, version, mtls, resumed])
        });
        let failures = HandshakeFailure::ALL.iter();
        Self {
            done: all.collect(),
            failed: failures.map(|why| failed.with_label_values(&[name, why.word()])).collect(),
        }
    }

    /// Counts one that was done.
    pub fn done(&self, tls13: bool, mtls: bool, resumed: bool) {
        let index = usize::from(!tls13) * 4 + usize::from(mtls) * 2 + usize::from(resumed);
        if let Some(counter) = self.done.get(index) {
            counter.inc();
        }
    }

    /// Counts one that failed.
    pub fn failed(&self, why: HandshakeFailure) {
        if let Some(counter) = self.failed.get(why.index()) {
            counter.inc();
        }
    }
}

const KINDS: [&str; 2] = ["cert", "ca"];

/// What is told of one set of certificates.
#[derive(Debug)]
pub struct CertificateMetrics {
    not_after: IntGaugeVec,
    owner: [String; 2],
    /// Changed files that took force.
    pub reloads: IntCounter,
    /// Changed files that were refused.
    pub reload_failures: IntCounter,
}

impl CertificateMetrics {
    /// When our own certificate and the first of the authorities expire, in seconds since 1970; `None`: there is none.
    pub fn expire(&self, cert: Option<u64>, ca: Option<u64>) {
        let [owner, name] = &self.owner;
        for (kind, seconds) in KINDS.into_iter().zip([cert, ca]) {
            let labels = [owner.as_str(), name.as_str(), kind];
            match seconds {
                Some(at) => self
                    .not_after
                    .with_label_values(&labels)
                    .set(i64::try_from(at).unwrap_or(i64::MAX)),
                None => {
                    let _absent = self.not_after.remove_label_values(&labels);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_counted_where_its_labels_say() {
        let metrics = crate::metrics::Metrics::new(&[std::time::Duration::from_secs(1)]).unwrap();
        let handshakes = metrics.tls.listener("in");
        handshakes.done(false, true, false);
        handshakes.done(true, false, true);
        handshakes.failed(HandshakeFailure::Refused);
        let text = metrics.exposition().unwrap();
        let of = |labels: &str| format!("outrigger_downstream_tls_handshake{labels} 1");
        for labels in [
            "s_total{listener=\"in\",mtls=\"yes\",resumed=\"no\",version=\"1.2\"}",
            "s_total{listener=\"in\",mtls=\"no\",resumed=\"yes\",version=\"1.3\"}",
            "_failures_total{listener=\"in\",reason=\"refused_by_peer\"}",
        ] {
            assert!(text.contains(&of(labels)), "{labels} in:\n{text}");
        }
        metrics.tls.forget_listener("in");
        assert!(!metrics.exposition().unwrap().contains("listener=\"in\""));
    }
}
