#!/usr/bin/env python3
"""Writes Envoy's bootstrap (JSON) for the six listeners: envoy.py BASE PKI OUT"""

import json
import sys

B, PKI, OUT = sys.argv[1:4]


def addr(p):
    return {"socket_address": {"address": "127.0.0.1", "port_value": int(p)}}


T = "type.googleapis.com/envoy."


def hcm(cluster, h2=False):
    return {
        "name": "hcm",
        "typed_config": {
            "@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "codec_type": "HTTP2" if h2 else "AUTO",
            "use_remote_address": True,
            "common_http_protocol_options": {"idle_timeout": "300s"},
            "stream_idle_timeout": "300s",
            "request_timeout": "15s",
            "http2_protocol_options": {"max_concurrent_streams": 512},
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "v",
                        "domains": ["*"],
                        "routes": [
                            {
                                "match": {"prefix": "/"},
                                "route": {
                                    "cluster": cluster,
                                    "timeout": "15s",
                                    "retry_policy": {
                                        "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-status-codes",
                                        "retriable_status_codes": [503],
                                        "num_retries": 2,
                                    },
                                },
                            }
                        ],
                    }
                ]
            },
            "http_filters": [
                {"name": "router", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}
            ],
        },
    }


certs = {
    "tls_certificates": [
        {"certificate_chain": {"filename": f"{PKI}/leaf.pem"}, "private_key": {"filename": f"{PKI}/leaf.key"}}
    ],
    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
}
val = {"validation_context": {"trusted_ca": {"filename": f"{PKI}/ca.pem"}}}


def down(m):
    return {
        "name": "tls",
        "typed_config": {
            "@type": T + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": m,
            "common_tls_context": {**certs, "alpn_protocols": ["h2", "http/1.1"], **(val if m else {})},
        },
    }


def lst(n, filt, ts=None):
    fc = {"filters": [filt]}
    if ts:
        fc["transport_socket"] = ts
    return {"name": f"l{n}", "address": addr(f"{B}{n}"), "filter_chains": [fc], "tcp_backlog_size": 4096}


def cluster(name, ports, h2=False, tls=False):
    c = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 20000,
                    "max_pending_requests": 20000,
                    "max_requests": 20000,
                    "max_retries": 100,
                }
            ]
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": addr(p)}} for p in ports]}],
        },
    }
    if h2:
        c["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": T + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    if tls:
        c["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": T + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "svc.test",
                "common_tls_context": {
                    **certs,
                    "validation_context": {
                        **val["validation_context"],
                        "match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": "svc.test"}}
                        ],
                    },
                },
            },
        }
    return c


tcp = {
    "name": "tcp",
    "typed_config": {
        "@type": T + "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": "h1",
    },
}
cfg = {
    "static_resources": {
        "listeners": [
            lst("01", hcm("h1")),
            lst("02", hcm("h1", True)),
            lst("03", hcm("h2", True)),
            lst("04", hcm("h1"), down(False)),
            lst("05", hcm("mtls"), down(True)),
            lst("06", tcp),
        ],
        "clusters": [
            cluster("h1", [9001, 9002, 9003]),
            cluster("h2", [9011, 9012, 9013], h2=True),
            cluster("mtls", [9021, 9022, 9023], tls=True),
        ],
    },
    "layered_runtime": {
        "layers": [{"name": "s", "static_layer": {"overload.global_downstream_max_connections": 50000}}]
    },
}
json.dump(cfg, open(OUT, "w"), indent=1)
