use std::num::NonZeroU64;

use super::*;
use crate::base::endpoint::EndpointSpec;
use crate::discovery::Standing;

fn endpoints(ports: &[u16]) -> Vec<EndpointSpec> {
    let at = |port: &u16| EndpointSpec::at(std::net::SocketAddr::from(([127, 0, 0, 1], *port)));
    ports.iter().map(at).collect()
}

fn answer(index: u64, ports: &[u16]) -> Result<Answer, Trouble> {
    let instances = Instances { endpoints: endpoints(ports), ..Instances::default() };
    Ok(Answer { instances, index, filtered: false })
}

fn failure() -> Result<Answer, Trouble> {
    Err(Trouble::new(ErrorKind::Other, "refused"))
}

/// A state on its way through time.
struct Walk {
    state: ConsulState,
    next: Question,
    now: Instant,
    rng: Rng,
}

impl Walk {
    fn new() -> Self {
        let now = Instant::now();
        let (state, next) = ConsulState::new(now);
        Self { state, next, now, rng: Rng::from_seed(5) }
    }

    /// Asks when it is time, and has the answer so much later.
    fn answered(&mut self, after: Duration, answer: Result<Answer, Trouble>) -> Verdict {
        self.now = self.now.max(self.next.at) + after;
        let (verdict, next) = self.state.on_answer(self.now, answer, &mut self.rng);
        assert!(next.at >= self.now);
        self.next = next;
        verdict
    }

    fn index(&self) -> Option<u64> {
        self.next.index.map(NonZeroU64::get)
    }
}

const NOW: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn a_change_is_published_at_once_and_the_next_waited_for() {
    let mut walk = Walk::new();
    assert_eq!((walk.index(), walk.next.at), (None, walk.now));
    let verdict = walk.answered(NOW, answer(13, &[1, 2]));
    assert_eq!(verdict.publish.unwrap().len(), 2);
    assert_eq!((walk.index(), walk.next.wait, walk.next.at), (Some(13), WAIT, walk.now));
    let quiet = walk.answered(WAIT, answer(13, &[1, 2]));
    assert_eq!((quiet.publish, quiet.standing), (None, Standing::Fresh));
    assert_eq!(walk.answered(WAIT, answer(14, &[1])).publish.unwrap().len(), 1);
    assert_eq!(walk.index(), Some(14));
}

#[tokio::test(start_paused = true)]
async fn an_index_that_goes_backwards_asks_for_everything_anew() {
    let mut walk = Walk::new();
    walk.answered(NOW, answer(100, &[1]));
    walk.answered(WAIT, answer(7, &[1]));
    assert_eq!((walk.index(), walk.next.at), (None, walk.now));
    walk.answered(NOW, answer(7, &[1]));
    assert_eq!(walk.index(), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_set_and_backs_off_and_asks_for_everything() {
    let mut walk = Walk::new();
    walk.answered(NOW, answer(100, &[1]));
    for _ in 0..10 {
        let before = walk.now.max(walk.next.at);
        let verdict = walk.answered(NOW, failure());
        assert_eq!((verdict.publish, verdict.standing), (None, Standing::Stale));
        assert_eq!(walk.index(), None);
        let wait = walk.next.at - before;
        assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(30), "{wait:?}");
    }
    let verdict = walk.answered(NOW, answer(3, &[1]));
    assert_eq!((verdict.publish, verdict.standing), (None, Standing::Fresh), "it is the same set");
    assert_eq!(walk.index(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_asked_for_three_times() {
    let mut walk = Walk::new();
    walk.answered(NOW, answer(100, &[1]));
    for index in [101, 101] {
        let verdict = walk.answered(SPACING, answer(index, &[]));
        assert_eq!((verdict.publish, verdict.standing), (None, Standing::Stale));
        assert_eq!((walk.index(), walk.next.wait), (Some(101), SPACING), "and hears of a change");
    }
    let verdict = walk.answered(SPACING, answer(101, &[]));
    assert!(verdict.publish.unwrap().is_empty());
    assert_eq!(walk.next.wait, WAIT);
}

#[tokio::test(start_paused = true)]
async fn empty_answers_that_follow_each_other_closely_count_once() {
    let mut walk = Walk::new();
    walk.answered(NOW, answer(100, &[1]));
    for index in 101..104 {
        assert_eq!(walk.answered(NOW, answer(index, &[])).publish, None);
    }
    assert_eq!(walk.answered(NOW, answer(104, &[1])).standing, Standing::Fresh);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_token_may_not_see_empties_nothing() {
    let mut walk = Walk::new();
    walk.answered(NOW, answer(100, &[1]));
    for _ in 0..10 {
        let denied = answer(100, &[]).map(|answer| Answer { filtered: true, ..answer });
        let verdict = walk.answered(SPACING, denied);
        assert_eq!((verdict.publish, verdict.standing), (None, Standing::Stale));
        assert_eq!(verdict.trouble.unwrap().kind, ErrorKind::Denied);
    }
    let partly = answer(100, &[1, 2]).map(|answer| Answer { filtered: true, ..answer });
    assert_eq!(walk.answered(NOW, partly).publish.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn instances_that_cannot_be_used_are_told_of_and_empty_nothing() {
    let mut walk = Walk::new();
    let unusable = |ports: &[u16]| {
        answer(100, ports).map(|mut answer| {
            (answer.instances.unusable, answer.instances.why) = (2, Some("why".to_owned()));
            answer
        })
    };
    let verdict = walk.answered(NOW, unusable(&[1]));
    assert_eq!(
        (verdict.publish.map(|set| set.len()), verdict.standing),
        (Some(1), Standing::Fresh)
    );
    assert!(verdict.trouble.unwrap().text.contains("2 healthy instances are left out: why"));
    for _ in 0..5 {
        let verdict = walk.answered(SPACING, unusable(&[]));
        assert_eq!((verdict.publish, verdict.standing), (None, Standing::Stale));
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_makes_the_questions_a_busy_loop() {
    let mut walk = Walk::new();
    let start = walk.now;
    for number in 0..2_000_u64 {
        let found = match walk.rng.below(4) {
            0 => failure(),
            1 => answer(walk.rng.bits(), &[1]),
            2 => answer(0, &[]),
            _ => answer(number, &[1, 2]),
        };
        walk.answered(NOW, found);
        let passed = (walk.now - start).as_secs();
        assert!(number <= passed + 5, "{number} questions in {passed} s");
    }
}
