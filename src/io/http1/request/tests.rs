use super::super::hostile;
use super::*;
use crate::base::rng::Rng;

const LIMITS: HeadLimits = HeadLimits { fields: 10, bytes: 1_000 };

fn read(text: &str) -> Result<Option<Head>, Refusal> {
    let mut unread = Bytes::copy_from_slice(text.as_bytes());
    parse(&mut unread, &mut Scan::default(), &LIMITS)
}

fn post(fields: &str) -> Result<(Framing, bool), (u16, &'static str)> {
    match read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")) {
        Ok(head) => head.map(|head| (head.framing, head.asked.keep_alive)).ok_or((0, "incomplete")),
        Err(refusal) => Err((refusal.status.as_u16(), refusal.detail)),
    }
}

#[test]
fn the_fields_say_where_a_body_ends_and_whether_the_connection_goes_on() {
    const LENGTH: (u16, &str) = (400, "Content-Length is not one number");
    const CODING: (u16, &str) = (400, "a Transfer-Encoding that does not end in `chunked`");
    const TOO_MUCH: (u16, &str) = (413, "Content-Length is more than any body has");
    for (fields, expected) in [
        ("", Ok((Framing::None, true))),
        ("Connection: close\r\n", Ok((Framing::None, false))),
        ("Connection: close\r\nConnection: keep-alive\r\n", Ok((Framing::None, false))),
        ("Connection: x, Close\r\n", Ok((Framing::None, false))),
        ("Content-Length: 0\r\n", Ok((Framing::Length(0), true))),
        ("content-length:  5 \r\n", Ok((Framing::Length(5), true))),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Ok((Framing::Length(5), true))),
        ("Content-Length: 5\r\nContent-Length: 05\r\n", Ok((Framing::Length(5), true))),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(LENGTH)),
        ("Content-Length: x\r\nContent-Length: 5\r\n", Err(LENGTH)),
        ("Content-Length: 5, 5\r\n", Err(LENGTH)),
        ("Content-Length: +5\r\n", Err(LENGTH)),
        ("Content-Length:\r\n", Err(LENGTH)),
        ("Content-Length: 18446744073709551616\r\n", Err(LENGTH)),
        ("Content-Length: 18446744073709551615\r\n", Err(TOO_MUCH)),
        ("Content-Length: 9223372036854775807\r\n", Ok((Framing::Length(i64::MAX as u64), true))),
        ("Transfer-Encoding: chunked\r\n", Ok((Framing::Chunked, true))),
        ("Transfer-Encoding: gzip, CHUNKED\r\n", Ok((Framing::Chunked, true))),
        ("Transfer-Encoding: chunked, gzip\r\n", Err(CODING)),
        ("Transfer-Encoding: chunked;x\r\n", Err(CODING)),
        ("Transfer-Encoding:\r\n", Err(CODING)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Ok((Framing::Chunked, false))),
        ("Content-Length: x\r\nTransfer-Encoding: chunked\r\n", Ok((Framing::Chunked, false))),
    ] {
        assert_eq!(post(fields), expected, "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(read(old).unwrap_err().detail, "a Transfer-Encoding with HTTP/1.0");
    let old = "GET / HTTP/1.0\r\n\r\n";
    assert!(!read(old).unwrap().unwrap().asked.keep_alive);
}

#[test]
fn a_length_that_counts_for_nothing_is_not_passed_on() {
    let read = |fields: &str| {
        let head = read(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).unwrap().unwrap();
        head.parts.headers.get_all(CONTENT_LENGTH).iter().count()
    };
    assert_eq!(read("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 0);
    assert_eq!(read("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 0);
    assert_eq!(read("Content-Length: 5\r\nContent-Length: 5\r\n"), 1);
}

#[test]
fn what_is_no_head_is_refused() {
    for (text, status, detail) in [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "a field's name is not one"),
        ("GET / HTTP/1.1\r\nA: \x01\r\n\r\n", 400, "a field's value is not one"),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400, "a field's name is not one"),
        ("GET / HTTP/2.0\r\n\r\n", 400, "this is not HTTP/1"),
        ("G\x00T / HTTP/1.1\r\n\r\n", 400, "the method is not one"),
        ("GET /\x7f HTTP/1.1\r\n\r\n", 400, "the target is not one"),
        ("GET  / HTTP/1.1\r\n\r\n", 400, "the target is not one"),
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400, "the method is not one"),
    ] {
        let refusal = read(text).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.detail), (status, detail), "{text:?}");
        assert_eq!(refusal.reason, Reason::DownstreamProtocol);
    }
}

#[test]
fn heads_are_bounded() {
    let fields = |number: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(number));
    assert!(read(&fields(10)).unwrap().is_some());
    let refusal = read(&fields(11)).unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.reason), (431, Reason::TooLarge));
    for end in ["", "\r\n\r\n"] {
        let refusal = read(&format!("GET / HTTP/1.1\r\nx: {}{end}", "a".repeat(1_000)));
        assert_eq!(refusal.unwrap_err().status.as_u16(), 431);
    }
    let mut long =
        Bytes::from(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(MAX_TARGET)));
    let limits = HeadLimits { fields: 200, bytes: 1 << 20 };
    let refusal = parse(&mut long, &mut Scan::default(), &limits).unwrap_err();
    assert_eq!(refusal.status.as_u16(), 414);
    let mut many = Bytes::from(fields(200));
    assert!(parse(&mut many, &mut Scan::default(), &limits).unwrap().is_some());
}

#[test]
fn a_caller_says_what_it_waits_for() {
    let read = |text: &str| {
        let head = read(text).unwrap().unwrap();
        (head.expects, head.upgrades, head.asked.head_only, head.asked.connect, head.asked.old)
    };
    assert_eq!(
        read("HEAD / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n"),
        (true, false, true, false, false)
    );
    assert_eq!(read("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n"), (false, true, false, false, false));
    assert_eq!(
        read("GET / HTTP/1.0\r\nUpgrade: x\r\nExpect: 100-continue\r\n\r\n"),
        (false, false, false, false, true)
    );
    assert_eq!(read("CONNECT a:1 HTTP/1.1\r\n\r\n"), (false, true, false, true, false));
}

#[test]
fn no_bytes_make_it_panic_and_pieces_do_not_change_the_verdict() {
    const WORDS: [&str; 17] = [
        "GET ",
        "POST ",
        "/",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "Host: a",
        ": ",
        "Content-Length: ",
        "5",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "\0",
        " ",
        "\u{e9}",
    ];
    let mut rng = Rng::from_seed(7);
    let mut heads = 0;
    for round in 0..30_000 {
        let mut text = vec![1 + u8::try_from(rng.below(20)).unwrap()];
        if round % 2 == 0 {
            text.extend_from_slice(b"GET / HTTP/1.1\r\n");
        }
        for _ in 0..rng.below(12) {
            text.extend_from_slice(WORDS[rng.below(WORDS.len())].as_bytes());
        }
        heads += usize::from(hostile::request(&text));
    }
    assert!(heads > 1_000, "{heads}");
}
