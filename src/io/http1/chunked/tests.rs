use super::super::hostile::{self, ReadBody as Read, fed_chunks as fed};
use super::*;
use crate::base::rng::Rng;

fn whole(text: &str) -> Read {
    fed(text.as_bytes(), || usize::MAX)
}

#[test]
fn chunks_are_joined_and_what_follows_is_left() {
    for (text, data, left) in [
        ("0\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n00\r\n\r\nHTTP", "hello", "HTTP"),
        ("05\r\nhello\r\n3\r\n!\r\n\r\n0\r\n\r\n\r\n", "hello!\r\n", "\r\n"),
        ("A;x=\"y\"\r\n0123456789\r\n0;z\r\n\r\n", "0123456789", ""),
        ("a \t\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
    ] {
        let (read, trailers, rest) = whole(text).unwrap();
        assert_eq!((&read[..], &rest[..]), (data.as_bytes(), left.as_bytes()), "{text:?}");
        assert_eq!(trailers, None);
    }
}

#[test]
fn trailers_are_read() {
    let (_, trailers, left) = whole("1\r\nx\r\n0\r\nX-Sum: 1\r\nx-sum:2\r\n\r\nrest").unwrap();
    let trailers = trailers.unwrap();
    let sums: Vec<_> = trailers.get_all("x-sum").into_iter().collect();
    assert_eq!(sums, ["1", "2"]);
    assert_eq!(left, b"rest");
}

#[test]
fn what_two_readers_could_take_apart_differently_is_refused() {
    for text in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1\nx\r\n",
        "1 1\r\n",
        "1;x\ny\r\n",
        "1\r\rx",
        "1;x\ry",
        "1\r\nxy\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nx\r0",
        "10000000000000000\r\n",
        "ffffffffffffffffff\r\n",
        "0\r\n\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\n X: 1\r\n\r\n",
        "0\r\nX: 1\r\n 2\r\n\r\n",
        "0\r\nX: 1\nY: 2\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: 1\rY",
    ] {
        assert!(matches!(whole(text), Err(Some(_))), "{text:?}: {:?}", whole(text));
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extended = |size| format!("0;{}\r\n\r\n", "x".repeat(size));
    assert!(whole(&extended(MAX_EXTENSIONS)).is_ok());
    assert_eq!(
        whole(&extended(MAX_EXTENSIONS + 1)),
        Err(Some(Malformed("too many chunk extensions")))
    );
    let in_each = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "x".repeat(1_000)).repeat(20));
    assert_eq!(whole(&in_each), Err(Some(Malformed("too many chunk extensions"))));
    let trailer = |size| format!("0\r\nX: {}\r\n\r\n", "x".repeat(size));
    assert!(whole(&trailer(MAX_TRAILERS - 5)).is_ok());
    assert_eq!(whole(&trailer(MAX_TRAILERS)), Err(Some(Malformed("the trailers are too large"))));
    let many = format!("0\r\n{}\r\n", "X: 1\r\n".repeat(MAX_FIELDS + 1));
    assert_eq!(whole(&many), Err(Some(Malformed("the trailers are not fields"))));
}

#[test]
fn a_body_that_was_written_in_any_chunks_is_read_in_any_pieces() {
    let mut rng = Rng::from_seed(3);
    for _ in 0..2_000 {
        let mut body = Vec::new();
        let mut text = Vec::new();
        for _ in 0..rng.below(8) {
            let chunk: Vec<u8> = (0..=rng.bits() % 40).map(|_| b"\r\n0a;"[rng.below(5)]).collect();
            text.extend(format!("{:X}\r\n", chunk.len()).into_bytes());
            text.extend_from_slice(&chunk);
            text.extend_from_slice(b"\r\n");
            body.extend(chunk);
        }
        text.extend_from_slice(b"0\r\n\r\nnext");
        let read = fed(&text, || rng.below(9)).unwrap();
        assert_eq!(read, (body, None, b"next".to_vec()));
    }
}

#[test]
fn no_bytes_make_it_panic_and_pieces_do_not_change_the_verdict() {
    let mut rng = Rng::from_seed(5);
    let seed = b"5;a=b\r\nhello\r\n1f\r\n0123456789012345678901234567890\r\n0\r\nX: 1\r\n\r\nrest";
    for _ in 0..20_000 {
        let text = rng.damaged(seed, b"\r\n :\0f;5");
        let pieces = [rng.bits().to_le_bytes()[0]];
        hostile::chunked(&[&pieces, &text[..]].concat());
    }
}
