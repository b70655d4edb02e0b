use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn streaks(signals: &[Signal]) -> Streaks {
    signals.iter().fold(Streaks::default(), |streaks, signal| streaks.after(*signal))
}

#[test]
fn responses_are_told_apart() {
    for (status, grpc, signal) in [
        (200, None, Signal::Success),
        (404, None, Signal::Success),
        (429, None, Signal::Success),
        (500, None, Signal::Failure),
        (501, None, Signal::Failure),
        (502, None, Signal::Gateway),
        (503, None, Signal::Gateway),
        (504, None, Signal::Gateway),
        (505, None, Signal::Failure),
        (200, Some(0), Signal::Success),
        (200, Some(8), Signal::Success),
        (200, Some(13), Signal::Failure),
        (200, Some(14), Signal::Gateway),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Signal::of_response(status, grpc), signal, "{status} {grpc:?}");
    }
}

#[test]
fn what_is_not_the_endpoints_fault_has_no_signal() {
    for reason in [
        Reason::QueueTimeout,
        Reason::LimitReached,
        Reason::ClientGone,
        Reason::TooLarge,
        Reason::Draining,
        Reason::NoHealthyEndpoint,
        Reason::DnsFailed,
    ] {
        assert_eq!(Signal::of_reason(reason, false), None, "{reason}");
        assert_eq!(Signal::of_reason(reason, true), None, "{reason}");
    }
    for (reason, connecting, signal) in [
        (Reason::ConnectFailed, false, Signal::LocalOrigin),
        (Reason::Timeout, true, Signal::LocalOrigin),
        (Reason::Timeout, false, Signal::Failure),
        (Reason::PerTryTimeout, false, Signal::Failure),
        (Reason::StreamIdle, false, Signal::Failure),
        (Reason::UpstreamReset, false, Signal::Failure),
        (Reason::UpstreamClosed, false, Signal::Failure),
        (Reason::UpstreamProtocol, false, Signal::Failure),
        (Reason::UpstreamRefused, false, Signal::Refused),
    ] {
        assert_eq!(Signal::of_reason(reason, connecting), Some(signal), "{reason}");
    }
}

#[test]
fn five_in_a_row_are_too_many_and_a_success_ends_every_row() {
    use Signal::{Failure, Gateway, LocalOrigin, Refused, Success};
    let policy = OutlierPolicy::default();
    for (signals, cause) in [
        (&[Failure; 4][..], None),
        (&[Failure; 5], Some(Cause::Consecutive)),
        (&[Gateway; 5], Some(Cause::Gateway)),
        (&[LocalOrigin; 5], Some(Cause::LocalOrigin)),
        (&[Failure, Gateway, Gateway, Gateway, Gateway], Some(Cause::Consecutive)),
        (&[Failure, Failure, Success, Failure, Failure, Failure], None),
        (&[Failure, Failure, LocalOrigin, Failure, Failure, Failure], Some(Cause::Consecutive)),
        (&[LocalOrigin, LocalOrigin, Failure, LocalOrigin, LocalOrigin, LocalOrigin], None),
        (&[Failure, Refused, Failure, Refused, Failure, Refused], None),
    ] {
        assert_eq!(policy.too_long(streaks(signals)), cause, "{signals:?}");
    }
    let never = OutlierPolicy { consecutive: None, gateway: None, local_origin: None, ..policy };
    assert_eq!(never.too_long(streaks(&[Gateway; 1000])), None);
}

#[test]
fn streaks_survive_their_word() {
    for streaks in [
        Streaks::default(),
        Streaks { failures: u16::MAX, gateway: 2, local_origin: 3 },
        Streaks { failures: 1, gateway: u16::MAX, local_origin: u16::MAX },
    ] {
        assert_eq!(Streaks::unpack(streaks.pack()), streaks);
    }
    let most = Streaks { failures: u16::MAX, gateway: u16::MAX, local_origin: u16::MAX };
    assert_eq!(most.after(Signal::Gateway).failures, u16::MAX);
}

#[test]
fn the_share_is_rounded_down_and_one_of_two_may_go() {
    let most = |share, total| {
        OutlierPolicy { max_ejected: share, ..OutlierPolicy::default() }.most_ejected(total)
    };
    let half: Vec<_> = (0..9).map(|total| most(0.5, total)).collect();
    assert_eq!(half, [0, 0, 1, 1, 2, 2, 3, 3, 4]);
    let tenth: Vec<_> = [1, 2, 9, 10, 19, 20].map(|total| most(0.1, total)).into();
    assert_eq!(tenth, [0, 1, 1, 1, 1, 2]);
    assert_eq!([1, 2, 3, 10].map(|total| most(1.0, total)), [0, 1, 2, 9]);
    assert_eq!(most(0.0, 10), 0);
    let policy = OutlierPolicy::default();
    assert!(policy.may_eject(3, 0, 2) && !policy.may_eject(3, 1, 1) && !policy.may_eject(4, 1, 0));
}

