//! `health` of an upstream.

use serde_json::{Value, json};

use crate::config::schema::parts::{
    any_of, boolean, duration, integer, object, one_or_more, pattern, text, words,
};

pub(super) fn health() -> Value {
    let status = any_of(vec![integer(200, 599), pattern(r"^[2-5][0-9]{2}(\.\.[2-5][0-9]{2})?$")]);
    let mut health = object(
        "`health`",
        &[],
        vec![
            ("http", "A path: GET, and a look at the answer's status.", pattern("^/")),
            ("tcp", "True: a connection stands.", boolean()),
            ("grpc", "A service, or nothing for the whole server: gRPC health v1.", text()),
            (
                "status",
                "Statuses that pass, of `http`: one, a range with both ends, or a list. Default 200..299.",
                one_or_more(status),
            ),
            (
                "host",
                "Sent as Host or :authority. Default: the name that discovery looks up, else the address.",
                text(),
            ),
            ("interval", "From check to check, 10ms to 1h. Default 5s.", duration()),
            ("timeout", "Until the answer, 1ms to 1m. Default 1s.", duration()),
            ("rise", "Passes in a row until healthy. Default 2.", integer(1, 100)),
            ("fall", "Failures in a row until unhealthy. Default 3.", integer(1, 100)),
        ],
    );
    health["oneOf"] =
        json!([{ "required": ["http"] }, { "required": ["tcp"] }, { "required": ["grpc"] }]);
    any_of(vec![words(&["never", "tcp", "grpc"]), pattern("^/"), health])
}
