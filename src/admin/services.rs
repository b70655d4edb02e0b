//! `GET /services` and `GET /services/events`: which services there are and where, for applications that want the sidecar's
//! view, and every change of it as it comes (server-sent events).
//!
//! The list is compared with the one before whenever discovery publishes a set or a configuration takes force, and
//! each [`LOOK`] for what changes by itself (health, ejections), while anybody listens. What differs goes out as one event for each
//! service, with what joined, left and changed.
//!
//! Bounds: [`MAX_SUBSCRIBERS`] at once, [`BACKLOG`] events waiting for each. Who reads too slowly loses them and gets the whole list
//! instead when there is room; who reads nothing at all for [`PATIENCE`] is cut off.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::control::{Control, Managed};

/// Listeners at once: a quarter of the admin server's connections, so that they cannot shut others out.
pub(super) const MAX_SUBSCRIBERS: usize = 16;

/// Events that wait for one listener.
const BACKLOG: usize = 64;

/// How often what changes without being told of is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Changes that come at once are told of at once: one look at all of them costs as much as at one.
const GATHER: Duration = Duration::from_millis(20);

/// A comment so often keeps proxies in between from closing a silent stream, and finds listeners that are gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A listener that has not read anything for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(60);

/// One service: where its endpoints come from, and each by its address.
#[derive(Debug, Clone, PartialEq)]
struct Service {
    source: String,
    state: &'static str,
    endpoints: BTreeMap<String, Value>,
}

type Services = BTreeMap<String, Service>;

/// The body of `GET /services`.
pub(super) fn page(control: &Control) -> Value {
    whole(&services(control, Instant::now()))
}

fn services(control: &Control, now: Instant) -> Services {
    control.with_upstreams(|upstreams| {
        upstreams
            .iter()
            .map(|managed| (managed.upstream.name.to_string(), service(managed, now)))
            .collect()
    })
}

fn service(managed: &Managed, now: Instant) -> Service {
    let upstream = &managed.upstream;
    let set = upstream.endpoints();
    let endpoints = set.members().iter().map(|member| {
        let endpoint = &member.endpoint;
        let shown = json!({
            "address": endpoint.address.to_string(),
            "zone": endpoint.zone,
            "labels": endpoint.labels,
            "priority": member.priority,
            "weight": member.weight,
            "state": upstream.balancer.view(endpoint, now).place.word(),
        });
        (endpoint.address.to_string(), shown)
    });
    let state = match &managed.status {
        None => "fresh",
        Some(status) => status.standing().word(),
    };
    Service { source: managed.config.discover.source(), state, endpoints: endpoints.collect() }
}

fn whole(services: &Services) -> Value {
    let service = |(name, service): (&String, &Service)| {
        json!({
            "name": name,
            "source": service.source,
            "state": service.state,
            "endpoints": service.endpoints.values().collect::<Vec<_>>(),
        })
    };
    json!({ "services": services.iter().map(service).collect::<Vec<_>>() })
}

/// What has happened to a service, as an event's name and data; `None`: nothing.
fn difference(
    name: &str,
    before: Option<&Service>,
    after: Option<&Service>,
) -> Option<(&'static str, Value)> {
    let Some(after) = after else { return Some(("removed", json!({ "service": name }))) };
    if before == Some(after) {
        return None;
    }
    let none = BTreeMap::new();
    let known = before.map_or(&none, |before| &before.endpoints);
    let joined = after.endpoints.iter().filter(|(at, _)| !known.contains_key(*at));
    let left = known.keys().filter(|at| !after.endpoints.contains_key(*at));
    let changed =
        after.endpoints.iter().filter(|(at, now)| known.get(*at).is_some_and(|was| was != *now));
    Some((
        "changed",
        json!({
            "service": name,
            "source": after.source,
            "state": after.state,
            "joined": joined.map(|(_, endpoint)| endpoint).collect::<Vec<_>>(),
            "left": left.collect::<Vec<_>>(),
            "changed": changed.map(|(_, endpoint)| endpoint).collect::<Vec<_>>(),
            "endpoints": after.endpoints.len(),
        }),
    ))
}

/// Everyone who listens.
#[derive(Debug)]
pub(super) struct Events {
    /// Of this process: an id of another one means nothing here.
    epoch: u64,
    /// The number of the last event.
    last: Cell<u64>,
    /// What the last event amounts to.
    known: RefCell<Services>,
    subscribers: RefCell<Vec<Subscriber>>,
    subscribed: Notify,
}

#[derive(Debug)]
struct Subscriber {
    sender: mpsc::Sender<Bytes>,
    /// Since when there is no room for it; it has missed events.
    full: Option<Instant>,
}

