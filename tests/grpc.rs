//! gRPC through the proxy, with grpcio on both sides.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::process::Command;

use support::{Proxy, refusing};
use traffic::{PythonServer, Setup};

/// The service of `grpc_server.py`.
struct Service(PythonServer);

impl Service {
    /// `None` where grpcio is not installed.
    fn start() -> Option<Self> {
        PythonServer::start("grpc", "grpc_server.py").map(Self)
    }

    /// Runs a scenario of `grpc_client.py` through a proxy.
    fn run(&self, setup: &Setup, scenario: &str) -> Proxy {
        let proxy = Proxy::start(&setup.yaml());
        self.ask(&proxy, scenario);
        proxy
    }

    fn ask(&self, proxy: &Proxy, scenario: &str) {
        let mut command = Command::new(&self.0.python);
        command.arg(traffic::client("grpc_client.py")).arg(proxy.address("outbound").to_string());
        let output = command.arg(scenario).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{scenario}: {text}");
    }

    fn setup(&self) -> Setup {
        Setup::new(&[self.0.address])
    }
}

#[test]
fn calls_of_every_kind_pass() {
    let Some(service) = Service::start() else { return };
    for workers in [1, 2] {
        let proxy = service.run(&service.setup().workers(workers), "kinds");
        let line = proxy.access_line(|line| line["path"] == "/test.Echo/Both");
        assert_eq!((&line["protocol"], &line["grpc_status"]), (&"HTTP/2".into(), &0.into()));
    }
}

#[test]
fn metadata_statuses_and_their_details_pass_untouched() {
    let Some(service) = Service::start() else { return };
    let proxy = service.run(&service.setup(), "metadata");
    service.ask(&proxy, "statuses");
    for code in 1..=16 {
        let line = proxy.access_line(|line| line["grpc_status"] == code);
        assert_eq!((&line["status"], &line["attempts"]), (&200.into(), &1.into()), "{line}");
    }
}

#[test]
fn deadlines_are_passed_on_and_kept() {
    let Some(service) = Service::start() else { return };
    let proxy = service.run(&service.setup(), "deadlines");
    proxy.wait_metrics("nothing in flight", |metrics| {
        metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
            && metrics.sum("outrigger_downstream_in_flight", &[]) < 0.5
    });
}

#[test]
fn our_own_answers_carry_the_status_that_fits() {
    let Some(service) = Service::start() else { return };
    service.run(&Setup::new(&[refusing()]), "unavailable");
    service.run(&service.setup().route("match: { path: /else }"), "unimplemented");
    service.run(&service.setup().route("timeout: 300ms"), "timeout");
    let proxy =
        service.run(&service.setup().upstream("limits: { in_flight: 1, pending: 0 }"), "limit");
    let line = proxy.access_line(|line| line["grpc_status"] == 8);
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"limit_reached".into()));
}

#[test]
fn a_stream_that_is_cut_off_ends_with_a_status() {
    let Some(service) = Service::start() else { return };
    let proxy = service.run(&service.setup().route("idle: 400ms"), "cut");
    let line = proxy.access_line(|line| line["path"] == "/test.Echo/Still");
    assert_eq!((&line["grpc_status"], &line["reason"]), (&4.into(), &"stream_idle".into()));
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_upstream() {
    let Some(service) = Service::start() else { return };
    let proxy = service.run(&service.setup(), "cancel");
    let line = proxy.access_line(|line| line["path"] == "/test.Echo/Endless");
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_gone".into()));
}

#[test]
fn unavailable_is_sent_again_where_the_route_says_so() {
    let Some(service) = Service::start() else { return };
    let retry = |methods: &str| {
        format!(
            "retry: {{ when: [{{ grpc: [unavailable] }}], methods: {methods}, backoff: 1ms..1ms }}"
        )
    };
    let budget = "limits: { retry_budget: { ratio: 100%, floor: 100/s } }";
    let proxy = service.run(&service.setup().route(&retry("any")).upstream(budget), "retried");
    let line = proxy.access_line(|line| line["path"] == "/test.Echo/Unary");
    assert_eq!((&line["attempts"], &line["grpc_status"]), (&3.into(), &0.into()));
    let retries = proxy.metrics().sum("outrigger_upstream_retries_total", &[("reason", "grpc")]);
    assert!((retries - 2.0).abs() < 0.5, "{retries}");

    let Some(service) = Service::start() else { return };
    let proxy = service.run(&service.setup().route(&retry("idempotent")), "not_retried");
    let line = proxy.access_line(|line| line["grpc_status"] == 14);
    assert_eq!(line["retry_suppressed"], "retry_not_safe");
}
