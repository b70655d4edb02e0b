//! How much of the traffic each priority gets.

/// An available share of 1 ÷ this is taken for the whole: Envoy's overprovisioning factor.
///
/// Upstreams are made larger than their traffic. 1.4: a priority keeps everything down to 72 % of its weight, so that the
/// restart of one endpoint of four sends nobody elsewhere; below that what is missing overflows to the next.
const SPARE: f64 = 1.4;

/// What a priority has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tier {
    /// Sum of its weights.
    pub(super) weight: u64,
    /// Sum of the weights that may be picked: neither unhealthy nor ejected.
    pub(super) available: u64,
    /// Its endpoints.
    pub(super) endpoints: usize,
    /// Those whose checks fail.
    pub(super) unhealthy: usize,
}

/// What becomes of a priority.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// Of the requests, `0.0..=1.0`.
    pub(super) share: f64,
    /// Its unhealthy endpoints are used as well.
    pub(super) panics: bool,
}

impl Tier {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            weight: self.weight + other.weight,
            available: self.available + other.available,
            endpoints: self.endpoints + other.endpoints,
            unhealthy: self.unhealthy + other.unhealthy,
        }
    }

    /// The part of its load that it can take, `0.0..=1.0`.
    #[expect(clippy::cast_precision_loss, reason = "sums of weights, far below 2^53")]
    fn capacity(&self) -> f64 {
        (SPARE * self.available as f64 / (self.weight.max(1) as f64)).min(1.0)
    }

    /// So few of its endpoints pass their checks that the checks are believed less.
    #[expect(clippy::cast_precision_loss, reason = "endpoints, far below 2^53")]
    fn has_too_few(&self, panic_below: f64) -> bool {
        let working = self.endpoints - self.unhealthy;
        self.unhealthy > 0 && (working as f64) < panic_below * self.endpoints as f64
    }
}

/// Shares of `tiers`, the first choice first; they add up to 1.
///
/// The first takes what it can, the next what is left. Where all together cannot take everything, each gets in proportion
/// to what it can, and those with too few healthy endpoints panic. While they can, none panics: better another priority
/// than an endpoint that is known to be broken. Source: Envoy, "Priority levels" and "Panic threshold"; there capacities
/// count endpoints, here their weights.
pub(super) fn spread(tiers: &[Tier], panic_below: f64) -> Vec<Verdict> {
    let capacity = tiers.iter().map(Tier::capacity).sum::<f64>().min(1.0);
    let panics = |tier: &Tier| capacity < 1.0 && tier.has_too_few(panic_below);
    if capacity <= 0.0 {
        return without_capacity(tiers, panics);
    }
    let mut left = 1.0;
    let verdict = |tier: &Tier| {
        let share = (tier.capacity() / capacity).min(left);
        left -= share;
        Verdict { share, panics: panics(tier) }
    };
    tiers.iter().map(verdict).collect()
}

/// Nothing is available: what panics shares by weight. Where nothing does, no share has any effect.
fn without_capacity(tiers: &[Tier], panics: impl Fn(&Tier) -> bool) -> Vec<Verdict> {
    let used = |tier: &&Tier| panics(tier);
    let total: u64 = tiers.iter().filter(used).map(|tier| tier.weight).sum();
    #[expect(clippy::cast_precision_loss, reason = "sums of weights, far below 2^53")]
    let verdict = |(index, tier): (usize, &Tier)| {
        let share = match total {
            0 => f64::from(u8::from(index == 0)),
            _ => f64::from(u8::from(panics(tier))) * tier.weight as f64 / total as f64,
        };
        Verdict { share, panics: panics(tier) }
    };
    tiers.iter().enumerate().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Percent of the traffic, of priorities with so many endpoints, of them healthy.
    fn percent(tiers: &[(usize, usize)]) -> Vec<(f64, bool)> {
        let tier = |&(endpoints, healthy): &(usize, usize)| Tier {
            weight: endpoints as u64,
            available: healthy as u64,
            endpoints,
            unhealthy: endpoints - healthy,
        };
        let tiers: Vec<Tier> = tiers.iter().map(tier).collect();
        let verdicts = spread(&tiers, 0.5);
        verdicts.iter().map(|verdict| ((verdict.share * 100.0).round(), verdict.panics)).collect()
    }

    #[test]
    fn the_next_priority_gets_what_the_first_cannot_take() {
        for (tiers, expected) in [
            ([(100, 100), (100, 100)], [(100.0, false), (0.0, false)]),
            ([(100, 72), (100, 100)], [(100.0, false), (0.0, false)]),
            ([(100, 71), (100, 100)], [(99.0, false), (1.0, false)]),
            ([(100, 50), (100, 100)], [(70.0, false), (30.0, false)]),
            ([(100, 25), (100, 100)], [(35.0, false), (65.0, false)]),
            ([(100, 0), (100, 100)], [(0.0, false), (100.0, false)]),
            // Together less than all: in proportion, and who has too few panics.
            ([(100, 25), (100, 25)], [(50.0, true), (50.0, true)]),
            ([(100, 5), (100, 65)], [(7.0, true), (93.0, false)]),
            ([(100, 0), (300, 0)], [(25.0, true), (75.0, true)]),
        ] {
            assert_eq!(percent(&tiers), expected, "{tiers:?}");
        }
    }

    #[test]
    fn shares_add_up_and_none_of_what_is_available_is_left_out() {
        let mut rng = Rng::from_seed(11);
        for _ in 0..10_000 {
            let tiers: Vec<Tier> = (0..=rng.below(5))
                .map(|_| {
                    let endpoints = 1 + rng.below(20);
                    let unhealthy = rng.below(endpoints + 1);
                    let weight = (endpoints * (1 + rng.below(9))) as u64;
                    let available = weight * (endpoints - unhealthy) as u64 / endpoints as u64;
                    Tier { weight, available, endpoints, unhealthy }
                })
                .collect();
            let verdicts = spread(&tiers, rng.fraction());
            let sum: f64 = verdicts.iter().map(|verdict| verdict.share).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{tiers:?} {verdicts:?}");
            let any = tiers.iter().any(|tier| tier.available > 0);
            for (index, verdict) in verdicts.iter().enumerate() {
                assert!((0.0..=1.0).contains(&verdict.share));
                // A later priority gets nothing while an earlier one has room.
                let room = tiers[..index].iter().all(|tier| tier.capacity() < 1.0);
                assert!(room || verdict.share < 1e-9, "{tiers:?} {verdicts:?}");
                let empty = any && tiers[index].available == 0;
                assert!(!empty || verdict.share < 1e-9, "{tiers:?} {verdicts:?}");
            }
        }
    }

    #[test]
    fn where_nothing_is_available_and_panic_is_off_the_first_is_asked() {
        let tier = Tier { weight: 3, available: 0, endpoints: 3, unhealthy: 3 };
        let verdicts = spread(&[tier; 2], 0.0);
        let share = |index: usize| (verdicts[index].share, verdicts[index].panics);
        assert_eq!((share(0), share(1)), ((1.0, false), (0.0, false)));
    }
}
