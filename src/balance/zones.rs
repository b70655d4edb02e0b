//! How much of a priority's traffic stays in our own zone.

/// Shares of the zones; `available` holds the weights that may be picked in each with how many zones it stands for, our
/// own zone first. They add up to 1. `None` where nothing is available.
///
/// One zone's sidecars do not know how many callers the others have: they are taken to be the same in each zone, so that with
/// `Z` zones a zone's fair part is `1 ÷ Z`. A zone that has at least its part of the capacity keeps all its requests.
/// One that has less keeps what it has capacity for, and the rest goes to zones that have more than their part, in
/// proportion to what they have to spare. Then, if the callers are spread as assumed, *every* endpoint of every zone has the
/// same load per weight as without zones, and no less than what must cross a zone's border does. Source: Envoy's zone
/// aware routing, which reads the callers' spread from a cluster of its own.
#[expect(clippy::cast_precision_loss, reason = "sums of weights, far below 2^53")]
pub(super) fn spread(available: &[(u64, u32)]) -> Option<Vec<f64>> {
    let total: u64 = available.iter().map(|(weight, _)| weight).sum();
    let zones: u32 = available.iter().map(|(_, zones)| zones).sum();
    let &(own, _) = available.first().filter(|_| total > 0)?;
    let part = |zones: u32| f64::from(zones);
    let of_total = |weight: u64| weight as f64 * f64::from(zones) / total as f64;
    // In units of one zone's traffic.
    let kept = of_total(own).min(1.0);
    let spare = |&(weight, zones): &(u64, u32)| (of_total(weight) - part(zones)).max(0.0);
    let to_spare: f64 = available[1..].iter().map(spare).sum();
    if to_spare <= 0.0 {
        let alone = |index| f64::from(u8::from(index == 0));
        return Some((0..available.len()).map(alone).collect());
    }
    let left = 1.0 - kept;
    let others = available[1..].iter().map(|zone| left * spare(zone) / to_spare);
    Some(std::iter::once(kept).chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn percent(available: &[u64]) -> Vec<f64> {
        let zones: Vec<(u64, u32)> = available.iter().map(|weight| (*weight, 1)).collect();
        let shares = spread(&zones).unwrap();
        shares.iter().map(|share| (share * 100.0).round()).collect()
    }

    #[test]
    fn a_zone_keeps_what_it_has_capacity_for() {
        for (available, expected) in [
            (vec![5, 5, 5], vec![100.0, 0.0, 0.0]),
            (vec![8, 4, 4], vec![100.0, 0.0, 0.0]),
            // A third of the callers, a quarter of the capacity: a quarter of them goes to the zone that has half.
            (vec![3, 6, 3], vec![75.0, 25.0, 0.0]),
            (vec![1, 2, 3], vec![50.0, 0.0, 50.0]),
            (vec![0, 2, 2], vec![0.0, 50.0, 50.0]),
            (vec![0, 0, 7], vec![0.0, 0.0, 100.0]),
            (vec![7, 0, 0], vec![100.0, 0.0, 0.0]),
        ] {
            assert_eq!(percent(&available), expected, "{available:?}");
        }
        assert_eq!(spread(&[(0, 1), (0, 1)]), None);
    }

    /// The bar of the rule: where callers are spread evenly, no zone gets more than its part of the capacity, whichever it is,
    /// and no zone that is available starves.
    #[test]
    fn when_every_zone_does_it_load_per_weight_is_even() {
        let mut rng = Rng::from_seed(5);
        for _ in 0..5_000 {
            let zones = 2 + rng.below(5);
            let weights: Vec<u64> = (0..zones).map(|_| rng.below(40) as u64).collect();
            let total: u64 = weights.iter().sum();
            if total == 0 {
                continue;
            }
            let mut load = vec![0.0; zones];
            for own in 0..zones {
                // Our own first, the others behind it.
                let order: Vec<usize> =
                    std::iter::once(own).chain((0..zones).filter(|zone| *zone != own)).collect();
                let available: Vec<_> = order.iter().map(|zone| (weights[*zone], 1)).collect();
                let shares = spread(&available).unwrap();
                assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{weights:?} {shares:?}");
                for (zone, share) in order.iter().zip(shares) {
                    assert!((0.0..=1.0 + 1e-9).contains(&share));
                    load[*zone] += share / zones as f64;
                }
            }
            for (load, weight) in load.iter().zip(&weights) {
                let due = *weight as f64 / total as f64;
                assert!((load - due).abs() < 1e-9, "{weights:?} {load:?}");
            }
        }
    }
}
