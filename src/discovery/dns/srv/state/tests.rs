use std::net::IpAddr;

use super::super::super::state::FamilyAnswer;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn record(priority: u16, weight: u16, port: u16, target: &str) -> SrvRecord {
    SrvRecord { priority, weight, port, target: name(target) }
}

fn records(records: &[SrvRecord]) -> SrvAnswer {
    SrvAnswer::Records { records: records.to_vec(), ttl: MINUTE }
}

fn nxdomain() -> SrvAnswer {
    let trouble = Trouble::new(ErrorKind::NxDomain, "no such name");
    SrvAnswer::Negative { trouble, ttl: Some(Duration::from_secs(1)) }
}

fn servfail() -> SrvAnswer {
    SrvAnswer::Failed(Trouble::new(ErrorKind::ServFail, "SERVFAIL"))
}

fn found(addresses: &[&str]) -> Answer {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Answer::of(addresses, MINUTE)
}

fn failed() -> Answer {
    let failed = FamilyAnswer::Failed(Trouble::new(ErrorKind::Timeout, "no answer"));
    Answer { v4: failed.clone(), v6: failed }
}

fn denied() -> Answer {
    let trouble = Trouble::new(ErrorKind::NxDomain, "no such host");
    let denied = FamilyAnswer::Negative { trouble, ttl: Some(Duration::from_secs(1)) };
    Answer { v4: denied.clone(), v6: denied }
}

struct Service {
    state: SrvState,
    now: Instant,
    rng: Rng,
}

impl Service {
    fn new() -> Self {
        let now = Instant::now();
        Self { state: SrvState::new(TtlRange::default(), now), now, rng: Rng::from_seed(1) }
    }

    /// One turn of the provider: records when they are due, then addresses by `host`.
    fn turn(&mut self, answer: SrvAnswer, host: impl Fn(&str) -> Answer) -> Verdict {
        if self.state.is_due(self.now) {
            self.state.on_records(answer, self.now, &mut self.rng);
        }
        for target in self.state.due_targets(self.now) {
            let answer = host(target.to_ascii().trim_end_matches('.'));
            self.state.on_target(&target, answer, self.now, &mut self.rng);
        }
        let verdict = self.state.verdict(self.now);
        assert!(self.state.next_at() > self.now, "no busy loop");
        self.now = self.state.next_at();
        verdict
    }
}

fn shown(verdict: &Verdict) -> Option<Vec<String>> {
    let line = |e: &EndpointSpec| format!("{} p{} w{}", e.address, e.priority, e.weight);
    verdict.publish.as_ref().map(|set| set.iter().map(line).collect())
}

#[test]
fn port_weight_and_priority_are_the_records_and_addresses_are_the_targets() {
    let mut service = Service::new();
    let answer = records(&[record(10, 5, 81, "b"), record(0, 3, 80, "a"), record(0, 1, 80, "c")]);
    let verdict = service.turn(answer, |host| match host {
        "a" => found(&["10.0.0.1"]),
        "b" => found(&["10.0.0.2"]),
        _ => found(&["10.0.0.3", "fd00::3"]),
    });
    // The one of c is of two addresses; nothing smaller than 1 exists, so all of priority 0 are scaled.
    let expected = [
        "10.0.0.1:80 p0 w1000",
        "10.0.0.2:81 p10 w5",
        "10.0.0.3:80 p0 w167",
        "[fd00::3]:80 p0 w167",
    ];
    assert_eq!(shown(&verdict).unwrap(), expected);
    assert_eq!((verdict.standing, verdict.trouble), (Standing::Fresh, None));
}

#[test]
fn weights_are_kept_where_they_fit_and_scaled_where_they_do_not() {
    assert_eq!(weights(&[(0, 1), (0, 3)]), [1, 1], "all 0: no preference");
    assert_eq!(weights(&[(3, 1), (1, 1)]), [3, 1]);
    assert_eq!(
        weights(&[(10, 1), (10, 2)]),
        [10, 5],
        "a target's weight is shared by its addresses"
    );
    assert_eq!(weights(&[(0, 1), (5, 1)]), [1, 1000], "0 beside others: a very small chance");
    assert_eq!(weights(&[(65_535, 1), (6_553, 1)]), [1000, 100]);
    assert_eq!(weights(&[(1, 3), (1, 1)]), [333, 1000]);
    assert_eq!(weights(&[(60_000, 1), (1, 1)]), [1000, 1]);
}

