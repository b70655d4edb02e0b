//! What callers see: requests, connections, refusals.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Register, names};
use crate::base::error::Reason;

/// The classes of a status as label values; 499 stands for a caller that went away.
const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "499"];

/// Families that are labelled by listener.
#[derive(Debug, Clone)]
pub struct DownstreamFamilies {
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    rejected: IntCounterVec,
}

impl DownstreamFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: register
                .counters(names::DOWNSTREAM_REQUESTS, &["listener", "route", "code"])?,
            duration: register.histograms(names::DOWNSTREAM_DURATION, &["listener", "route"])?,
            in_flight: register.gauges(names::DOWNSTREAM_IN_FLIGHT, &["listener"])?,
            connections: register.gauges(names::DOWNSTREAM_CONNECTIONS, &["listener"])?,
            connections_total: register
                .counters(names::DOWNSTREAM_CONNECTIONS_TOTAL, &["listener"])?,
            received: register.counters(names::DOWNSTREAM_RECEIVED, &["listener"])?,
            sent: register.counters(names::DOWNSTREAM_SENT, &["listener"])?,
            rejected: register.counters(names::REJECTED, &["listener", "reason"])?,
        })
    }

    /// The handles of one listener.
    pub fn listener(&self, listener: &str) -> ListenerMetrics {
        ListenerMetrics {
            in_flight: self.in_flight.with_label_values(&[listener]),
            connections: self.connections.with_label_values(&[listener]),
            connections_total: self.connections_total.with_label_values(&[listener]),
            received: self.received.with_label_values(&[listener]),
            sent: self.sent.with_label_values(&[listener]),
            rejected: Reason::ALL
                .iter()
                .map(|reason| self.rejected.with_label_values(&[listener, reason.word()]))
                .collect(),
        }
    }

    /// The handles of one route.
    pub fn route(&self, listener: &str, route: &str) -> RouteMetrics {
        RouteMetrics {
            requests: CODES.map(|code| self.requests.with_label_values(&[listener, route, code])),
            duration: self.duration.with_label_values(&[listener, route]),
        }
    }

    /// Drops the series of a listener that is gone, its routes' included.
    pub fn forget_listener<'a>(&self, listener: &str, routes: impl IntoIterator<Item = &'a str>) {
        for route in routes {
            self.forget_route(listener, route);
        }
        // A series that was never touched is not there: nothing to drop.
        let _absent = self.in_flight.remove_label_values(&[listener]);
        let _absent = self.connections.remove_label_values(&[listener]);
        let _absent = self.connections_total.remove_label_values(&[listener]);
        let _absent = self.received.remove_label_values(&[listener]);
        let _absent = self.sent.remove_label_values(&[listener]);
        for reason in Reason::ALL {
            let _absent = self.rejected.remove_label_values(&[listener, reason.word()]);
        }
    }

    /// Drops the series of a route that is gone.
    pub fn forget_route(&self, listener: &str, route: &str) {
        for code in CODES {
            let _absent = self.requests.remove_label_values(&[listener, route, code]);
        }
        let _absent = self.duration.remove_label_values(&[listener, route]);
    }
}

/// The handles of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Requests being answered.
    pub in_flight: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// Accepted connections.
    pub connections_total: IntCounter,
    /// Bytes received.
    pub received: IntCounter,
    /// Bytes sent.
    pub sent: IntCounter,
    rejected: Vec<IntCounter>,
}

impl ListenerMetrics {
    /// Counts an answer or a refusal of our own.
    pub fn reject(&self, reason: Reason) {
        if let Some(counter) = self.rejected.get(reason.index()) {
            counter.inc();
        }
    }
}

/// The handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    requests: [IntCounter; CODES.len()],
    /// Seconds from the head received to the last byte sent.
    pub duration: Histogram,
}

impl RouteMetrics {
    /// Counts a finished request by its status.
    pub fn request(&self, status: u16, seconds: f64) {
        let class = match status {
            499 => 5,
            100..=199 => 0,
            200..=299 => 1,
            300..=399 => 2,
            400..=498 => 3,
            _ => 4,
        };
        self.requests[class].inc();
        self.duration.observe(seconds);
    }

    /// Requests answered so far, and those of them answered below 500.
    pub fn totals(&self) -> (u64, u64) {
        let all = self.requests.iter().map(IntCounter::get).sum();
        (all, all - self.requests[4].get())
    }
}
