use super::*;
use http::{HeaderValue, Method, Uri};

fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |&(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    list.iter().map(field).collect()
}

fn written(
    method: &Method,
    target: &str,
    list: &[(&'static str, &'static str)],
    body: Option<SizeHint>,
) -> (String, Encoding) {
    let mut out = Vec::new();
    let target: Uri = target.parse().unwrap();
    let fields = fields(list);
    let written = RequestHead { method, target: &target, fields: &fields, added: &[] };
    let encoding = head(&mut out, &written, body.as_ref());
    (String::from_utf8(out).unwrap(), encoding)
}

#[test]
fn a_head_is_written_in_one_form() {
    let (text, encoding) =
        written(&Method::GET, "/a?b", &[("host", "h"), ("x-a", "1"), ("x-a", "2")], None);
    assert_eq!(text, "GET /a?b HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
    assert_eq!(encoding, Encoding::Length(0));
}

#[test]
fn a_target_is_a_path_whatever_form_it_had() {
    for (target, expected) in
        [("http://a", "/"), ("http://a?x", "/?x"), ("http://a/b", "/b"), ("*", "*")]
    {
        let (text, _) = written(&Method::OPTIONS, target, &[], None);
        assert_eq!(text, format!("OPTIONS {expected} HTTP/1.1\r\n\r\n"), "{target}");
    }
}

#[test]
fn the_head_and_the_size_say_how_a_body_is_framed() {
    let unknown = SizeHint::new();
    let exact = SizeHint::with_exact(5);
    let chunked = Encoding::Chunked(Trailers::Announced(Vec::new()));
    let length = ("content-length", "7");
    let coding = ("transfer-encoding", "chunked");
    for (list, body, text, expected) in [
        (&[][..], None, "", Encoding::Length(0)),
        (&[coding][..], None, "", Encoding::Length(0)),
        (&[("content-length", "0")][..], None, "content-length: 0\r\n", Encoding::Length(0)),
        (&[length][..], Some(&unknown), "content-length: 7\r\n", Encoding::Length(7)),
        (&[][..], Some(&exact), "content-length: 5\r\n", Encoding::Length(5)),
        (&[][..], Some(&unknown), "transfer-encoding: chunked\r\n", chunked),
        (
            &[coding, length][..],
            Some(&exact),
            "transfer-encoding: chunked\r\n",
            Encoding::Chunked(Trailers::Announced(Vec::new())),
        ),
    ] {
        let (head, encoding) = written(&Method::POST, "/", list, body.copied());
        assert_eq!(head, format!("POST / HTTP/1.1\r\n{text}\r\n"));
        assert_eq!(encoding, expected);
    }
}

#[test]
fn only_trailers_that_were_announced_and_frame_nothing_are_written() {
    let announced =
        [("trailer", "X-A, content-length"), ("trailer", "x-b"), ("transfer-encoding", "chunked")];
    let (_, mut encoding) = written(&Method::POST, "/", &announced, Some(SizeHint::new()));
    let trailers = fields(&[("x-a", "1"), ("x-a", "2"), ("x-c", "3"), ("content-length", "4")]);
    let mut out = Vec::new();
    encoding.end(&mut &b""[..], Some(&trailers), &mut out).unwrap();
    assert_eq!(out, b"0\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
}
