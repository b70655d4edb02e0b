//! Every metric's name and help text. Shape: `outrigger_<area>_<noun>_<unit>[_total]`; labels only from names in the
//! configuration, from closed lists of words, and the class of a status.

macro_rules! metrics {
    ($($const:ident = $name:literal, $help:literal;)+) => {
        $(#[doc = $help] pub const $const: (&str, &str) = ($name, $help);)+
        /// All of them, for the documentation's test.
        pub const ALL: &[(&str, &str)] = &[$($const,)+];
    };
}

metrics! {
    DOWNSTREAM_REQUESTS = "outrigger_downstream_requests_total", "Requests answered, by listener, route and class of the status (499: the caller went away).";
    DOWNSTREAM_DURATION = "outrigger_downstream_request_duration_seconds", "From a request's head received to the last byte of its response, by listener and route.";
    DOWNSTREAM_IN_FLIGHT = "outrigger_downstream_in_flight", "Requests being answered, by listener.";
    DOWNSTREAM_CONNECTIONS = "outrigger_downstream_connections", "Open connections, by listener.";
    DOWNSTREAM_CONNECTIONS_TOTAL = "outrigger_downstream_connections_total", "Connections accepted, by listener.";
    DOWNSTREAM_RECEIVED = "outrigger_downstream_received_bytes_total", "Bytes received from callers, by listener.";
    DOWNSTREAM_SENT = "outrigger_downstream_sent_bytes_total", "Bytes sent to callers, by listener.";
    REJECTED = "outrigger_rejected_total", "Requests and connections that ended other than by an upstream's whole answer or a route's own, by listener and reason.";
    DROPPED = "outrigger_dropped_total", "Parts of messages that could not be passed on and were left out, by reason.";

    AUTHORIZATION_DENIED = "outrigger_authorization_denied_total", "Requests and connections that the listener's rules deny (enforced=\"false\": would, and let pass), by listener.";
    JWT_VERIFIED = "outrigger_jwt_verified_total", "Requests whose token was right, by listener.";
    JWT_REFUSED = "outrigger_jwt_refused_total", "Requests refused for their token, or for the lack of one, by listener and reason.";
    JWKS_KEYS = "outrigger_jwks_keys", "Keys in force for verifying tokens, by set.";
    JWKS_ERRORS = "outrigger_jwks_errors_total", "Tries to read or fetch a set of keys that failed, by set and reason; the keys before stay in force.";
    RATE_LIMITED = "outrigger_rate_limited_total", "Requests refused by a route's rate limit, by listener and route.";
    FAULTS = "outrigger_faults_total", "Failures injected on purpose, by listener, route and kind.";
    MIRRORED = "outrigger_mirrored_total", "Copies of requests, by listener, route and outcome.";
    HEDGES = "outrigger_hedges_total", "Second attempts raced against slow first ones, or wanted and not made, by listener, route and outcome.";
    RATE_LIMIT_OVERFLOW = "outrigger_rate_limit_overflow_total", "Requests whose key found no bucket of its own and shared one, by listener and route.";

    UPSTREAM_ATTEMPTS = "outrigger_upstream_attempts_total", "Attempts that ended, by upstream and outcome.";
    UPSTREAM_ATTEMPT_DURATION = "outrigger_upstream_attempt_duration_seconds", "From an attempt's start to its response's head, by upstream.";
    UPSTREAM_RETRIES = "outrigger_upstream_retries_total", "Attempts beyond the first, by upstream and the reason that made them necessary.";
    UPSTREAM_RETRIES_SUPPRESSED = "outrigger_upstream_retries_suppressed_total", "Retries that were wanted and not made, by upstream and reason.";
    UPSTREAM_IN_FLIGHT = "outrigger_upstream_in_flight", "Attempts in flight, by upstream.";
    UPSTREAM_PENDING = "outrigger_upstream_pending", "Requests that wait for a place, by upstream.";
    UPSTREAM_ENDPOINTS = "outrigger_upstream_endpoints", "Endpoints, by upstream and state.";
    UPSTREAM_EJECTIONS = "outrigger_upstream_ejections_total", "Endpoints taken out of traffic for failures (enforced=\"false\": that would have been), by upstream and reason.";
    UPSTREAM_PANIC = "outrigger_upstream_panic", "1 while so many endpoints are unhealthy that those are used as well, by upstream.";
    UPSTREAM_ZONE_PICKS = "outrigger_upstream_zone_picks_total", "Attempts by where they go (`local`: our zone), by upstream that is aware of zones.";
    UPSTREAM_OUTSIDE_SUBSET = "outrigger_upstream_outside_subset", "Endpoints that discovery knows and the subset leaves out, by upstream.";
    UPSTREAM_CONNECTIONS = "outrigger_upstream_connections", "Open connections, by upstream.";
    UPSTREAM_REJECTED = "outrigger_upstream_rejected_total", "Attempts refused without asking the upstream, by upstream and reason.";
    UPSTREAM_BREAKER_STATE = "outrigger_upstream_breaker_state", "1 for the state that the breaker is in, by upstream and state; only where there is one.";
    UPSTREAM_BREAKER_TRANSITIONS = "outrigger_upstream_breaker_transitions_total", "Changes of the breaker into a state, by upstream and state.";
    UPSTREAM_CONCURRENCY_LIMIT = "outrigger_upstream_concurrency_limit", "The adaptive limit of attempts in flight, by upstream; only where it is on.";
    UPSTREAM_THROTTLE = "outrigger_upstream_throttle_probability", "The share of requests that the throttle refuses, by upstream; only where it is on.";
    UPSTREAM_CONNECTS = "outrigger_upstream_connects_total", "Connections opened, by upstream and outcome.";
    UPSTREAM_HEALTH_CHECKS = "outrigger_upstream_health_checks_total", "Active health checks that ended, by upstream and outcome.";
    UPSTREAM_REUSE_RESTS = "outrigger_upstream_reuse_rests_total", "Times that a worker stopped reusing connections to an endpoint for a while, as they were closed under requests, by upstream.";

    DOWNSTREAM_TLS = "outrigger_downstream_tls_handshakes_total", "TLS handshakes done with callers, by listener, version, whether the caller has shown a certificate (mtls), and whether an earlier session was resumed.";
    DOWNSTREAM_TLS_FAILURES = "outrigger_downstream_tls_handshake_failures_total", "TLS handshakes with callers that failed, by listener and reason.";
    UPSTREAM_TLS = "outrigger_upstream_tls_handshakes_total", "TLS handshakes done with endpoints, by upstream, version, whether we have a certificate to show (mtls), and whether an earlier session was resumed.";
    UPSTREAM_TLS_FAILURES = "outrigger_upstream_tls_handshake_failures_total", "TLS handshakes with endpoints that failed, by upstream and reason.";
    TLS_CERT_NOT_AFTER = "outrigger_tls_cert_not_after_seconds", "When the certificate in force expires, in seconds since 1970, by who uses it (owner: identity, listener, upstream; name) and kind: ours (cert), or the first to expire of those that vouch for peers (ca).";
    TLS_RELOADS = "outrigger_tls_reloads_total", "Changed certificate files that took force, by owner and name.";
    TLS_RELOAD_FAILURES = "outrigger_tls_reload_failures_total", "Changed certificate files that were refused; the ones before stayed in force, by owner and name.";

    DISCOVERY_STALENESS = "outrigger_discovery_staleness_seconds", "Age of the last good answer beyond its validity; 0 while it is fresh.";
    DISCOVERY_ERRORS = "outrigger_discovery_errors_total", "Failed look-ups, by upstream and reason.";
    DISCOVERY_UPDATES = "outrigger_discovery_updates_total", "Endpoint sets published, by upstream.";

    CONFIG_GENERATION = "outrigger_config_generation", "Number of the configuration in force; 1 is the one of the start.";
    CONFIG_RELOADS = "outrigger_config_reloads_total", "Configurations that took force after the first.";
    CONFIG_RELOAD_FAILURES = "outrigger_config_reload_failures_total", "Configurations that were refused; the one before stayed in force.";
    CONFIG_LAST_RELOAD_OK = "outrigger_config_last_reload_success", "1 when the newest file read is in force, 0 when it was refused.";
    ACCESS_LOG_DROPPED = "outrigger_access_log_dropped_total", "Access log lines dropped because the writer did not keep up.";
    DRAINING = "outrigger_draining", "1 from SIGTERM or POST /drain on.";
    BUILD_INFO = "outrigger_build_info", "Always 1; version and commit are labels.";
    WORKERS = "outrigger_workers", "Worker threads.";
}
