use super::super::hostile::{self, fed_head as fed};
use super::*;
use crate::base::rng::Rng;

fn read(text: &str) -> Result<Option<Head>, Malformed> {
    read_as(text, false)
}

fn read_as(text: &str, head_only: bool) -> Result<Option<Head>, Malformed> {
    let mut unread = Bytes::copy_from_slice(text.as_bytes());
    parse(&mut unread, &mut Scan::default(), head_only, &mut HeaderMap::new())
}

fn framing(fields: &str) -> Result<Framing, &'static str> {
    let head = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
    head.map(|head| head.unwrap().framing).map_err(|malformed| malformed.0)
}

#[test]
fn the_fields_say_where_a_body_ends() {
    const LENGTH: &str = "Content-Length is not one number";
    const CODING: &str = "a Transfer-Encoding other than one `chunked`";
    for (fields, expected) in [
        ("", Ok(Framing::UntilClose)),
        ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
        ("content-length:  5 \r\n", Ok(Framing::Length(5))),
        ("Content-Length: 18446744073709551615\r\n", Ok(Framing::Length(u64::MAX))),
        ("Content-Length: 18446744073709551616\r\n", Err(LENGTH)),
        ("Content-Length: +5\r\n", Err(LENGTH)),
        ("Content-Length: -5\r\n", Err(LENGTH)),
        ("Content-Length: 0x5\r\n", Err(LENGTH)),
        ("Content-Length: 5 5\r\n", Err(LENGTH)),
        ("Content-Length: 5, 5\r\n", Err(LENGTH)),
        ("Content-Length:\r\n", Err(LENGTH)),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(LENGTH)),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", Err(LENGTH)),
        ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
        ("Transfer-Encoding: CHUNKED\r\n", Ok(Framing::Chunked)),
        ("Transfer-Encoding: gzip\r\n", Err(CODING)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(CODING)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(CODING)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(CODING)),
        ("Transfer-Encoding: chunked;q=1\r\n", Err(CODING)),
        ("Transfer-Encoding: \x0bchunked\r\n", Err("a field's value is not one")),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            Err("both Content-Length and Transfer-Encoding"),
        ),
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            Err("both Content-Length and Transfer-Encoding"),
        ),
    ] {
        assert_eq!(framing(fields), expected, "{fields:?}");
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(read(old).unwrap_err().0, "a Transfer-Encoding with HTTP/1.0");
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
    for status in [100, 101, 103, 204, 304] {
        let head = read(&format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n"));
        assert_eq!(head.unwrap().unwrap().framing, Framing::None, "{status}");
    }
    let head = read_as("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true);
    assert_eq!(head.unwrap().unwrap().framing, Framing::None);
}

#[test]
fn a_connection_is_kept_as_the_version_and_its_fields_say() {
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: x\r\nConnection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        assert_eq!(read(&text).unwrap().unwrap().keep_alive, kept, "{text:?}");
    }
    // What ends with its connection ends it.
    assert!(!read("HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().keep_alive);
}

#[test]
fn what_is_no_head_is_refused() {
    for text in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\rX: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\rY: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\0: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
    ] {
        read(text).expect_err(text);
    }
}

#[test]
fn heads_are_bounded() {
    let large = |size: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(size));
    assert!(read(&large(MAX_HEAD - 24)).unwrap().is_some());
    assert_eq!(read(&large(MAX_HEAD)).unwrap_err().0, "the head is too large");
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD));
    assert_eq!(read(&endless).unwrap_err().0, "the head is too large");
    let many = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(count));
    assert_eq!(read(&many(MAX_FIELDS)).unwrap().unwrap().headers.len(), MAX_FIELDS);
    assert_eq!(read(&many(MAX_FIELDS + 1)).unwrap_err().0, "the head has too many fields");
}

#[test]
fn an_unusual_reason_is_kept() {
    let reason = |text: &str| read(text).unwrap().unwrap().reason;
    assert_eq!(reason("HTTP/1.1 200 OK\r\n\r\n"), None);
    let own = reason("HTTP/1.1 200 Fine\r\n\r\n").unwrap();
    assert_eq!(own.as_bytes(), b"Fine");
}

const HEADS: [&str; 6] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b, c\r\nx-a: d\r\n\r\nhello",
    "HTTP/1.1 404\r\n\r\nrest",
    "\r\nHTTP/1.0 301 Moved Permanently\r\nLocation: /x\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
    "HTTP/1.1 503 \r\nRetry-After: 1\r\n\r\n\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX:\r\nY:  \t v \t\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
];

#[test]
fn the_pieces_in_which_a_head_comes_change_nothing() {
    let mut rng = Rng::from_seed(7);
    for text in HEADS {
        let (whole, left) = fed(text.as_bytes(), std::iter::once(text.len())).unwrap().unwrap();
        let check = |pieces: &mut dyn Iterator<Item = usize>| {
            let (head, rest) = fed(text.as_bytes(), pieces).unwrap().unwrap();
            assert_eq!((&head.headers, head.status), (&whole.headers, whole.status), "{text:?}");
            assert_eq!((head.framing, head.keep_alive), (whole.framing, whole.keep_alive));
            assert_eq!(rest, left, "{text:?}");
        };
        check(&mut std::iter::repeat(1));
        for _ in 0..200 {
            check(&mut std::iter::repeat_with(|| 1 + rng.below(12)));
        }
    }
}

#[test]
fn no_bytes_make_it_panic_and_pieces_do_not_change_the_verdict() {
    let mut rng = Rng::from_seed(11);
    for _ in 0..20_000 {
        let text = HEADS[rng.below(6)].as_bytes();
        let text = rng.damaged(text, b"\r\n :\0,;5");
        let pieces = [rng.bits().to_le_bytes()[0]];
        hostile::head(&[&pieces, &text[..]].concat());
    }
}