#[test]
fn a_failure_of_either_question_keeps_the_set() {
    let mut service = Service::new();
    let good = records(&[record(0, 0, 80, "a"), record(0, 0, 80, "b")]);
    let host = |host: &str| found(if host == "a" { &["10.0.0.1"] } else { &["10.0.0.2"] });
    assert_eq!(shown(&service.turn(good.clone(), host)).unwrap().len(), 2);
    for _ in 0..100 {
        let verdict = service.turn(servfail(), |_| failed());
        assert_eq!((verdict.standing, shown(&verdict)), (Standing::Stale, None));
    }
    // Where only one of the targets cannot be asked for, its old addresses stay, and the others are followed.
    service.now += MINUTE * 2;
    let verdict = service.turn(good, |host| match host {
        "a" => failed(),
        _ => found(&["10.0.0.9"]),
    });
    assert_eq!(shown(&verdict).unwrap(), ["10.0.0.1:80 p0 w1", "10.0.0.9:80 p0 w1"]);
    assert_eq!(verdict.standing, Standing::Stale);
    assert_eq!(verdict.trouble.unwrap().kind, ErrorKind::Timeout);
}

#[test]
fn new_targets_without_addresses_do_not_replace_old_ones_that_work() {
    let mut service = Service::new();
    service.turn(records(&[record(0, 0, 80, "a")]), |_| found(&["10.0.0.1"]));
    service.now += MINUTE * 2;
    let verdict = service.turn(records(&[record(0, 0, 80, "b")]), |_| failed());
    assert_eq!((verdict.standing, shown(&verdict)), (Standing::Stale, None));
}

#[test]
fn a_denied_service_is_emptied_after_three_answers_five_seconds_apart() {
    let root = SrvAnswer::Records { records: vec![record(0, 0, 0, ".")], ttl: Duration::ZERO };
    for denial in [nxdomain(), root] {
        let mut service = Service::new();
        service.turn(records(&[record(0, 0, 80, "a")]), |_| found(&["10.0.0.1"]));
        service.now += MINUTE * 2;
        let start = service.now;
        let mut turns = 0;
        loop {
            let at = service.now;
            let verdict =
                service.turn(denial.clone(), |_| unreachable!("no record names a target"));
            turns += 1;
            if verdict.standing == Standing::Empty {
                assert_eq!(shown(&verdict).unwrap(), [""; 0]);
                assert!(at - start >= SPACING * 2 && turns >= 3, "{:?}", at - start);
                break;
            }
            assert_eq!((verdict.standing, shown(&verdict)), (Standing::Stale, None));
            assert!(at - start < MINUTE);
        }
        let verdict = service.turn(records(&[record(0, 0, 80, "a")]), |_| found(&["10.0.0.1"]));
        assert_eq!((verdict.standing, shown(&verdict).unwrap().len()), (Standing::Fresh, 1));
    }
}

#[test]
fn targets_that_are_denied_empty_the_set_in_the_end() {
    let mut service = Service::new();
    let named = records(&[record(0, 0, 80, "a")]);
    service.turn(named.clone(), |_| found(&["10.0.0.1"]));
    service.now += MINUTE * 2;
    let start = service.now;
    while service.turn(named.clone(), |_| denied()).standing != Standing::Empty {
        assert!(service.now - start < MINUTE * 5);
    }
    assert!(service.now - start >= SPACING * 2);
}

#[test]
fn too_many_records_are_a_failure() {
    let mut service = Service::new();
    service.turn(records(&[record(0, 0, 80, "a")]), |_| found(&["10.0.0.1"]));
    service.now += MINUTE * 2;
    let verdict = service
        .turn(records(&vec![record(0, 0, 1, "b"); MAX_RECORDS + 1]), |_| found(&["10.0.0.1"]));
    assert_eq!((verdict.standing, shown(&verdict)), (Standing::Stale, None));
    assert_eq!(verdict.trouble.unwrap().kind, ErrorKind::Malformed);
}
