//! `discover:`, as a URL (`dns://name:port`) or as a map (`{ dns: { host: name, port: 80 } }`). Each provider reads both
//! of its forms in a file of its own; [`PROVIDERS`] is the list.

mod consul;
mod dns;
mod file;
mod kubernetes;
mod original;
mod srv;
mod xds;

use crate::config::Discover;
use crate::config::diagnostic::nearest;
use crate::config::keys;
use crate::config::node::Value;

use super::At;

/// A scheme, which is the key of the long form too.
struct Provider {
    scheme: &'static str,
    /// Reads what stands behind `scheme://`; the error is the rest of a sentence that begins with the value.
    url: fn(&str) -> Result<Discover, String>,
    /// Reads the map below the key.
    map: fn(&At<'_>) -> Option<Discover>,
}

/// Every provider, in the order of `keys::DISCOVER`.
const PROVIDERS: &[Provider] = &[
    Provider { scheme: "dns", url: dns::url, map: dns::map },
    Provider { scheme: "dns+srv", url: srv::url, map: srv::map },
    Provider { scheme: "consul", url: consul::url, map: consul::map },
    Provider { scheme: "k8s", url: kubernetes::url, map: kubernetes::map },
    Provider { scheme: "file", url: file::url, map: file::map },
    Provider { scheme: "original", url: original::url, map: original::map },
    Provider { scheme: "xds", url: xds::url, map: xds::map },
];

const RIGHT: &str = "write `dns://name:port`";

pub(super) fn discover(at: &At<'_>) -> Option<Discover> {
    if let Value::Map(entries) = &at.node.value {
        let fields = at.fields(&keys::DISCOVER)?;
        let schemes: Vec<&str> = PROVIDERS.iter().map(|provider| provider.scheme).collect();
        let written = entries.iter().find_map(|entry| provider(&entry.key));
        if written.is_none() && !entries.is_empty() {
            // The wrong key has been told of.
            return None;
        }
        let below = fields.exactly_one(&schemes)?;
        return (written?.map)(&below);
    }
    let text = at.text()?;
    let Some((scheme, rest)) = text.split_once("://") else {
        at.bad_value(text, RIGHT);
        return None;
    };
    let later = keys::DISCOVER.later;
    match provider(scheme) {
        Some(provider) => at.parsed(|_| (provider.url)(rest)),
        None if later.contains(&scheme) => {
            let message = format!("`discover: {scheme}` is not supported by this version yet");
            at.push(at.error("unsupported-key", message).label(RIGHT));
            None
        }
        None => {
            let known = keys::DISCOVER.keys.iter().chain(later).copied();
            let right = match nearest(scheme, known) {
                Some(meant) => format!("did you mean `{meant}://`?"),
                None => RIGHT.to_owned(),
            };
            at.bad_value(text, &right);
            None
        }
    }
}

fn provider(scheme: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.scheme == scheme)
}
