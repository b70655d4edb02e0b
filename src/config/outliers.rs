//! `upstreams.<name>.outliers`.

use std::time::Duration;

use crate::base::units::Ratio;

/// When an endpoint is taken out of traffic for its failures. On unless `outliers: never` is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outliers {
    /// Failures in a row. Default 5; `None` is `never`, here and below.
    pub consecutive: Option<u16>,
    /// 502, 503, 504 and gRPC UNAVAILABLE in a row. Default 5.
    pub gateway: Option<u16>,
    /// Failed connects in a row. Default 5.
    pub local_origin: Option<u16>,
    /// Comparison with the other endpoints.
    pub success_rate: Option<SuccessRate>,
    /// The first ejection; the n-th in a row lasts n times as long, at most 5 m. Default 10 s.
    pub eject: Duration,
    /// The share that may be out at once, rounded down, and at least one of two. Default 50 %.
    pub max_ejected: Ratio,
    /// `false`: count, and eject nothing. Default `true`.
    pub enforce: bool,
}

/// `outliers.success_rate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// Standard deviations below the mean. Default 1.9.
    pub stdev: f64,
    /// Endpoints with enough requests. Default 5.
    pub min_hosts: usize,
    /// Requests of an endpoint in 10 s. Default 100.
    pub min_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev: 1.9, min_hosts: 5, min_requests: 100 }
    }
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            gateway: Some(5),
            local_origin: Some(5),
            success_rate: Some(SuccessRate::default()),
            eject: Duration::from_secs(10),
            max_ejected: half(),
            enforce: true,
        }
    }
}

/// 50 %: the panic threshold and the share that may be ejected.
pub(super) fn half() -> Ratio {
    #[expect(clippy::expect_used, reason = "invariant: the literal is in range")]
    Ratio::from_percent(50.0).expect("50% is a share")
}
