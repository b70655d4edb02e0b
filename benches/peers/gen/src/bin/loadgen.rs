//! HTTP/1.1 load: closed loop (as fast as it goes) or open loop at --rate, plain or TLS,
//! keep-alive or a new connection per request (--fresh), idle connections beside (--idle N).
//! Samples the CPU time of --pid over exactly the measured window; prints one JSON line.
use peer_load::*;
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct C {
    s: Option<Stream>,
    busy: bool,
    t0: Instant,
    head: Vec<u8>,
    left: u64,
    in_body: bool,
    want_out: bool,
    sent: bool,
}
fn find_end(b: &[u8]) -> Option<usize> {
    b.windows(4).position(|w| w == b"\r\n\r\n").map(|p| p + 4)
}
fn clen(h: &[u8]) -> Option<u64> {
    let s = std::str::from_utf8(h).ok()?;
    for l in s.split("\r\n").skip(1) {
        if let Some((k, v)) = l.split_once(':') {
            if k.eq_ignore_ascii_case("content-length") {
                return v.trim().parse().ok();
            }
        }
    }
    None
}
fn main() {
    let a = args();
    let num = |k: &str, d: f64| a.get(k).map(|x| x.parse::<f64>().unwrap()).unwrap_or(d);
    let target = a["target"].clone();
    let (nc, dur, warm, rate) =
        (num("conns", 64.) as usize, num("dur", 5.), num("warmup", 1.), num("rate", 0.));
    let body = num("body", 0.) as usize;
    let path = a.get("path").cloned().unwrap_or("/1k".into());
    let fresh = a.contains_key("fresh");
    let idle = num("idle", 0.) as usize;
    let pids: Vec<u32> = a
        .get("pid")
        .map(|s| s.split(',').map(|x| x.parse().unwrap()).collect())
        .unwrap_or_default();
    let mut req = format!(
        "{} {path} HTTP/1.1\r\nhost: svc.test\r\nuser-agent: loadgen/1\r\naccept: */*\r\n",
        if body > 0 { "POST" } else { "GET" }
    );
    if fresh {
        req.push_str("connection: close\r\n");
    }
    if body > 0 {
        req.push_str(&format!(
            "content-type: application/octet-stream\r\ncontent-length: {body}\r\n"
        ));
    }
    req.push_str("\r\n");
    let mut req = req.into_bytes();
    req.resize(req.len() + body, b'b');
    let tls = a.get("ca").map(|ca| {
        let b = rustls::ClientConfig::builder().with_root_certificates(roots(ca));
        let mut c = match a.get("cert") {
            Some(f) => b.with_client_auth_cert(certs(f), key(&a["key"])).unwrap(),
            None => b.with_no_client_auth(),
        };
        if fresh {
            c.resumption = rustls::client::Resumption::disabled();
        }
        Arc::new(c)
    });
    let addr: std::net::SocketAddr = target.parse().unwrap();
    let ep = Epoll::new();
    let mk = || -> io::Result<Stream> {
        let s = TcpStream::connect(addr)?;
        let t = tls.as_ref().map(|c| {
            rustls::ClientConnection::new(c.clone(), "svc.test".try_into().unwrap()).unwrap().into()
        });
        Ok(Stream::new(s, t))
    };
    // idle ones: each serves one request (so the proxy has really parsed on it), then rests
    let mut rest = vec![];
    if idle > 0 {
        use std::io::{Read, Write};
        let small = b"GET /1k HTTP/1.1\r\nhost: svc.test\r\n\r\n";
        let mut bb = [0u8; 4096];
        for _ in 0..idle {
            let mut s = TcpStream::connect(addr).unwrap();
            s.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            s.write_all(small).unwrap();
            let (mut got, mut need) = (vec![], None::<usize>);
            while need.map_or(true, |n| got.len() < n) {
                let n = s.read(&mut bb).unwrap();
                if n == 0 {
                    break;
                }
                got.extend_from_slice(&bb[..n]);
                if need.is_none() {
                    if let Some(e) = find_end(&got) {
                        need = Some(e + clen(&got[..e]).unwrap_or(0) as usize)
                    }
                }
            }
            rest.push(s);
        }
        println!("{{\"idle_open\":{}}}", rest.len());
        if a.contains_key("hold") {
            std::thread::sleep(Duration::from_secs_f64(num("hold", 5.)));
            return;
        }
    }
    let now = Instant::now();
    let mut cs: Vec<C> = (0..nc)
        .map(|_| C {
            s: None,
            busy: false,
            t0: now,
            head: vec![],
            left: 0,
            in_body: false,
            want_out: false,
            sent: false,
        })
        .collect();
    let mut idle_q: VecDeque<usize> = VecDeque::new();
    for i in 0..nc {
        if !fresh {
            let s = mk().expect("connect");
            ep.add(s.fd(), i as u64, libc::EPOLLIN as u32);
            cs[i].s = Some(s);
        }
        idle_q.push_back(i);
    }
    let start = Instant::now();
    let t_meas = start + Duration::from_secs_f64(warm);
    let t_end = t_meas + Duration::from_secs_f64(dur);
    let mut hist = Hist::new();
    let (mut ok, mut err, mut bytes) = (0u64, 0u64, 0u64);
    let mut c0 = None::<(Cpu, Cpu, Instant)>;
    let me = std::process::id();
    let gap = if rate > 0. { Duration::from_secs_f64(1. / rate) } else { Duration::ZERO };
    let mut next = Instant::now();
    let mut due: VecDeque<Instant> = VecDeque::new();
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut buf = vec![0u8; 512 << 10];
    loop {
        let now = Instant::now();
        if c0.is_none() && now >= t_meas {
            c0 = Some((cpu(&pids), cpu(&[me]), Instant::now()));
            ok = 0;
            err = 0;
            bytes = 0;
            hist = Hist::new();
        }
        if now >= t_end {
            break;
        }
        if rate > 0. {
            while next <= now {
                due.push_back(next);
                next += gap;
            }
        }
        while !idle_q.is_empty() && (rate == 0. || !due.is_empty()) {
            let i = idle_q.pop_front().unwrap();
            let c = &mut cs[i];
            c.t0 = if rate > 0. { due.pop_front().unwrap() } else { Instant::now() };
            if c.s.is_none() {
                match mk() {
                    Ok(s) => {
                        ep.add(s.fd(), i as u64, libc::EPOLLIN as u32);
                        c.s = Some(s);
                        c.want_out = false
                    }
                    Err(_) => {
                        err += 1;
                        idle_q.push_back(i);
                        if err > 1_000_000 {
                            break;
                        }
                        continue;
                    }
                }
            }
            c.busy = true;
            c.in_body = false;
            c.head.clear();
            c.sent = true;
            if c.s.as_mut().unwrap().send(&req).is_err() {
                err += 1;
                ep.del(c.s.as_ref().unwrap().fd());
                c.s = None;
                c.busy = false;
                idle_q.push_back(i);
                continue;
            }
            let w = c.s.as_ref().unwrap().pending();
            if w != c.want_out {
                c.want_out = w;
                ep.modify(
                    c.s.as_ref().unwrap().fd(),
                    i as u64,
                    (libc::EPOLLIN | if w { libc::EPOLLOUT } else { 0 }) as u32,
                );
            }
        }
        let lim = if c0.is_none() { t_meas } else { t_end };
        let mut to = lim.saturating_duration_since(Instant::now());
        if rate > 0. && !idle_q.is_empty() {
            to = to.min(next.saturating_duration_since(Instant::now()));
        }
        let n = ep.wait(&mut evs, to.as_nanos() as i64 + 1000);
        for k in 0..n {
            let i = evs[k].u64 as usize;
            let c = &mut cs[i];
            let mut dead = false;
            let mut done = false;
            let Some(s) = c.s.as_mut() else { continue };
            if evs[k].events & libc::EPOLLOUT as u32 != 0 {
                dead |= s.flush().is_err();
            }
            loop {
                if dead {
                    break;
                }
                match s.read(&mut buf) {
                    Ok(0) => dead = true,
                    Ok(n) => {
                        bytes += n as u64;
                        let mut d = &buf[..n];
                        if c.busy && !c.in_body {
                            // fast case: whole head in this read
                            if c.head.is_empty() {
                                if let Some(e) = find_end(d) {
                                    if !d.starts_with(b"HTTP/1.1 200")
                                        && !d.starts_with(b"HTTP/1.0 200")
                                    {
                                        if err == 0 {
                                            eprintln!(
                                                "bad: {}",
                                                String::from_utf8_lossy(&d[..d.len().min(300)])
                                            );
                                        }
                                        err += 1;
                                    }
                                    c.left = clen(&d[..e]).unwrap_or_else(|| {
                                        err += 1;
                                        0
                                    });
                                    c.in_body = true;
                                    d = &d[e..];
                                }
                            }
                            if !c.in_body {
                                c.head.extend_from_slice(d);
                                d = &[];
                                if let Some(e) = find_end(&c.head) {
                                    if !c.head.starts_with(b"HTTP/1.1 200") {
                                        err += 1;
                                    }
                                    c.left = clen(&c.head[..e]).unwrap_or(0);
                                    let extra = c.head.len() - e;
                                    c.left -= (extra as u64).min(c.left);
                                    c.in_body = true;
                                }
                            }
                        }
                        if c.in_body {
                            let m = (d.len() as u64).min(c.left);
                            c.left -= m;
                            if c.left == 0 && c.busy {
                                done = true;
                            }
                        }
                        if s.tls.is_none() || done {
                            break;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        dead |= s.flush().is_err();
                        break;
                    }
                    Err(_) => dead = true,
                }
            }
            if done {
                hist.add(c.t0.elapsed().as_micros() as u64);
                ok += 1;
                c.busy = false;
                c.in_body = false;
                if fresh {
                    ep.del(s.fd());
                    unsafe {
                        let l = libc::linger { l_onoff: 1, l_linger: 0 };
                        libc::setsockopt(
                            s.fd(),
                            libc::SOL_SOCKET,
                            libc::SO_LINGER,
                            &l as *const _ as *const _,
                            8,
                        );
                    }
                    c.s = None;
                } else if dead {
                    ep.del(s.fd());
                    c.s = None;
                    if let Ok(ns) = mk() {
                        ep.add(ns.fd(), i as u64, libc::EPOLLIN as u32);
                        c.s = Some(ns);
                        c.want_out = false;
                    }
                }
                idle_q.push_back(i);
                continue;
            }
            if dead {
                if c.busy {
                    err += 1;
                    if err < 3 {
                        eprintln!("conn died mid-request")
                    }
                }
                ep.del(s.fd());
                c.s = None;
                let was = c.busy;
                c.busy = false;
                if was {
                    idle_q.push_back(i);
                }
                if err > 200_000 {
                    eprintln!("too many errors");
                    std::process::exit(2)
                }
                continue;
            }
            let w = s.pending();
            if w != c.want_out {
                c.want_out = w;
                let fd = s.fd();
                ep.modify(
                    fd,
                    i as u64,
                    (libc::EPOLLIN | if w { libc::EPOLLOUT } else { 0 }) as u32,
                );
            }
        }
    }
    let (p0, m0, w0) = c0.unwrap();
    let (p1, m1) = (cpu(&pids), cpu(&[me]));
    let el = w0.elapsed().as_secs_f64();
    let rss: u64 = pids
        .iter()
        .filter_map(|p| std::fs::read_to_string(format!("/proc/{p}/status")).ok())
        .filter_map(|s| {
            s.lines()
                .find(|l| l.starts_with("VmRSS"))
                .and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
        })
        .sum();
    let per = |x: u64| if ok > 0 { x as f64 / 1000. / ok as f64 } else { 0. };
    println!(
        "{{\"ok\":{ok},\"err\":{err},\"secs\":{el:.3},\"rps\":{:.1},\"mbps\":{:.1},\"p50\":{},\"p90\":{},\"p99\":{},\"p999\":{},\"max\":{},\"cpu_us\":{:.3},\"cpu_frac\":{:.3},\"usr_us\":{:.3},\"sys_us\":{:.3},\"csw\":{:.4},\"gen_us\":{:.3},\"rss_kib\":{rss}}}",
        ok as f64 / el,
        bytes as f64 / el / 1e6,
        hist.q(0.5),
        hist.q(0.9),
        hist.q(0.99),
        hist.q(0.999),
        hist.max,
        per(p1.run_ns - p0.run_ns),
        (p1.run_ns - p0.run_ns) as f64 / 1e9 / el,
        per((p1.utime - p0.utime) * 10_000_000),
        per((p1.stime - p0.stime) * 10_000_000),
        (p1.vol + p1.invol - p0.vol - p0.invol) as f64 / ok.max(1) as f64,
        per(m1.run_ns - m0.run_ns)
    );
    drop(rest);
}
