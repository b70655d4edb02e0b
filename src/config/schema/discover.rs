//! `endpoints` and `discover` of an upstream: one entry for each provider.

use serde_json::{Value, json};

use super::parts::{any_of, boolean, integer, map_of, object, one_or_more, pattern, text};

pub(super) fn endpoints() -> Value {
    let endpoint = any_of(vec![
        text(),
        object(
            "an endpoint",
            &["address"],
            vec![
                ("address", "`127.0.0.1:5001`, `[::1]:5001` or `unix:/run/app.sock`.", text()),
                ("weight", "Relative share, 1 to 1000. Default 1.", integer(1, 1_000)),
                (
                    "priority",
                    "0 is used first, the next for what it cannot take. Default 0.",
                    integer(0, 65_535),
                ),
                ("zone", "Where it stands.", text()),
                ("labels", "Free words about it.", map_of(text())),
            ],
        ),
    ]);
    json!({ "type": "array", "minItems": 1, "items": endpoint })
}

pub(super) fn discover() -> Value {
    let mut long = object(
        "`discover`",
        &[],
        vec![
            (
                "original",
                "Where redirected connections were going.",
                object("`discover.original`", &[], vec![]),
            ),
            ("dns+srv", "SRV records of a name.", srv()),
            ("dns", "A and AAAA records of a name.", dns()),
            ("consul", "Healthy instances of a service in Consul.", consul()),
            ("k8s", "EndpointSlices of a Kubernetes service.", kubernetes()),
            ("file", "A list as under `endpoints`, in YAML or JSON.", file()),
            ("xds", "An assignment from a control plane, over ADS.", xds()),
        ],
    );
    long["minProperties"] = json!(1);
    long["maxProperties"] = json!(1);
    any_of(vec![
        pattern("^dns://.+:[0-9]+$"),
        pattern("^dns[+]srv://[^:/]+$"),
        pattern("^original://$"),
        pattern("^file:///.*[^/]$"),
        pattern("^consul://.+:[0-9]+/[^/?#&=%]+([?].*)?$"),
        pattern("^k8s://[a-z0-9-]+/[a-z0-9-]+:[a-z0-9-]+$"),
        pattern("^xds://.+:[0-9]+/.+$"),
        long,
    ])
}

fn dns() -> Value {
    object(
        "`discover.dns`",
        &["host", "port"],
        vec![
            ("host", "The name; the search domains of `dns` apply.", text()),
            ("port", "Of every address.", integer(1, 65_535)),
        ],
    )
}

fn srv() -> Value {
    let name = ("name", "Such as `_http._tcp.articles.internal`.", text());
    object("`discover.dns+srv`", &["name"], vec![name])
}

fn file() -> Value {
    let path = ("path", "Absolute; read again when its content changes.", text());
    object("`discover.file`", &["path"], vec![path])
}

fn consul() -> Value {
    object(
        "`discover.consul`",
        &["address", "service"],
        vec![
            ("address", "The agent, such as `127.0.0.1:8500`.", text()),
            ("service", "Its name in Consul.", text()),
            ("tags", "All of these an instance must have.", one_or_more(text())),
            ("datacenter", "Default: the agent's own.", text()),
            ("passing", "Without instances that have a warning. Default false.", boolean()),
            ("token_file", "Where the ACL token stands; read with each question.", text()),
            ("tls", "TLS towards the agent. Default never.", super::tls::upstream()),
        ],
    )
}

fn xds() -> Value {
    let node = vec![
        ("id", "Default: `service`, a dash and the machine's name.", text()),
        ("cluster", "Default: `service`.", text()),
    ];
    object(
        "`discover.xds`",
        &["address", "resource"],
        vec![
            ("address", "The control plane, `host:port`.", pattern("^.+:[0-9]+$")),
            ("resource", "The name of a ClusterLoadAssignment.", text()),
            (
                "node",
                "Who we are to the control plane: an id, or more.",
                any_of(vec![text(), object("`discover.xds.node`", &[], node)]),
            ),
            ("tls", "TLS towards the control plane. Default never.", super::tls::upstream()),
        ],
    )
}

fn kubernetes() -> Value {
    object(
        "`discover.k8s`",
        &["namespace", "service", "port"],
        vec![
            ("namespace", "The service's.", text()),
            ("service", "Its name.", text()),
            (
                "port",
                "The name that the service gave it, or the pods' own number.",
                any_of(vec![text(), integer(1, 65_535)]),
            ),
            ("kubeconfig", "How the API server is reached. Default: as a pod reaches it.", text()),
            ("context", "Of the kubeconfig. Default: its current one.", text()),
        ],
    )
}
