//! Minimal responder: HTTP/1.1 (plain and TLS) and HTTP/2 prior knowledge,
//! one thread, one epoll. Paths: /1m* -> 1 MiB, /16k* -> 16 KiB, else 1 KiB.
//! It trusts its peer (a proxy under test) and parses only what it must.
use peer_load::*;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    H1,
    H2,
    Tls,
}
struct H1 {
    skip: u64,
    chunked: bool,
}
struct H2 {
    preface: bool,
    win: i64,
    init_win: i64,
    pend: std::collections::VecDeque<u32>,
    rx: u32,
}
struct Conn {
    s: Stream,
    inb: Vec<u8>,
    h1: H1,
    h2: Option<H2>,
    want_out: bool,
}

struct Pages {
    k1: Vec<u8>,
    k16: Vec<u8>,
    m1: Vec<u8>,
    ok: Vec<u8>,
}
fn page(n: usize) -> Vec<u8> {
    let mut v = format!(
        "HTTP/1.1 200 OK\r\nserver: up\r\ncontent-type: text/plain\r\ncontent-length: {n}\r\n\r\n"
    )
    .into_bytes();
    v.resize(v.len() + n, b'x');
    v
}
fn find(b: &[u8], pat: &[u8]) -> Option<usize> {
    b.windows(pat.len()).position(|w| w == pat)
}
fn find_end(b: &[u8]) -> Option<usize> {
    let mut i = 0;
    while i + 3 < b.len() {
        match b[i + 3] {
            b'\n' => {
                if b[i] == b'\r' && b[i + 1] == b'\n' && b[i + 2] == b'\r' {
                    return Some(i + 4);
                }
                i += 2
            }
            b'\r' => i += 1,
            _ => i += 4,
        }
    }
    None
}
fn header<'a>(h: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut i = 0;
    while let Some(p) = h[i..].iter().position(|c| *c == b'\n') {
        let st = i + p + 1;
        if st + name.len() < h.len()
            && h[st..st + name.len()].eq_ignore_ascii_case(name)
            && h[st + name.len()] == b':'
        {
            let e = h[st..].iter().position(|c| *c == b'\r')? + st;
            return Some(h[st + name.len() + 1..e].trim_ascii());
        }
        i = st;
    }
    None
}

fn h1(c: &mut Conn, pg: &Pages) -> io::Result<()> {
    let mut b = std::mem::take(&mut c.inb);
    let mut pos = 0;
    loop {
        if c.h1.skip > 0 {
            let n = c.h1.skip.min((b.len() - pos) as u64);
            pos += n as usize;
            c.h1.skip -= n;
            if c.h1.skip > 0 {
                break;
            }
            c.s.send(&pg.ok)?;
        }
        if c.h1.chunked {
            match find(&b[pos..], b"0\r\n\r\n") {
                Some(e) => {
                    pos += e + 5;
                    c.h1.chunked = false;
                    c.s.send(&pg.ok)?;
                }
                None => {
                    let keep = (b.len() - pos).min(4);
                    pos = b.len() - keep;
                    break;
                }
            }
        }
        if pos >= b.len() {
            break;
        }
        let Some(e) = find_end(&b[pos..]) else { break };
        let h = &b[pos..pos + e];
        let post = h[0] == b'P';
        let path = h.iter().position(|x| *x == b' ').map(|p| &h[p + 1..]).unwrap_or(h);
        let which = if path.starts_with(b"/1m") {
            2
        } else if path.starts_with(b"/16k") {
            1
        } else {
            0
        };
        if post {
            if let Some(v) = header(h, b"content-length") {
                c.h1.skip = std::str::from_utf8(v).unwrap_or("0").parse().unwrap_or(0);
                if c.h1.skip == 0 {
                    c.s.send(&pg.ok)?;
                }
            } else if header(h, b"transfer-encoding").is_some() {
                c.h1.chunked = true
            } else {
                c.s.send(&pg.ok)?;
            }
        }
        pos += e;
        if !post {
            c.s.send(match which {
                2 => &pg.m1,
                1 => &pg.k16,
                _ => &pg.k1,
            })?;
        }
    }
    if pos == b.len() {
        b.clear()
    } else if pos > 0 {
        b.drain(..pos);
    }
    c.inb = b;
    Ok(())
}