#[test]
fn ejections_grow_to_five_minutes_and_jitter_adds_at_most_a_fifth() {
    let policy = OutlierPolicy::default();
    let times = [1, 2, 3, 29, 30, 31, 255].map(|times| policy.ejection_time(times, 0.0).as_secs());
    assert_eq!(times, [10, 20, 30, 290, 300, 300, 300]);
    assert_eq!(policy.ejection_time(1, 0.5), 11 * SECOND);
    assert!(policy.ejection_time(255, 0.999) < 360 * SECOND);
    assert_eq!(policy.most_times(), 30);
    let of = |eject| OutlierPolicy { eject, ..policy }.most_times();
    assert_eq!((of(300 * SECOND), of(SECOND), of(7 * SECOND)), (1, 255, 43));
}

#[test]
fn success_rates_are_compared_by_deviation_and_by_five_points() {
    let rule = SuccessRate { stdev: 1.9, min_hosts: 5, min_requests: 100 };
    let bar = |rates: &[f64]| rule.bar(rates.iter().copied());
    let ejected = |rates: &[f64]| {
        let bar = bar(rates).unwrap();
        rates.iter().filter(|rate| **rate < bar).count()
    };
    assert_eq!(bar(&[1.0, 1.0, 1.0, 0.5]), None, "too few to compare");
    assert_eq!(ejected(&[1.0, 1.0, 1.0, 1.0, 0.9]), 1);
    assert_eq!(ejected(&[1.0, 1.0, 1.0, 1.0, 0.99]), 0, "one failure in a hundred is no outlier");
    assert_eq!(ejected(&[0.5; 5]), 0, "all are equally bad");
    assert_eq!(ejected(&[1.0, 1.0, 1.0, 0.5, 0.5]), 0, "two of five are no outliers");
    assert_eq!(ejected(&[1.0, 0.99, 0.98, 1.0, 0.99, 0.97, 1.0, 0.99, 0.7, 1.0]), 1);
}

/// Random walks: a streak grows by one at most and by what it counts, a success ends all, and packing loses nothing.
#[test]
fn streaks_count_what_is_in_a_row_and_nothing_else() {
    const SIGNALS: [Signal; 5] =
        [Signal::Success, Signal::Failure, Signal::Gateway, Signal::LocalOrigin, Signal::Refused];
    for seed in 0..200 {
        let mut rng = crate::base::rng::Rng::from_seed(seed);
        let (mut streaks, mut told) = (Streaks::default(), Vec::new());
        for _ in 0..200 {
            let signal = SIGNALS[rng.below(5)];
            let before = streaks;
            streaks = before.after(signal);
            told.push(signal);
            assert_eq!(Streaks::unpack(streaks.pack()), streaks);
            for (now, then) in [
                (streaks.failures, before.failures),
                (streaks.gateway, before.gateway),
                (streaks.local_origin, before.local_origin),
            ] {
                assert!(now == 0 || now == then || now == then + 1, "seed {seed}");
            }
            assert!(streaks.gateway <= streaks.failures, "seed {seed}");
            let since = told.iter().rposition(|signal| *signal == Signal::Success);
            let since = &told[since.map_or(0, |at| at + 1)..];
            let failures =
                since.iter().filter(|signal| matches!(signal, Signal::Failure | Signal::Gateway));
            assert_eq!(usize::from(streaks.failures), failures.count(), "seed {seed}");
        }
    }
}

/// For any share and any set: never all, never more than the share but where that is less than one.
#[test]
fn the_last_is_never_ejected_whatever_the_share() {
    let mut rng = crate::base::rng::Rng::from_seed(3);
    for _ in 0..10_000 {
        let policy =
            OutlierPolicy { max_ejected: rng.fraction() * 1.2, ..OutlierPolicy::default() };
        let total = rng.below(50);
        let most = policy.most_ejected(total);
        assert!(most < total.max(1), "{most} of {total}");
        assert!(most <= 1 || most as f64 <= total as f64 * policy.max_ejected);
        for ejected in 0..=total {
            let may = policy.may_eject(total, ejected, total.saturating_sub(ejected + 1));
            assert!(!may || ejected < most && ejected + 1 < total);
        }
    }
}
