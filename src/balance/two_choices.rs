//! The better of two random endpoints.

use super::candidates::Candidates;
use crate::base::rng::Rng;

/// With unequal weights, how much cheaper the second choice must be to win.
///
/// The first choice is drawn by weight. Were the slightest difference enough, whichever endpoint was quiet for longer
/// would win (its estimate has decayed a little more), and with few endpoints the weights would mean nothing.
const CLEARLY: f64 = 1.25;

/// Draws two different endpoints by weight and takes the one of lower `cost`; the first where neither is better.
///
/// The cost counts load *per weight* ([`Candidates::load`]). Both belong together: where all are loaded in
/// proportion to their weights, costs are equal, the draw decides, and keeps the proportion. Uniform draws would have to
/// fight their way there; `cost ÷ weight` as a whole would leave the light endpoints of an idle upstream without any
/// request. A weight is thus a capacity: it says how much an endpoint takes, not how fast it answers.
///
/// An endpoint that is due for its probe is taken whatever it costs: its estimate is that of its failures.
pub(super) fn pick(
    candidates: &Candidates<'_>,
    rng: &mut Rng,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    let set = candidates.set;
    let first = candidates.draw(rng)?;
    if candidates.is_probe(first) {
        return Some(first);
    }
    let others = |index| if index == first { 0 } else { candidates.share(index) };
    let Some(second) = set.draw(rng, others) else {
        return Some(first);
    };
    if candidates.is_probe(second) {
        return Some(second);
    }
    let margin = if set.is_even() { 1.0 } else { CLEARLY };
    let second_wins = cost(second) * margin < cost(first);
    Some(if second_wins { second } else { first })
}
