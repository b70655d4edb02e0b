use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::super::{Discovered, ProviderStatus, Standing};
use super::*;

/// One upstream's side of the board.
struct Upstream {
    id: u64,
    updates: watch::Receiver<Discovered>,
    status: Arc<ProviderStatus>,
}

impl Upstream {
    fn join(board: &mut Board, resource: &str) -> Self {
        let now = Instant::now();
        let source: Arc<str> = format!("xds://plane:1/{resource}").into();
        let (sender, updates) = watch::channel(Discovered::unanswered(source.clone(), now));
        let status = Arc::new(ProviderStatus::new(now));
        let publisher = Publisher::new(source, sender, status.clone());
        let wanted = Wanted { resource: resource.to_owned(), advice: true };
        let id = board.join(wanted, publisher, now);
        Self { id, updates, status }
    }

    /// How many endpoints it knows; `None`: not told yet.
    fn knows(&self) -> Option<usize> {
        let known = self.updates.borrow();
        known.answered.then_some(known.endpoints.len())
    }
}

fn told(sets: &[(&str, u16)]) -> Taken {
    let set = |count: u16| {
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        (1..=count).map(|port| EndpointSpec::at(address(port))).collect::<Vec<_>>()
    };
    let sets = sets.iter().map(|&(name, count)| (name.to_owned(), set(count))).collect();
    Taken { sets, answer: Some(Default::default()), ..Taken::default() }
}

fn refused(name: &str) -> Taken {
    let mistakes = [(name.to_owned(), "wrong".to_owned())].into();
    Taken { mistakes, answer: Some(Default::default()), ..Taken::default() }
}

fn gone() -> Trouble {
    Trouble::new(ErrorKind::Unreachable, "gone")
}

/// What clusters say, and what of them is refused.
fn advice(said: &[(&str, AdvisedBalance)], refused: &[&str]) -> Advice {
    let policies = said.iter().map(|&(name, policy)| (name.to_owned(), policy)).collect();
    let mistakes = refused.iter().map(|&name| (name.to_owned(), "wrong".to_owned())).collect();
    Advice { answer: Default::default(), policies, mistakes }
}

#[tokio::test(start_paused = true)]
async fn advice_reaches_who_waits_and_who_joins_later_and_is_nothing_against_the_endpoints() {
    let mut board = Board::default();
    board.opened(Instant::now());
    let mut first = Upstream::join(&mut board, "articles");
    board.take(told(&[("articles", 2)]), Instant::now());
    first.updates.borrow_and_update();
    board.advise(advice(&[("articles", AdvisedBalance::Maglev)], &[]), Instant::now());
    assert_eq!(first.status.advised(), Some(AdvisedBalance::Maglev));
    assert!(first.updates.has_changed().unwrap(), "who follows the sets looks again");
    first.updates.borrow_and_update();

    let later = Upstream::join(&mut board, "articles");
    assert_eq!(later.status.advised(), Some(AdvisedBalance::Maglev));
    board.advise(advice(&[], &["articles"]), Instant::now());
    assert_eq!(first.status.advised(), Some(AdvisedBalance::Maglev), "what was in force stays");
    assert_eq!(first.status.errors(ErrorKind::Malformed), 1);
    assert_eq!((first.status.standing(), first.knows()), (Standing::Fresh, Some(2)));
    // Said once more, it changes nothing.
    board.advise(advice(&[("articles", AdvisedBalance::Maglev)], &[]), Instant::now());
    assert!(!first.updates.has_changed().unwrap());
    board.closed(&gone(), Instant::now());
    assert_eq!(first.status.advised(), Some(AdvisedBalance::Maglev), "and outlives the stream");
}

async fn pass(board: &mut Board, time: Duration) {
    let end = Instant::now() + time;
    while let Some(next) = board.next_review().filter(|next| *next <= end) {
        tokio::time::sleep_until(next).await;
        board.review(Instant::now());
    }
    tokio::time::sleep_until(end).await;
}

