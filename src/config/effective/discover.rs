//! `endpoints` or `discover` of an upstream: as a URL where it says everything, else in the long form.

use crate::config::Discover;
use crate::config::node::Node;

use super::below;
use super::write::{self, Writer, list, quoted};

pub(super) fn source(w: &mut Writer<'_>, discover: &Discover, upstream: Option<&Node>) {
    let node = below(upstream, "discover", "");
    match discover {
        Discover::Endpoints(endpoints) => {
            let items = endpoints.iter().map(write::endpoint);
            w.leaf("endpoints", list(items), below(upstream, "endpoints", ""));
        }
        // A URL says it all.
        Discover::Dns { .. } => w.leaf("discover", quoted(discover.source()), node),
    }
}