impl Events {
    /// `epoch`: random bits.
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            last: Cell::new(0),
            known: RefCell::default(),
            subscribers: RefCell::default(),
            subscribed: Notify::new(),
        }
    }

    /// A stream that begins with the whole list, unless `last_id` says that it is known. `None`: there are too many.
    pub(super) fn subscribe(&self, control: &Control, last_id: Option<&str>) -> Option<Stream> {
        self.subscribers.borrow_mut().retain(|subscriber| !subscriber.sender.is_closed());
        // What everyone else has to be told first.
        self.look(control);
        let mut subscribers = self.subscribers.borrow_mut();
        if subscribers.len() >= MAX_SUBSCRIBERS {
            return None;
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let first = match last_id {
            Some(id) if id == self.id() => Bytes::from_static(b": nothing has changed\n\n"),
            _ => self.snapshot(),
        };
        let _empty = sender.try_send(first);
        subscribers.push(Subscriber { sender, full: None });
        self.subscribed.notify_one();
        Some(Stream(receiver))
    }

    /// Tells of changes for ever; costs nothing while nobody listens.
    pub(super) async fn run(self: Rc<Self>, control: Rc<Control>) {
        let changes = control.with_upstreams(|upstreams| upstreams.changes());
        let mut beat = Instant::now();
        loop {
            while self.subscribers.borrow().is_empty() {
                self.subscribed.notified().await;
            }
            let _told_or_due = timeout(LOOK, changes.notified()).await;
            sleep(GATHER).await;
            self.look(&control);
            let now = Instant::now();
            if now.saturating_duration_since(beat) >= HEARTBEAT {
                beat = now;
                self.send(&Bytes::from_static(b": still here\n\n"), now);
            }
            self.catch_up(now);
        }
    }

    /// Sends what has changed since the last look.
    fn look(&self, control: &Control) {
        let now = Instant::now();
        let found = services(control, now);
        let before = self.known.replace(found.clone());
        let mut names: Vec<&String> = before.keys().chain(found.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some((event, data)) = difference(name, before.get(name), found.get(name)) {
                self.last.set(self.last.get() + 1);
                self.send(&self.message(event, &data), now);
            }
        }
    }

    fn send(&self, message: &Bytes, now: Instant) {
        for subscriber in self.subscribers.borrow_mut().iter_mut() {
            let is_behind = subscriber.full.is_some();
            if is_behind || subscriber.sender.try_send(message.clone()).is_err() {
                subscriber.full.get_or_insert(now);
            }
        }
    }

    /// Gives the whole list to those who have lost events and have room again; lets go of those who are gone.
    fn catch_up(&self, now: Instant) {
        let mut whole = None;
        self.subscribers.borrow_mut().retain_mut(|subscriber| {
            if let Some(since) = subscriber.full {
                if subscriber.sender.capacity() == BACKLOG {
                    let whole = whole.get_or_insert_with(|| self.snapshot());
                    subscriber.full = None;
                    let _has_room = subscriber.sender.try_send(whole.clone());
                } else if now.saturating_duration_since(since) >= PATIENCE {
                    return false;
                }
            }
            !subscriber.sender.is_closed()
        });
    }

    fn snapshot(&self) -> Bytes {
        self.message("snapshot", &whole(&self.known.borrow()))
    }

    /// As `text/event-stream` has it; the data is one line of JSON.
    fn message(&self, event: &str, data: &Value) -> Bytes {
        format!("id: {}\nevent: {event}\ndata: {data}\n\n", self.id()).into()
    }

    fn id(&self) -> String {
        format!("{:x}-{}", self.epoch, self.last.get())
    }
}

/// The body of an answer that goes on.
#[derive(Debug)]
pub(super) struct Stream(mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoints: &[(&str, u32)]) -> Service {
        let endpoint = |(at, weight): &(&str, u32)| {
            ((*at).to_owned(), json!({ "address": at, "weight": weight }))
        };
        Service {
            source: "s".to_owned(),
            state: "fresh",
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    #[test]
    fn a_difference_names_what_joined_left_and_changed() {
        let before = of(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(difference("x", Some(&before), Some(&before)), None);
        let (event, data) =
            difference("x", Some(&before), Some(&of(&[("b", 1), ("c", 2), ("d", 1)]))).unwrap();
        assert_eq!(event, "changed");
        assert_eq!(data["left"], json!(["a"]));
        assert_eq!(data["joined"][0]["address"], "d");
        assert_eq!(data["changed"], json!([{ "address": "c", "weight": 2 }]));
        assert_eq!(data["endpoints"], 3);
        let (_, new) = difference("x", None, Some(&before)).unwrap();
        assert_eq!(new["joined"].as_array().unwrap().len(), 3);
        assert_eq!(difference("x", Some(&before), None).unwrap().0, "removed");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_loses_events_gets_the_whole_list_and_is_cut_off_in_the_end() {
        let events = Events::new(7);
        let (sender, mut receiver) = mpsc::channel(BACKLOG);
        events.subscribers.borrow_mut().push(Subscriber { sender, full: None });
        let (start, message) = (Instant::now(), Bytes::from_static(b"x"));
        for _ in 0..BACKLOG * 3 {
            events.send(&message, start);
        }
        assert_eq!(receiver.len(), BACKLOG, "no more than that waits");
        while receiver.try_recv().is_ok() {}
        events.catch_up(start);
        let next = receiver.recv().await.unwrap();
        assert!(next.starts_with(b"id: 7-0\nevent: snapshot\ndata: {"), "{next:?}");
        assert!(receiver.is_empty());

        for _ in 0..=BACKLOG {
            events.send(&message, start);
        }
        events.catch_up(start + PATIENCE / 2);
        assert_eq!(events.subscribers.borrow().len(), 1);
        events.catch_up(start + PATIENCE);
        assert!(events.subscribers.borrow().is_empty());
    }
}
