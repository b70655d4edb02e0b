//! Large answers: whatever moves their bytes, each arrives whole, or visibly cut, and nothing of one gets into another.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::io::{BufReader, Read, Write};
use std::thread;

use support::{Connection, Proxy, Upstream, get, read_request};

const SIZE: usize = 24 << 20;

/// The bytes of an answer, told apart by its seed.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(state >> 16).to_le_bytes());
    }
    out.truncate(size);
    out
}

/// `/SEED/SIZE` is answered whole, `/SEED/SIZE/cut` breaks off in the middle.
fn upstream() -> Upstream {
    Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            let request = String::from_utf8_lossy(&request).into_owned();
            let target = request.split(' ').nth(1).unwrap().to_owned();
            let parts: Vec<&str> = target.split('/').skip(1).collect();
            let (seed, size) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
            let body = bytes(seed, size);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            let out = stream.get_mut();
            let cut = parts.len() > 2;
            let sent = if cut { &body[..size / 2] } else { &body[..] };
            if out.write_all(head.as_bytes()).and_then(|()| out.write_all(sent)).is_err() || cut {
                return;
            }
        }
    })
}

fn proxy(upstream: &Upstream) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2 }}\nlisteners: {{ outbound: {{ bind: \"127.0.0.1:0\", routes: \
         [{{ to: app }}] }} }}\nupstreams: {{ app: {{ endpoints: [\"{}\"] }} }}\n",
        upstream.address
    ))
}

#[test]
fn answers_of_all_sizes_arrive_whole_on_one_connection() {
    let (upstream, sizes) =
        (upstream(), [1, 60_000, 131_072, 140_000, 1 << 20, (1 << 20) + 1, SIZE]);
    let proxy = proxy(&upstream);
    let mut caller = Connection::open(proxy.address("outbound"));
    for round in 0..2 {
        for (number, size) in sizes.into_iter().enumerate() {
            let seed = round * 100 + number;
            caller.request("GET", &format!("/{seed}/{size}"), &[], b"");
            let reply = caller.reply();
            assert!(reply.body == bytes(seed as u64, size), "{size} bytes");
            let line = proxy.access_line(|line| line["path"] == format!("/{seed}/{size}"));
            assert_eq!(line["sent_bytes"], size);
        }
    }
    let made = proxy.metrics().sum("outrigger_upstream_connects_total", &[]);
    assert!(made < 2.5, "connections go on behind a large answer: {made}");
}

#[test]
fn slow_readers_at_once_get_each_their_own() {
    let upstream = upstream();
    let proxy = proxy(&upstream);
    let address = proxy.address("outbound");
    let readers: Vec<_> = (0..8_u8)
        .map(|seed| {
            thread::spawn(move || {
                let mut caller = Connection::open(address);
                caller.request("GET", &format!("/{seed}/{SIZE}"), &[], b"");
                assert_eq!(caller.reply_head().status, 200);
                let expected = bytes(seed.into(), SIZE);
                let (mut read, mut piece) = (0, vec![0; 1 + 4_000 * usize::from(seed)]);
                while read < SIZE {
                    let got = caller.stream.read(&mut piece).unwrap();
                    assert!(got > 0, "cut after {read}");
                    assert!(piece[..got] == expected[read..read + got], "at {read}");
                    read += got;
                }
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn an_answer_that_breaks_off_is_visibly_cut_and_leaves_nothing_behind() {
    let upstream = upstream();
    let proxy = proxy(&upstream);
    for seed in 0..10 {
        let mut caller = Connection::open(proxy.address("outbound"));
        caller.request("GET", &format!("/{seed}/{SIZE}/cut"), &[], b"");
        assert_eq!(caller.reply_head().status, 200);
        let mut got = Vec::new();
        let _reset = caller.stream.read_to_end(&mut got);
        assert!(got.len() < SIZE && got == bytes(seed, SIZE)[..got.len()]);
        let next = get(proxy.address("outbound"), &format!("/{}/{}", seed + 50, 1 << 20));
        assert!(next.body == bytes(seed + 50, 1 << 20));
    }
    let reason = [("reason", "upstream_closed")];
    proxy.wait_metrics("cut answers", |metrics| {
        metrics.sum("outrigger_rejected_total", &reason) > 9.5
    });
}

#[test]
fn a_caller_that_leaves_in_the_middle_leaves_nothing_behind() {
    let upstream = upstream();
    let proxy = proxy(&upstream);
    for seed in 0..10 {
        let mut caller = Connection::open(proxy.address("outbound"));
        caller.request("GET", &format!("/{seed}/{SIZE}"), &[], b"");
        assert_eq!(caller.reply_head().status, 200);
        caller.stream.read_exact(&mut [0; 200_000]).unwrap();
        drop(caller);
        let next = get(proxy.address("outbound"), &format!("/{}/{}", seed + 50, 1 << 20));
        assert!(next.body == bytes(seed + 50, 1 << 20));
    }
    let gone = [("reason", "client_gone")];
    proxy.wait_metrics("callers that left", |metrics| {
        metrics.sum("outrigger_rejected_total", &gone) > 9.5
    });
    proxy.wait_metrics("nothing in flight", |metrics| {
        metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
    });
}
