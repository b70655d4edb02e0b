//! Whole files: what loads, what does not, and how it is told.

mod errors;
mod hostile;
mod valid;

use super::{Loaded, load_str};

/// Loads `text` with the environment of every test.
fn load(text: &str) -> Loaded {
    let env = |name: &str| match name {
        "PORT" => Some("9000".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    load_str("outrigger.yaml", text, &env)
}

/// The nine lines of the README.
pub(super) const NINE: &str = "\
admin: 127.0.0.1:9901

listeners:
  outbound:
    bind: 127.0.0.1:8080
    routes:
      - to: articles

upstreams:
  articles:
    discover: dns://articles.internal:5001
";
