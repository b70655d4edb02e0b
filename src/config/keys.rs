//! The words of the file: which keys each of its maps has, and which are planned but not there yet.
//!
//! One table for the reader, the schema's test and the documentation's test.

/// A kind of map in the file.
#[derive(Debug)]
pub(super) struct Section {
    /// As in "`x` is no key of …".
    pub(super) name: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Keys of the design that this version does not read.
    pub(super) later: &'static [&'static str],
}

macro_rules! sections {
    ($(#[$doc:meta])* $all:ident: $($const:ident = $name:literal [$($key:literal)*] later [$($later:literal)*];)+) => {
        $(pub(super) const $const: Section =
            Section { name: $name, keys: &[$($key),*], later: &[$($later),*] };)+
        $(#[$doc])*
        pub(super) const $all: &[&Section] = &[$(&$const),+];
    };
}

sections! {
    /// Every kind of map whose keys are fixed.
    ALL:
    FILE = "the file" [
        "service" "zone" "compat" "admin" "runtime" "access_log" "metrics" "dns" "identity" "defaults" "listeners" "upstreams"
    ] later ["tracing" "tests"];
    ADMIN = "`admin`" ["bind" "token_file"] later [];
    RUNTIME = "`runtime`" ["workers" "drain"] later [];
    DRAIN = "`drain`" ["delay" "deadline"] later [];
    ACCESS_LOG = "`access_log`" ["to" "format" "only"] later [];
    METRICS = "`metrics`" ["buckets"] later ["max_series"];
    DNS = "`dns`" ["servers" "search" "ttl"] later [];
    DEFAULTS = "`defaults`" ["listener" "route" "upstream"] later [];
    LISTENER_DEFAULTS = "`defaults.listener`" ["protocol" "direction" "tls" "authorize" "jwt" "limits"]
        later ["proxy_protocol"];
    ROUTE_DEFAULTS = "`defaults.route`" ["request_headers" "response_headers" "timeout" "idle" "retry" "jwt" "rate_limit" "fault" "mirror" "hedge" "hash"]
        later [];
    UPSTREAM_DEFAULTS = "`defaults.upstream`" [
        "protocol" "connect_timeout" "balance" "slow_start" "pool" "limits" "breaker" "adaptive" "throttle" "health" "outliers"
        "tls"
    ] later [];
    LISTENER = "a listener" ["bind" "protocol" "direction" "original_destination" "tls" "authorize" "jwt" "limits" "routes"]
        later ["proxy_protocol"];
    JWT = "`jwt`" ["issuer" "jwks" "audience" "leeway" "claims"] later [];
    AUTHORIZE = "`authorize`" ["enforce" "deny" "allow"] later [];
    AUTHORIZE_RULE = "an `authorize` rule" ["from" "source" "method" "path" "headers"] later [];
    IDENTITY = "`identity`" ["cert" "key" "ca" "crl"] later [];
    LISTENER_TLS = "`tls` of a listener" ["client_cert" "allow" "plain_text" "cert" "key" "ca" "crl"] later [];
    UPSTREAM_TLS = "`tls` of an upstream" ["sni" "verify" "cert" "key" "ca" "crl"] later [];
    LISTENER_LIMITS = "a listener's `limits`" [
        "connections" "headers" "header_bytes" "header_timeout" "body" "body_timeout" "idle" "max_age" "streams" "per_source"
    ] later [];
    ROUTE = "a route" [
        "name" "match" "to" "redirect" "respond" "rewrite" "request_headers" "response_headers" "timeout" "idle" "retry"
        "jwt" "rate_limit" "fault" "mirror" "hedge" "hash"
    ] later [];
    MATCH = "`match`" ["host" "path" "grpc" "method" "headers" "query"] later [];
    PATH = "`path`" ["regex"] later [];
    VALUE = "a value to match" ["present" "prefix" "regex"] later [];
    REDIRECT = "`redirect`" ["status" "scheme" "host" "path" "prefix"] later [];
    RESPOND = "`respond`" ["status" "body" "content_type"] later [];
    REWRITE = "`rewrite`" ["prefix" "host"] later [];
    HEADERS = "header edits" ["set" "append" "remove"] later [];
    RETRY = "`retry`" ["when" "attempts" "per_try" "backoff" "methods" "replay"] later [];
    RETRY_GRPC = "`when`" ["grpc"] later [];
    HEDGE = "`hedge`" ["after"] later [];
    FAULT = "`fault`" ["delay" "abort"] later [];
    FAULT_DELAY = "`delay`" ["share" "for"] later [];
    FAULT_ABORT = "`abort`" ["share" "status"] later [];
    RATE_LIMIT = "`rate_limit`" ["rate" "burst" "by" "keys"] later [];
    UPSTREAM = "an upstream" [
        "endpoints" "discover" "protocol" "connect_timeout" "balance" "subset" "slow_start" "pool" "limits" "breaker" "adaptive" "throttle"
        "health" "outliers" "tls"
    ] later [];
    DISCOVER = "`discover`" ["dns" "dns+srv" "consul" "k8s" "file" "original" "xds"] later [];
    DISCOVER_DNS = "`discover.dns`" ["host" "port"] later [];
    DISCOVER_CONSUL = "`discover.consul`" [
        "address" "service" "tags" "datacenter" "passing" "token_file" "tls"
    ] later [];
    DISCOVER_KUBERNETES = "`discover.k8s`" ["namespace" "service" "port" "kubeconfig" "context"] later [];
    DISCOVER_SRV = "`discover.dns+srv`" ["name"] later [];
    DISCOVER_ORIGINAL = "`discover.original`" [] later [];
    DISCOVER_FILE = "`discover.file`" ["path"] later [];
    DISCOVER_XDS = "`discover.xds`" ["address" "resource" "node" "tls"] later [];
    DISCOVER_XDS_NODE = "`discover.xds.node`" ["id" "cluster"] later [];
    ENDPOINT = "an endpoint" ["address" "weight" "priority" "zone" "labels"] later [];
    BALANCE = "`balance`" ["policy" "panic" "zone_aware" "max_load"] later [];
    HASH = "`hash`" ["cookie"] later [];
    COOKIE = "`cookie`" ["name" "ttl"] later [];
    POOL = "`pool`" ["idle" "max_idle" "max_requests" "max_age"] later [];
    UPSTREAM_LIMITS = "an upstream's `limits`" [
        "connections" "in_flight" "pending" "queue" "retry_budget"
    ] later [];
    BREAKER = "`breaker`" ["errors" "slow" "window" "min_requests" "open_for" "probes"] later [];
    SLOW = "`slow`" ["share" "over"] later [];
    THROTTLE = "`throttle`" ["k"] later [];
    OUTLIERS = "`outliers`" [
        "consecutive" "gateway" "success_rate" "local_origin" "eject" "max_ejected" "enforce"
    ] later [];
    SUCCESS_RATE = "`success_rate`" ["stdev" "min_hosts" "min_requests"] later [];
    BUDGET = "`retry_budget`" ["ratio" "floor" "window"] later [];
    HEALTH = "`health`" ["http" "tcp" "grpc" "status" "host" "interval" "timeout" "rise" "fall"] later [];
}

sections! {
    /// The same for the scenarios of `outrigger simulate`.
    SCENARIOS:
    SCENARIO = "a scenario" ["about" "duration" "grace" "clients" "servers" "hops" "headers" "events"] later [];
    SCENARIO_CLIENTS = "`clients`" ["sidecars" "workers" "rate"] later [];
    SCENARIO_SERVERS = "`servers`" ["endpoints" "service_time" "slots" "queue" "rtt" "zones" "spare"] later [];
    SCENARIO_TIME = "`service_time`" ["median" "p99"] later [];
    SCENARIO_EVENT = "an event" ["at" "for" "hop" "endpoints" "fault" "restart" "load"] later [];
    SCENARIO_FAULT = "`fault`" ["reset" "errors" "slow" "capacity" "flap"] later [];
    SCENARIO_ERRORS = "`errors`" ["share" "status"] later [];
    SCENARIO_FLAP = "`flap`" ["every" "down"] later [];
    SCENARIO_RESTART = "`restart`" ["every" "down" "cold" "slow"] later [];
}

/// What other proxies, and people, call our keys. The first whose key the map has is meant.
pub(super) const OTHER_WORDS: &[(&str, &str)] = &[
    ("frontends", "listeners"),
    ("entrypoints", "listeners"),
    ("servers", "listeners"),
    ("backends", "upstreams"),
    ("clusters", "upstreams"),
    ("services", "upstreams"),
    ("accesslog", "access_log"),
    ("logging", "access_log"),
    ("concurrency", "workers"),
    ("threads", "workers"),
    ("address", "bind"),
    ("listen", "bind"),
    ("port", "bind"),
    ("authorization", "authorize"),
    ("jwt_authn", "jwt"),
    ("jwks_uri", "jwks"),
    ("jwksUri", "jwks"),
    ("audiences", "audience"),
    ("claim_to_headers", "claims"),
    ("clock_skew_seconds", "leeway"),
    ("rbac", "authorize"),
    ("principals", "from"),
    ("source_ip", "source"),
    ("ip_blocks", "source"),
    ("cidr", "source"),
    ("methods", "method"),
    ("paths", "path"),
    ("backend", "to"),
    ("cluster", "to"),
    ("proxy_pass", "to"),
    ("service", "to"),
    ("upstream", "to"),
    ("weighted_clusters", "to"),
    ("request_timeout", "timeout"),
    ("idle_timeout", "idle"),
    ("retry_policy", "retry"),
    ("on", "when"),
    ("retry_on", "when"),
    ("hedging", "hedge"),
    ("hedge_policy", "hedge"),
    ("hedging_delay", "after"),
    ("delay", "after"),
    ("request_mirror_policies", "mirror"),
    ("mirroring", "mirror"),
    ("shadow", "mirror"),
    ("faults", "fault"),
    ("fault_injection", "fault"),
    ("percent", "share"),
    ("percentage", "share"),
    ("fixed_delay", "for"),
    ("duration", "for"),
    ("code", "status"),
    ("http_status", "status"),
    ("ratelimit", "rate_limit"),
    ("local_rate_limit", "rate_limit"),
    ("average", "rate"),
    ("key", "by"),
    ("max_retries", "attempts"),
    ("num_retries", "attempts"),
    ("per_try_timeout", "per_try"),
    ("domains", "host"),
    ("hosts", "host"),
    ("location", "path"),
    ("prefix", "path"),
    ("uri", "path"),
    ("url", "path"),
    ("addresses", "endpoints"),
    ("backends", "endpoints"),
    ("hosts", "endpoints"),
    ("servers", "endpoints"),
    ("targets", "endpoints"),
    ("algorithm", "balance"),
    ("lb", "balance"),
    ("lb_policy", "balance"),
    ("load_balancer", "balance"),
    ("strategy", "balance"),
    ("max_connections", "connections"),
    ("max_requests", "in_flight"),
    ("max_pending_requests", "pending"),
    ("queue_timeout", "queue"),
    ("circuit_breaker", "breaker"),
    ("circuit_breakers", "breaker"),
    ("circuitbreaker", "breaker"),
    ("error_rate", "errors"),
    ("failure_rate", "errors"),
    ("failure_rate_threshold", "errors"),
    ("minimum_number_of_calls", "min_requests"),
    ("request_volume", "min_requests"),
    ("wait_duration_in_open_state", "open_for"),
    ("fallback_duration", "open_for"),
    ("adaptive_concurrency", "adaptive"),
    ("admission_control", "throttle"),
    ("health_check", "health"),
    ("health_checks", "health"),
    ("healthcheck", "health"),
    ("livenessProbe", "health"),
    ("readinessProbe", "health"),
    ("httpGet", "http"),
    ("path", "http"),
    ("ssl", "tls"),
    ("certificate", "cert"),
    ("tls_certificate", "cert"),
    ("private_key", "key"),
    ("trusted_ca", "ca"),
    ("ca_file", "ca"),
    ("server_name", "sni"),
    ("require_client_certificate", "client_cert"),
    ("mode", "client_cert"),
    ("match_typed_subject_alt_names", "allow"),
    ("subject_alt_names", "verify"),
    ("tcpSocket", "tcp"),
    ("expected_statuses", "status"),
    ("periodSeconds", "interval"),
    ("healthy_threshold", "rise"),
    ("successThreshold", "rise"),
    ("unhealthy_threshold", "fall"),
    ("failureThreshold", "fall"),
    ("outlier_detection", "outliers"),
    ("consecutive_5xx", "consecutive"),
    ("consecutive_gateway_failure", "gateway"),
    ("base_ejection_time", "eject"),
    ("max_ejection_percent", "max_ejected"),
    ("enforcing", "enforce"),
    ("healthy_panic_threshold", "panic"),
    ("stdev_factor", "stdev"),
    ("dc", "datacenter"),
    ("tag", "tags"),
    ("token", "token_file"),
    ("host", "address"),
    ("hash_policy", "hash"),
    ("session_affinity", "hash"),
    ("sticky", "hash"),
    ("hash_balance_factor", "max_load"),
    ("max_age", "ttl"),
    ("lb_subset", "subset"),
];
