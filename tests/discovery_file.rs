//! Endpoints from a file that changes while requests go on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/local.rs"]
mod local;
mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use local::{errors, until, upstream, yaml};
use support::{Proxy, Upstream, get};

struct Place {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new(content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("articles.yaml");
        fs::write(&path, content).unwrap();
        Self { dir, path }
    }

    fn rename_over(&self, content: &str) {
        let next = self.dir.path().join("next");
        fs::write(&next, content).unwrap();
        fs::rename(next, &self.path).unwrap();
    }
}

fn of_file(path: &Path) -> String {
    yaml(&format!("\"file://{}\"", path.display()))
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("- {address}\n")).collect()
}

#[test]
fn a_file_is_followed_however_it_is_changed_within_a_second() {
    let [one, two] = ["one", "two"].map(Upstream::ok);
    let place = Place::new(&list(&[one.address]));
    let proxy = Proxy::start(&of_file(&place.path));
    let to = proxy.address("outbound");
    let is = |body: &str| get(to, "/").text() == body;
    until("the first set", || is("one"));
    let in_json = serde_json::json!([{ "address": two.address.to_string(), "zone": "eu-1a" }]);
    let mut took = Vec::new();
    place.rename_over(&in_json.to_string());
    took.push(until("a rename, to JSON", || is("two")));
    assert_eq!(upstream(&proxy)["endpoints"][0]["zone"], "eu-1a");
    fs::write(&place.path, list(&[one.address])).unwrap();
    took.push(until("an edit in place", || is("one")));
    for next in [&two, &one, &two] {
        place.rename_over(&list(&[next.address]));
        let body = if next.address == one.address { "one" } else { "two" };
        took.push(until("a rename", || is(body)));
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_list_is_read_by_a_thread_that_gives_way_to_the_workers() {
    let one = Upstream::ok("one");
    let place = Place::new(&list(&[one.address]));
    let proxy = Proxy::start(&of_file(&place.path));
    until("the first set", || get(proxy.address("outbound"), "/").text() == "one");
    // It is kept for 10 s after its last work.
    place.rename_over(&list(&[one.address, one.address]));
    until("a reader", || nice(proxy.pid(), "long-work").is_some());
    let worker = nice(proxy.pid(), "worker-0").unwrap();
    assert_eq!(nice(proxy.pid(), "long-work"), Some((worker + 10).min(19)));
}

/// The nice value of a thread of process `pid` called `name`.
fn nice(pid: u32, name: &str) -> Option<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut stats = threads.filter_map(|t| fs::read_to_string(t.ok()?.path().join("stat")).ok());
    let stat = stats.find(|stat| stat.contains(&format!("({name})")))?;
    // The fields after the name, of which the first is the third of proc_pid_stat(5).
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(19 - 3)?.parse().ok()
}

#[test]
fn a_config_map_that_is_swapped_is_followed() {
    let [one, two] = ["one", "two"].map(Upstream::ok);
    let dir = tempfile::tempdir().unwrap();
    for (version, upstream) in [("..1", &one), ("..2", &two)] {
        fs::create_dir(dir.path().join(version)).unwrap();
        let list = list(&[upstream.address]);
        fs::write(dir.path().join(version).join("articles.yaml"), list).unwrap();
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/articles.yaml", dir.path().join("articles.yaml")).unwrap();
    // As a subPath mount would: the link is elsewhere, and only the poll can see what becomes of its target.
    let elsewhere = tempfile::tempdir().unwrap();
    let far = elsewhere.path().join("articles.yaml");
    symlink(dir.path().join("articles.yaml"), &far).unwrap();
    let proxies = [dir.path().join("articles.yaml"), far].map(|path| Proxy::start(&of_file(&path)));
    let all = |body: &str| proxies.iter().all(|p| get(p.address("outbound"), "/").text() == body);
    until("the first set", || all("one"));
    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    until("the swap", || all("two"));
}

#[test]
fn whatever_is_wrong_with_the_file_no_request_fails() {
    let one = Upstream::ok("one");
    let good = list(&[one.address]);
    let place = Place::new(&good);
    let proxy = Proxy::start(&of_file(&place.path));
    let to = proxy.address("outbound");
    until("the first set", || get(to, "/").status == 200);
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let reply = get(to, "/");
                assert_eq!((reply.status, reply.text().as_str()), (200, "one"));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let breaks: [(&str, &str, &dyn Fn()); 6] = [
            ("a wrong key", "malformed", &|| {
                place.rename_over("- 127.0.0.1:1\n- { adress: 127.0.0.1:2 }\n");
            }),
            ("an empty file", "malformed", &|| fs::write(&place.path, "").unwrap()),
            ("garbage", "malformed", &|| fs::write(&place.path, b"\xff\xfe\x00").unwrap()),
            ("a map", "malformed", &|| place.rename_over("a: [b\n")),
            ("no file", "unreachable", &|| fs::remove_file(&place.path).unwrap()),
            ("an empty list", "empty", &|| place.rename_over("[]\n")),
        ];
        for (what, reason, broken) in breaks {
            let before = errors(&proxy, reason);
            broken();
            until(what, || errors(&proxy, reason) > before);
            let discovery = upstream(&proxy)["discovery"].take();
            assert_eq!(discovery["state"], "stale", "{what}: {discovery}");
            place.rename_over(&good);
            until("repaired", || upstream(&proxy)["discovery"]["state"] == "fresh");
        }
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
    assert!(asked.into_inner() > 0);
    let place = format!("{}:2:5: ", place.path.display());
    proxy.log().wait("a warning with the place", |line| {
        (line.contains("last good set is kept") && line.contains(&place)).then_some(())
    });
    proxy.log().wait("the recovery", |line| line.contains("works again").then_some(()));
}

#[test]
fn an_empty_list_empties_the_set_when_it_has_stood_for_ten_seconds() {
    let one = Upstream::ok("one");
    let place = Place::new(&list(&[one.address]));
    let proxy = Proxy::start(&of_file(&place.path));
    let to = proxy.address("outbound");
    until("the first set", || get(to, "/").status == 200);
    let start = Instant::now();
    place.rename_over("[]\n");
    until("emptied", || get(to, "/").status == 503);
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(get(to, "/").header("x-outrigger-reason"), Some("no_upstream"));
    assert_eq!(upstream(&proxy)["discovery"]["state"], "empty");
    assert!((errors(&proxy, "empty") - 3.0).abs() < 0.1);
    place.rename_over(&list(&[one.address]));
    until("back", || get(to, "/").status == 200);
}

#[test]
fn a_file_may_come_after_the_proxy() {
    let one = Upstream::ok("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/articles.yaml");
    let proxy = Proxy::start(&of_file(&path));
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!(reply.status, 503);
    assert_eq!(get(proxy.address("admin"), "/ready").status, 503);
    fs::create_dir(dir.path().join("later")).unwrap();
    fs::write(&path, list(&[one.address])).unwrap();
    until("the file is found", || get(proxy.address("outbound"), "/").status == 200);
}
