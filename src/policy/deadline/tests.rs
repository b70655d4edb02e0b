use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn grpc_read(value: &'static str) -> (Option<Duration>, u32) {
    let asked = CallerTimeout::read(&headers(&[("grpc-timeout", value)]), false);
    (asked.shortest, asked.malformed)
}

#[test]
fn grpc_timeouts_are_read_in_every_unit() {
    for (value, expected) in [
        ("2H", Duration::from_secs(7200)),
        ("3M", Duration::from_secs(180)),
        ("15S", Duration::from_secs(15)),
        ("250m", MS(250)),
        ("99999999u", Duration::from_micros(99_999_999)),
        ("7n", Duration::from_nanos(7)),
        ("00000001S", Duration::from_secs(1)),
        ("0m", Duration::ZERO),
    ] {
        assert_eq!(grpc_read(value), (Some(expected), 0), "{value}");
    }
}

#[test]
fn malformed_timeouts_are_ignored_and_counted() {
    for value in ["", "S", "10", "100000000S", "-1S", "+1S", "1 S", "1.5S", "1s", "1h", "0x1S"] {
        assert_eq!(grpc_read(value), (None, 1), "{value:?}");
    }
    for value in ["", "1s", "-5", "1e3", "9999999999999999", "0x10", " 5"] {
        let asked = CallerTimeout::read(&headers(&[("x-outrigger-timeout-ms", value)]), false);
        assert_eq!((asked.shortest, asked.malformed), (None, 1), "{value:?}");
    }
    let opaque = HeaderMap::from_iter([(TIMEOUT_MS, HeaderValue::from_bytes(b"\xff").unwrap())]);
    assert_eq!(CallerTimeout::read(&opaque, false).malformed, 1);
}

#[test]
fn the_shortest_of_all_wishes_counts() {
    let map = headers(&[
        ("grpc-timeout", "2S"),
        ("x-outrigger-timeout-ms", "700"),
        ("x-outrigger-timeout-ms", "900"),
        ("x-outrigger-timeout-ms", "soon"),
        ("x-envoy-upstream-rq-timeout-ms", "500"),
        ("x-envoy-expected-rq-timeout-ms", "400"),
    ]);
    let ours = CallerTimeout { shortest: Some(MS(700)), grpc: true, malformed: 1 };
    assert_eq!(CallerTimeout::read(&map, false), ours);
    let envoy = CallerTimeout { shortest: Some(MS(400)), ..ours };
    assert_eq!(CallerTimeout::read(&map, true), envoy);
    assert_eq!(CallerTimeout::read(&HeaderMap::new(), true), CallerTimeout::default());
}

#[test]
fn zero_is_expired_but_for_envoy_it_is_no_wish() {
    let now = Instant::now();
    let ours = CallerTimeout::read(&headers(&[("x-outrigger-timeout-ms", "0")]), true);
    assert_eq!(ours.shortest, Some(Duration::ZERO));
    assert!(Deadline::new(now, Some(MS(100)), &ours, Exchange::Http).expired(now));
    let envoy = CallerTimeout::read(&headers(&[("x-envoy-upstream-rq-timeout-ms", "0")]), true);
    assert_eq!(envoy, CallerTimeout::default());
}

#[test]
fn a_caller_can_only_shorten() {
    let now = Instant::now();
    let asks = |millis| CallerTimeout { shortest: Some(MS(millis)), ..CallerTimeout::default() };
    let end = |route, caller: CallerTimeout| {
        Deadline::new(now, route, &caller, Exchange::Http).remaining(now)
    };
    assert_eq!(end(Some(MS(100)), asks(40)), Some(MS(40)));
    assert_eq!(end(Some(MS(100)), asks(400)), Some(MS(100)));
    assert_eq!(end(Some(MS(100)), CallerTimeout::default()), Some(MS(100)));
    assert_eq!(end(None, asks(40)), Some(MS(40)));
    assert_eq!(end(None, CallerTimeout::default()), None);
    assert_eq!(end(Some(Duration::MAX), CallerTimeout::default()), None);
}

#[test]
fn streams_end_their_deadline_at_the_head() {
    let now = Instant::now();
    let at_head = |exchange, caller: CallerTimeout| {
        Deadline::new(now, Some(MS(9)), &caller, exchange).ends_at_head
    };
    let plain = CallerTimeout::default();
    let with_grpc = CallerTimeout { shortest: Some(MS(5)), grpc: true, malformed: 0 };
    assert!(!at_head(Exchange::Http, plain));
    assert!(at_head(Exchange::Tunnel, plain));
    assert!(at_head(Exchange::Grpc, plain));
    assert!(!at_head(Exchange::Grpc, with_grpc));
}

#[test]
fn event_streams_are_known_by_their_type() {
    let is_events = |kind| is_event_stream(&HeaderValue::from_static(kind));
    assert!(["text/html", "text/event-streams", ""].into_iter().all(|kind| !is_events(kind)));
    assert!(is_events("text/event-stream") && is_events("Text/Event-Stream ; charset=utf-8"));
}

