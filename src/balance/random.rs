//! A random endpoint.

use super::candidates::Candidates;
use crate::base::rng::Rng;

/// An endpoint drawn by weight; each draw is independent of every other.
///
/// Needs no state and no counts, and is fair only on average: of 1 000 requests to 10 endpoints the busiest gets about
/// 115. Its use is as the yardstick for the others, and where one proxy's view of load misleads.
pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
    candidates.draw(rng)
}