// ---- HTTP/2, prior knowledge: any HEADERS(+DATA) with END_STREAM -> 200 + 1 KiB (or 100 B after a body)
fn frame(out: &mut Vec<u8>, ty: u8, flags: u8, id: u32, p: &[u8]) {
    let l = p.len() as u32;
    out.extend_from_slice(&[(l >> 16) as u8, (l >> 8) as u8, l as u8, ty, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(p);
}
fn h2_reply(out: &mut Vec<u8>, id: u32, n: usize, body: &[u8]) {
    let mut h = vec![0x88u8]; // :status 200
    h.extend_from_slice(&[0x0f, 0x0d]);
    let s = n.to_string();
    h.push(s.len() as u8);
    h.extend_from_slice(s.as_bytes()); // content-length, literal w/o indexing (name idx 28)
    h.extend_from_slice(&[0x0f, 0x10, 0x0a]);
    h.extend_from_slice(b"text/plain"); // content-type (idx 31)
    frame(out, 1, 4, id, &h);
    frame(out, 0, 1, id, &body[..n]);
}
fn h2(c: &mut Conn, pg: &Pages, out: &mut Vec<u8>) -> io::Result<()> {
    let body = &pg.k1[pg.k1.len() - 1024..];
    let mut b = std::mem::take(&mut c.inb);
    let h = c.h2.as_mut().unwrap();
    let mut pos = 0;
    out.clear();
    if !h.preface {
        if b.len() < 24 {
            c.inb = b;
            return Ok(());
        }
        pos = 24;
        h.preface = true;
        // MAX_CONCURRENT_STREAMS 1000, INITIAL_WINDOW 1 MiB; connection window +16 MiB
        frame(out, 4, 0, 0, &[0, 3, 0, 0, 3, 0xe8, 0, 4, 0, 0x10, 0, 0]);
        frame(out, 8, 0, 0, &(16u32 << 20).to_be_bytes());
    }
    while b.len() - pos >= 9 {
        let f = &b[pos..];
        let l = (f[0] as usize) << 16 | (f[1] as usize) << 8 | f[2] as usize;
        if f.len() < 9 + l {
            break;
        }
        let (ty, fl) = (f[3], f[4]);
        let id = u32::from_be_bytes([f[5] & 0x7f, f[6], f[7], f[8]]);
        let p = &f[9..9 + l];
        match ty {
            0 => {
                h.rx += l as u32;
                if h.rx > 1 << 20 {
                    frame(out, 8, 0, 0, &h.rx.to_be_bytes());
                    h.rx = 0;
                }
                if fl & 1 != 0 {
                    h.pend.push_back(id)
                }
            }
            1 => {
                if fl & 1 != 0 {
                    h.pend.push_back(id)
                }
            }
            4 => {
                if fl & 1 == 0 {
                    for s in p.chunks(6) {
                        if s[1] == 4 {
                            h.init_win = u32::from_be_bytes([s[2], s[3], s[4], s[5]]) as i64;
                        }
                    }
                    frame(out, 4, 1, 0, &[]);
                }
            }
            6 => {
                if fl & 1 == 0 {
                    frame(out, 6, 1, 0, p)
                }
            }
            8 => {
                if id == 0 {
                    h.win += u32::from_be_bytes([p[0] & 0x7f, p[1], p[2], p[3]]) as i64
                }
            }
            7 => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        pos += 9 + l;
    }
    while let Some(id) = h.pend.front().copied() {
        if h.win < 1024 {
            break;
        }
        h.win -= 1024;
        h2_reply(out, id, 1024, body);
        h.pend.pop_front();
    }
    if pos == b.len() {
        b.clear()
    } else {
        b.drain(..pos);
    }
    c.inb = b;
    if !out.is_empty() {
        c.s.send(out)?;
    }
    Ok(())
}

fn main() {
    let a = args();
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let ports = |k: &str| {
        a.get(k)
            .map(|s| s.split(',').map(|x| x.parse::<u16>().unwrap()).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let mut ls = vec![];
    for (k, kind) in [("h1", Kind::H1), ("h2", Kind::H2), ("tls", Kind::Tls)] {
        for p in ports(k) {
            let l = TcpListener::bind(("127.0.0.1", p)).unwrap();
            unsafe { libc::listen(l.as_raw_fd(), 4096) };
            l.set_nonblocking(true).unwrap();
            ls.push((l, kind));
        }
    }
    let tls = a.get("cert").map(|c| {
        let b = rustls::ServerConfig::builder();
        let b = match a.get("client-ca") {
            Some(ca) => b.with_client_cert_verifier(
                rustls::server::WebPkiClientVerifier::builder(roots(ca)).build().unwrap(),
            ),
            None => b.with_no_client_auth(),
        };
        Arc::new(b.with_single_cert(certs(c), key(&a["key"])).unwrap())
    });
    let pg = Pages { k1: page(1024), k16: page(16384), m1: page(1 << 20), ok: page(64) };
    let ep = Epoll::new();
    for (i, (l, _)) in ls.iter().enumerate() {
        ep.add(l.as_raw_fd(), i as u64, libc::EPOLLIN as u32);
    }
    let mut slots: Vec<Option<Conn>> = vec![];
    let mut free: Vec<usize> = vec![];
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut buf = vec![0u8; 256 << 10];
    let mut out = Vec::with_capacity(1 << 16);
    loop {
        let n = ep.wait(&mut evs, -1);
        for k in 0..n {
            let ev = evs[k];
            let t = ev.u64 as usize;
            if t < ls.len() {
                while let Ok((s, _)) = ls[t].0.accept() {
                    let tc = if ls[t].1 == Kind::Tls {
                        Some(
                            rustls::ServerConnection::new(tls.clone().expect("--cert"))
                                .unwrap()
                                .into(),
                        )
                    } else {
                        None
                    };
                    let c = Conn {
                        s: Stream::new(s, tc),
                        inb: vec![],
                        h1: H1 { skip: 0, chunked: false },
                        want_out: false,
                        h2: (ls[t].1 == Kind::H2).then(|| H2 {
                            preface: false,
                            win: 65535,
                            init_win: 65535,
                            pend: Default::default(),
                            rx: 0,
                        }),
                    };
                    let i = free.pop().unwrap_or_else(|| {
                        slots.push(None);
                        slots.len() - 1
                    });
                    ep.add(c.s.fd(), (i + 64) as u64, (libc::EPOLLIN | libc::EPOLLRDHUP) as u32);
                    slots[i] = Some(c);
                }
                continue;
            }
            let i = t - 64;
            let Some(c) = slots[i].as_mut() else { continue };
            let mut dead = false;
            if ev.events & libc::EPOLLOUT as u32 != 0 {
                dead |= c.s.flush().is_err();
            }
            if !dead && ev.events & !(libc::EPOLLOUT as u32) != 0 {
                loop {
                    match c.s.read(&mut buf) {
                        Ok(0) => {
                            dead = true;
                            break;
                        }
                        Ok(n) => {
                            c.inb.extend_from_slice(&buf[..n]);
                            let r = if c.h2.is_some() { h2(c, &pg, &mut out) } else { h1(c, &pg) };
                            if r.is_err() {
                                dead = true;
                                break;
                            }
                            if c.s.tls.is_none() {
                                break;
                            } // level-triggered
                        }
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                            if c.s.flush().is_err() {
                                dead = true
                            }
                            break;
                        }
                        Err(_) => {
                            dead = true;
                            break;
                        }
                    }
                }
            }
            if dead {
                ep.del(c.s.fd());
                slots[i] = None;
                free.push(i);
                continue;
            }
            let w = c.s.pending();
            if w != c.want_out {
                c.want_out = w;
                ep.modify(
                    c.s.fd(),
                    t as u64,
                    (libc::EPOLLIN | libc::EPOLLRDHUP | if w { libc::EPOLLOUT } else { 0 }) as u32,
                );
            }
        }
    }
}
