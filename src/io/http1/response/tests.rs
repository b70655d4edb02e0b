use super::*;
use http::Response;

const ASKED: Asked = Asked { head_only: false, connect: false, old: false, keep_alive: true };

fn write(asked: Asked, status: u16, fields: &str, body: Option<SizeHint>) -> (String, Written) {
    let mut answer = Response::builder().status(status);
    for line in fields.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        answer = answer.header(name, value);
    }
    let mut out = Vec::new();
    let (parts, ()) = answer.body(()).unwrap().into_parts();
    let written = head(&mut out, &asked, &parts, body.as_ref());
    (String::from_utf8(out).unwrap(), written)
}

#[test]
fn the_head_and_the_size_say_how_a_body_is_framed() {
    let (unknown, exact) = (Some(SizeHint::new()), Some(SizeHint::with_exact(5)));
    for (fields, body, expected, encoding) in [
        ("", None, "content-length: 0\r\n", Encoding::Length(0)),
        ("", exact.clone(), "content-length: 5\r\n", Encoding::Length(5)),
        ("content-length: 7", unknown.clone(), "content-length: 7\r\n", Encoding::Length(7)),
        ("content-length: 7", None, "content-length: 7\r\n", Encoding::Length(7)),
        ("transfer-encoding: gzip", None, "content-length: 0\r\n", Encoding::Length(0)),
        ("", unknown, "transfer-encoding: chunked\r\n", Encoding::Chunked(Trailers::Any)),
    ] {
        let (text, written) = write(ASKED, 200, fields, body);
        assert_eq!(text, format!("HTTP/1.1 200 OK\r\n{expected}\r\n"), "{fields}");
        assert_eq!(written.encoding, encoding, "{fields}");
        assert!(written.keep_alive && !written.tunnel);
    }
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
    let size = Some(SizeHint::with_exact(5));
    for status in [204, 304] {
        let (text, written) = write(ASKED, status, "content-length: 5", size.clone());
        assert!(text.ends_with("\r\n\r\n") && !text.contains("length"), "{text}");
        assert!(!written.body && written.encoding == Encoding::Length(0));
    }
    let (text, written) = write(Asked { head_only: true, ..ASKED }, 200, "content-length: 5", size);
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    assert!(!written.body && written.encoding == Encoding::Length(0));
}

#[test]
fn http_1_0_gets_no_chunks_and_is_kept_only_where_it_asked() {
    let old = Asked { old: true, ..ASKED };
    let (text, written) = write(old, 200, "content-length: 5", Some(SizeHint::with_exact(5)));
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.contains("connection: keep-alive\r\n"));
    assert!(written.keep_alive);
    let (text, written) = write(old, 200, "", Some(SizeHint::new()));
    assert_eq!(text, "HTTP/1.0 200 OK\r\n\r\n");
    assert!(!written.keep_alive && written.encoding == Encoding::UntilClose);
    let (text, _) = write(Asked { keep_alive: false, ..old }, 200, "", None);
    assert_eq!(text, "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn the_end_of_a_connection_is_said_once() {
    let (text, _) = write(Asked { keep_alive: false, ..ASKED }, 200, "", None);
    assert_eq!(text.matches("connection: close\r\n").count(), 1);
    let (text, written) = write(ASKED, 200, "connection: close", None);
    assert_eq!(text.matches("connection: close\r\n").count(), 1);
    assert!(!written.keep_alive);
}

#[test]
fn a_tunnel_has_no_framing() {
    let (text, written) = write(ASKED, 101, "connection: upgrade\nupgrade: x", None);
    assert_eq!(
        text,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    );
    assert!(written.tunnel);
    let connect = Asked { connect: true, ..ASKED };
    let (text, written) = write(connect, 200, "content-length: 5", None);
    assert_eq!(text, "HTTP/1.1 200 OK\r\n\r\n");
    assert!(written.tunnel);
    assert!(!write(connect, 403, "", None).1.tunnel);
}
