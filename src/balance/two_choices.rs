//! The better of two random endpoints.

use super::endpoint_set::{EndpointSet, Member};
use super::tried::Tried;
use crate::base::rng::Rng;

/// With unequal weights, how much cheaper the second choice must be to win.
///
/// The first choice is drawn by weight. Were the slightest difference enough, whichever endpoint was quiet for longer
/// would win (its estimate has decayed a little more), and with few endpoints the weights would mean nothing.
const CLEARLY: f64 = 1.25;

/// Draws two different endpoints by weight and takes the one of lower `cost`; the first where neither is better.
///
/// The cost counts load *per weight* ([`Member::load_per_share`]). Both belong together: where all are loaded in
/// proportion to their weights, costs are equal, the draw decides, and keeps the proportion. Uniform draws would have to
/// fight their way there; `cost ÷ weight` as a whole would leave the light endpoints of an idle upstream without any
/// request. A weight is thus a capacity: it says how much an endpoint takes, not how fast it answers.
pub(super) fn pick(
    set: &EndpointSet,
    tried: &Tried,
    rng: &mut Rng,
    cost: impl Fn(&Member) -> f64,
) -> Option<usize> {
    let members = set.members();
    let fresh = |index: usize| tried.is_empty() || !tried.contains(members[index].endpoint.id);
    let first = set.draw(rng, fresh)?;
    let Some(second) = set.draw(rng, |index| index != first && fresh(index)) else {
        return Some(first);
    };
    let margin = if set.is_even() { 1.0 } else { CLEARLY };
    let second_wins = cost(&members[second]) * margin < cost(&members[first]);
    Some(if second_wins { second } else { first })
}
