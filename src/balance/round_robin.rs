//! Endpoints in turns, by weight.

use std::sync::atomic::{AtomicU64, Ordering};

use super::candidates::Candidates;
use super::standing::FULL;
use crate::base::rng::Rng;

/// Turns that are given away, where an endpoint was tried or is not available, before one is drawn at random.
const GIVEN_AWAY: usize = 4;

/// The endpoint whose turn it is.
///
/// One shared counter, no lock. Equal weights: the counter modulo the number of endpoints. Others: of all weights laid
/// end to end, `T` units long, turn `k` takes the unit `k × step mod T`, with `step` near `T ÷ φ` and without a common
/// divisor with `T`. As `k` runs through `T` turns every unit is taken exactly once, so each endpoint gets *exactly* its
/// weight in every `T` picks, whatever worker they come from; and as multiples of the golden section are spread as evenly as
/// numbers can be (Knuth, TAOCP 3, §6.4), a heavy endpoint's turns do not bunch: in tests no endpoint is ever more than three
/// turns from its due.
///
/// Rejected: nginx's smooth weighted round robin (adds to every endpoint on each pick: O(n), a lock); Envoy's earliest
/// deadline first (a heap under a lock); gRPC's static stride scheduler (`static_stride_scheduler.cc`, lock-free like
/// this, but skips `max ÷ mean` turns per pick and therefore caps weights at 10 × their mean).
#[inline(always)]
pub(super) fn pick(
    sequence: &AtomicU64,
    candidates: &Candidates<'_>,
    rng: &mut Rng,
) -> Option<usize> {
    for _ in 0..GIVEN_AWAY {
        // Relaxed: only the uniqueness of each number matters.
        let index = candidates.set.turn(sequence.fetch_add(1, Ordering::Relaxed));
        let share = candidates.share(index);
        // Under slow start most turns are given away at first.
        if share == FULL || (share > 0 && rng.below(FULL as usize) < share as usize) {
            return Some(index);
        }
    }
    candidates.draw(rng)
}
