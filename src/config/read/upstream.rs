//! `upstreams`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::units::{Rate, Ratio};
use crate::config::keys;
use crate::config::node::Value;
use crate::config::outliers::Outliers;
use crate::config::{
    Balancing, Budget, Discover, PoolIdle, PoolSettings, Upstream, UpstreamLimits, UpstreamProtocol,
};

use super::{At, Fields, balance, discover, endpoints, gate, health, listener, outliers, tls};

/// Every upstream, in the order of the file.
pub(super) fn all(at: At<'_>) -> Option<Vec<Upstream>> {
    let pairs = at.pairs("a map from names to upstreams")?;
    Some(pairs.iter().filter_map(|(_, at)| one(at)).collect())
}

/// What `defaults.upstream` holds, read only for its mistakes.
pub(super) fn defaults(at: At<'_>) -> Option<()> {
    let fields = at.fields(&keys::UPSTREAM_DEFAULTS)?;
    policy(&fields, String::new(), Discover::Endpoints(Vec::new()));
    Some(())
}

fn one(at: &At<'_>) -> Option<Upstream> {
    let name = listener::name(at).map(str::to_owned);
    let fields = at.fields(&keys::UPSTREAM)?;
    let source = fields.exactly_one(&["endpoints", "discover"]);
    let discover = source.and_then(|at| match at.path.steps().last() {
        Some(crate::config::node::Step::Key("discover")) => discover::discover(&at),
        _ => endpoints::written(&at).map(Discover::Endpoints),
    });
    let absent = Discover::Endpoints(Vec::new());
    let known = discover.is_some();
    let subset = fields.read("subset", balance::subset).unwrap_or_default();
    let name_of_it = name.clone().unwrap_or_default();
    let mut upstream =
        Upstream { subset, ..policy(&fields, name_of_it, discover.unwrap_or(absent)) };
    if upstream.discover == Discover::Original
        && upstream.health.take().is_some()
        && let Some(health) = fields.get("health").filter(|at| !at.node.inherited)
    {
        let message = "`original://` has no endpoints to check";
        health.push(health.error("contradiction", message).label("remove `health`"));
    }
    tls::name_of_sockets(&fields, &upstream);
    (known && name.is_some()).then_some(upstream)
}

fn policy(fields: &Fields<'_>, name: String, discover: Discover) -> Upstream {
    let protocols = [
        ("http1", UpstreamProtocol::Http1),
        ("http2", UpstreamProtocol::Http2),
        ("auto", UpstreamProtocol::Auto),
    ];
    let protocol = fields.read("protocol", |at| at.word(&protocols));
    let advised = matches!(discover, Discover::Xds(_)) && fields.get("balance").is_none();
    let balance = fields.read("balance", balance::balancing).unwrap_or_default();
    Upstream {
        name,
        discover,
        protocol: protocol.unwrap_or(UpstreamProtocol::Auto),
        tls: fields.read("tls", tls::upstream).flatten(),
        connect_timeout: fields.read("connect_timeout", |at| at.span_of_time()),
        balance: Balancing { advised, ..balance },
        subset: BTreeMap::new(),
        slow_start: fields.read("slow_start", outliers::slow_start).unwrap_or(None),
        pool: pool(fields.get("pool")),
        limits: limits(fields.get("limits")),
        breaker: fields.read("breaker", gate::breaker),
        adaptive: gate::adaptive(fields),
        throttle: fields.read("throttle", gate::throttle),
        health: fields.read("health", health::health).flatten(),
        outliers: fields
            .read("outliers", outliers::outliers)
            .unwrap_or_else(|| Some(Outliers::default())),
    }
}

fn pool(at: Option<At<'_>>) -> PoolSettings {
    let mut pool =
        PoolSettings { idle: PoolIdle::Auto, max_idle: 100, max_requests: None, max_age: None };
    let Some(at) = at else { return pool };
    let Some(fields) = at.fields(&keys::POOL) else { return pool };
    pool.idle = fields.read("idle", |at| pool_idle(&at)).unwrap_or(pool.idle);
    pool.max_idle = fields.read("max_idle", |at| at.number(0..=65_535)).unwrap_or(pool.max_idle);
    pool.max_requests = fields
        .read("max_requests", |at| at.or_unlimited(|at| at.integer(1..=u64::MAX)))
        .unwrap_or(pool.max_requests);
    pool.max_age = fields
        .read("max_age", |at| at.or_unlimited(|at| at.span_of_time()))
        .unwrap_or(pool.max_age);
    pool
}

fn pool_idle(at: &At<'_>) -> Option<PoolIdle> {
    match &at.scalar("`auto` or a duration like `4s`")?.text {
        word if word == "auto" => Some(PoolIdle::Auto),
        _ => at.span_of_time().map(PoolIdle::After),
    }
}

fn limits(at: Option<At<'_>>) -> UpstreamLimits {
    let mut limits = UpstreamLimits {
        connections: Some(1024),
        in_flight: Some(1024),
        pending: Some(256),
        queue: Duration::from_secs(1),
        retry_budget: standard_budget(),
    };
    let Some(at) = at else { return limits };
    let Some(fields) = at.fields(&keys::UPSTREAM_LIMITS) else { return limits };
    let count = |key, least, standard| {
        let range = least..=u64::from(u32::MAX);
        fields.read(key, |at| at.or_unlimited(|at| at.number(range))).unwrap_or(standard)
    };
    limits.connections = count("connections", 1, limits.connections);
    limits.in_flight = count("in_flight", 1, limits.in_flight);
    limits.pending = fields
        .read("pending", |at| match &at.node.value {
            // 0 is a number here: it turns waiting off.
            Value::Scalar(scalar) if scalar.text == "0" => Some(Some(0)),
            _ => at.or_unlimited(|at| at.number(0..=u64::from(u32::MAX))),
        })
        .unwrap_or(limits.pending);
    limits.queue = fields.read("queue", |at| at.span_of_time()).unwrap_or(limits.queue);
    limits.retry_budget = fields.read("retry_budget", budget).unwrap_or(limits.retry_budget);
    limits
}

fn standard_budget() -> Budget {
    #[expect(clippy::expect_used, reason = "invariant: both literals are in range")]
    let (ratio, floor) = (
        Ratio::from_percent(20.0).expect("20% is a share"),
        Rate::per_second_of(3.0).expect("3/s is a rate"),
    );
    Budget { ratio, floor, window: Duration::from_secs(10) }
}

fn budget(at: At<'_>) -> Option<Budget> {
    let standard = standard_budget();
    if let Value::Scalar(_) = at.node.value {
        return at.share().map(|ratio| Budget { ratio, ..standard });
    }
    let fields = at.fields(&keys::BUDGET)?;
    let window = fields.read("window", |at| at.span_of_time()).filter(|window| {
        let fits = (Duration::from_secs(1)..=Duration::from_secs(300)).contains(window);
        if let (false, Some(at)) = (fits, fields.get("window")) {
            let error = at.error("out-of-range", "`window` is out of range");
            at.push(error.label("write a duration from 1s to 5m"));
        }
        fits
    });
    Some(Budget {
        ratio: fields.read("ratio", |at| at.share()).unwrap_or(standard.ratio),
        floor: fields.read("floor", |at| at.rate()).unwrap_or(standard.floor),
        window: window.unwrap_or(standard.window),
    })
}