#[tokio::test(start_paused = true)]
async fn who_joins_later_is_told_what_is_known_at_once() {
    let mut board = Board::default();
    let first = Upstream::join(&mut board, "a");
    board.opened(Instant::now());
    assert_eq!(first.knows(), None);
    board.take(told(&[("a", 2)]), Instant::now());
    let second = Upstream::join(&mut board, "a");
    assert_eq!((first.knows(), second.knows()), (Some(2), Some(2)));
    assert_eq!(second.status.standing(), Standing::Fresh);
    board.leave(first.id);
    board.leave(second.id);
    assert!(board.names().is_empty());
    assert_eq!(Upstream::join(&mut board, "a").knows(), None, "forgotten with the last");
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_keeps_the_sets_and_its_successor_confirms_them() {
    let mut board = Board::default();
    let upstream = Upstream::join(&mut board, "a");
    board.opened(Instant::now());
    board.take(told(&[("a", 2)]), Instant::now());
    for _ in 0..100 {
        board.closed(&gone(), Instant::now());
    }
    assert_eq!((upstream.knows(), upstream.status.standing()), (Some(2), Standing::Stale));
    assert_eq!(upstream.status.errors(ErrorKind::Unreachable), 100);
    board.opened(Instant::now());
    assert_eq!(upstream.status.standing(), Standing::Stale, "nobody has said anything yet");
    board.take(told(&[("a", 2)]), Instant::now());
    assert_eq!(upstream.status.standing(), Standing::Fresh);
    assert_eq!(upstream.status.updates(), 1, "the same set is no change");
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_resource_removes_nothing() {
    let mut board = Board::default();
    let (a, b) = (Upstream::join(&mut board, "a"), Upstream::join(&mut board, "b"));
    board.opened(Instant::now());
    board.take(told(&[("a", 1), ("b", 1)]), Instant::now());
    board.take(told(&[("b", 2)]), Instant::now());
    board.take(told(&[]), Instant::now());
    assert_eq!((a.knows(), b.knows()), (Some(1), Some(2)));
    assert_eq!(a.status.standing(), Standing::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_refused_resource_is_counted_and_its_last_good_set_kept() {
    let mut board = Board::default();
    let (a, b) = (Upstream::join(&mut board, "a"), Upstream::join(&mut board, "b"));
    board.opened(Instant::now());
    board.take(told(&[("a", 1), ("b", 1)]), Instant::now());
    board.take(refused("a"), Instant::now());
    assert_eq!((a.knows(), a.status.standing()), (Some(1), Standing::Stale));
    assert_eq!(a.status.errors(ErrorKind::Malformed), 1);
    assert_eq!(b.status.standing(), Standing::Fresh);
    // Nobody knows whose it was.
    board.take(refused(""), Instant::now());
    assert_eq!(b.status.errors(ErrorKind::Malformed), 1);
    // Of another type: no word on anybody's resources.
    board.take(Taken { answer: None, ..refused("") }, Instant::now());
    assert_eq!(b.status.errors(ErrorKind::Malformed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_empties_the_set_after_it_has_stood_for_ten_seconds() {
    let mut board = Board::default();
    let upstream = Upstream::join(&mut board, "a");
    board.opened(Instant::now());
    board.take(told(&[("a", 2)]), Instant::now());
    board.take(told(&[("a", 0)]), Instant::now());
    pass(&mut board, Duration::from_millis(9_999)).await;
    assert_eq!((upstream.knows(), upstream.status.standing()), (Some(2), Standing::Stale));
    pass(&mut board, Duration::from_millis(2)).await;
    assert_eq!((upstream.knows(), upstream.status.standing()), (Some(0), Standing::Empty));
    assert_eq!(board.next_review(), None);
    // One endpoint counts at once.
    board.take(told(&[("a", 1)]), Instant::now());
    assert_eq!(upstream.knows(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_does_not_stand_beyond_its_stream() {
    let mut board = Board::default();
    let upstream = Upstream::join(&mut board, "a");
    board.opened(Instant::now());
    board.take(told(&[("a", 2)]), Instant::now());
    board.take(told(&[("a", 0)]), Instant::now());
    pass(&mut board, Duration::from_secs(6)).await;
    board.closed(&gone(), Instant::now());
    pass(&mut board, Duration::from_secs(3_600)).await;
    assert_eq!(upstream.knows(), Some(2));
    board.opened(Instant::now());
    board.take(told(&[("a", 0)]), Instant::now());
    pass(&mut board, Duration::from_secs(9)).await;
    assert_eq!(upstream.knows(), Some(2), "the count starts again");
    pass(&mut board, Duration::from_secs(2)).await;
    assert_eq!(upstream.knows(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn silence_is_counted_once_per_stream_and_ends_nothing() {
    let mut board = Board::default();
    let upstream = Upstream::join(&mut board, "a");
    assert_eq!(board.next_review(), None, "no stream, no silence");
    board.opened(Instant::now());
    pass(&mut board, PATIENCE - Duration::from_millis(1)).await;
    assert_eq!(upstream.status.errors(ErrorKind::Timeout), 0);
    pass(&mut board, Duration::from_secs(3_600)).await;
    assert_eq!(upstream.status.errors(ErrorKind::Timeout), 1);
    assert_eq!((upstream.knows(), upstream.status.standing()), (None, Standing::Failing));
    board.take(told(&[("a", 1)]), Instant::now());
    assert_eq!((upstream.knows(), upstream.status.standing()), (Some(1), Standing::Fresh));
}
