//! The better of two random endpoints by requests in flight.

use super::candidates::Candidates;
use super::two_choices;
use crate::base::rng::Rng;

/// The endpoint with fewer requests in flight per weight, of two drawn by weight.
///
/// For upstreams whose latency says little about the endpoint (long polling, uploads, mixed methods), where
/// `peak_ewma` would mistake a long request for a slow endpoint. Requests in flight are ours alone: what other proxies
/// send is not seen. Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001); Envoy
/// `LEAST_REQUEST` with `choice_count: 2`.
pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
    two_choices::pick(candidates, rng, |index| candidates.load(index))
}