#[test]
fn the_kind_of_exchange_is_known_from_the_request() {
    let grpc = headers(&[("content-type", "application/grpc+proto")]);
    let upgrade = headers(&[("upgrade", "websocket")]);
    assert_eq!(Exchange::of(&Method::POST, &grpc), Exchange::Grpc);
    assert_eq!(Exchange::of(&Method::GET, &upgrade), Exchange::Tunnel);
    assert_eq!(Exchange::of(&Method::CONNECT, &HeaderMap::new()), Exchange::Tunnel);
    assert_eq!(Exchange::of(&Method::GET, &HeaderMap::new()), Exchange::Http);
}

#[test]
fn an_attempt_ends_with_its_own_bound_or_with_the_request() {
    let now = Instant::now();
    let deadline = Deadline { overall: Some(now + MS(100)), ends_at_head: false };
    assert_eq!(deadline.of_attempt(Some(MS(30)), now), Some(now + MS(30)));
    assert_eq!(deadline.of_attempt(Some(MS(30)), now + MS(90)), Some(now + MS(100)));
    assert_eq!(deadline.of_attempt(None, now), Some(now + MS(100)));
    let unlimited = Deadline { overall: None, ends_at_head: false };
    assert_eq!(unlimited.of_attempt(Some(MS(30)), now), Some(now + MS(30)));
    assert_eq!(unlimited.of_attempt(None, now), None);
}

#[test]
fn time_runs_out_and_stays_at_zero() {
    let now = Instant::now();
    let deadline = Deadline { overall: Some(now + MS(5)), ends_at_head: false };
    assert!(!deadline.expired(now + MS(4)) && deadline.expired(now + MS(5)));
    assert_eq!(deadline.remaining(now + MS(4)), Some(MS(1)));
    assert_eq!(deadline.remaining(now + MS(9)), Some(Duration::ZERO));
}

#[test]
fn the_next_hop_is_told_what_is_left_rounded_down() {
    for (left, grpc, millis) in [
        (Duration::ZERO, "1u", "1"),
        (Duration::from_nanos(999), "1u", "1"),
        (Duration::from_nanos(1_999_999), "1999u", "1"),
        (MS(250), "250000u", "250"),
        (Duration::from_micros(99_999_999), "99999999u", "99999"),
        (Duration::from_micros(100_000_999), "100000m", "100000"),
        (Duration::from_secs(99_999), "99999000m", "99999000"),
        (Duration::from_secs(100_000), "100000S", "100000000"),
        (Duration::from_secs(99_999_999 * 60), "99999999M", "5999999940000"),
        (Duration::from_secs(99_999_999 * 60 + 60), "1666666H", "6000000000000"),
        (Duration::MAX, "99999999H", "18446744073709551615"),
    ] {
        assert_eq!(grpc_timeout(left), grpc, "{left:?}");
        assert_eq!(timeout_ms(left), millis, "{left:?}");
    }
}

#[test]
fn what_is_written_reads_back_within_its_unit() {
    let mut rng = crate::base::rng::Rng::from_seed(11);
    for _ in 0..10_000 {
        let left = Duration::from_micros(1 + (rng.bits() >> (rng.below(50) + 14)));
        let read = parse_grpc_timeout(grpc_timeout(left).as_bytes()).unwrap();
        assert!(read <= left && left - read <= left / 1_000, "seed 11: {left:?} {read:?}");
    }
}

/// Against a reader that is written in another way: through the standard library's numbers.
#[test]
fn no_bytes_are_read_as_a_timeout_but_digits_and_a_unit() {
    let mut rng = crate::base::rng::Rng::from_seed(13);
    let digits = |text: &str, most: usize| -> Option<u64> {
        let plain = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().unwrap())
    };
    for _ in 0..50_000 {
        let length = rng.below(18);
        let bytes: Vec<u8> =
            (0..length).map(|_| b"0123456789HMSmunhs -+.\xff"[rng.below(23)]).collect();
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
        let text = std::str::from_utf8(&bytes).unwrap_or("?");
        let expected = text.char_indices().next_back().and_then(|(end, unit)| {
            let number = digits(&text[..end], 8)?;
            let unit = match unit {
                'H' => Duration::from_secs(3600),
                'M' => Duration::from_secs(60),
                'S' => Duration::from_secs(1),
                'm' => Duration::from_millis(1),
                'u' => Duration::from_micros(1),
                'n' => Duration::from_nanos(1),
                _ => return None,
            };
            Some(unit * u32::try_from(number).unwrap())
        });
        let read =
            CallerTimeout::read(&HeaderMap::from_iter([(GRPC_TIMEOUT, value.clone())]), true);
        let malformed = u32::from(expected.is_none());
        assert_eq!((read.shortest, read.malformed), (expected, malformed), "{bytes:?}");
        let expected = digits(text, 15).map(Duration::from_millis);
        let read = CallerTimeout::read(&HeaderMap::from_iter([(TIMEOUT_MS, value)]), true);
        assert_eq!(read.shortest, expected, "{bytes:?}");
        // Whatever was read can be kept, told on, and read there.
        if let Some(timeout) = expected {
            let now = Instant::now();
            let end = Deadline::new(now, None, &read, Exchange::Http);
            let left = end.remaining(now).unwrap_or(timeout);
            for (name, value) in
                [(GRPC_TIMEOUT, grpc_timeout(left)), (TIMEOUT_MS, timeout_ms(left))]
            {
                let told = CallerTimeout::read(&HeaderMap::from_iter([(name, value)]), false);
                assert!(told.malformed == 0 && told.shortest <= Some(left.max(MS(1))), "{left:?}");
            }
        }
    }
}
