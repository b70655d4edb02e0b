//! Shared pieces of the load generator and the upstream responder: epoll, a
//! plain-or-TLS stream, PEM loading without further crates, a histogram and
//! sampling of another process's CPU time.
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

pub struct Epoll(pub RawFd);
impl Epoll {
    pub fn new() -> Self {
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0);
        Epoll(fd)
    }
    pub fn add(&self, fd: RawFd, tok: u64, ev: u32) {
        let mut e = libc::epoll_event { events: ev, u64: tok };
        let r = unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, fd, &mut e) };
        assert!(r == 0, "epoll_ctl add: {}", io::Error::last_os_error());
    }
    pub fn modify(&self, fd: RawFd, tok: u64, ev: u32) {
        let mut e = libc::epoll_event { events: ev, u64: tok };
        unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_MOD, fd, &mut e) };
    }
    pub fn del(&self, fd: RawFd) {
        unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }
    /// `timeout_ns < 0` waits without limit.
    pub fn wait(&self, evs: &mut [libc::epoll_event], timeout_ns: i64) -> usize {
        let n = unsafe {
            if timeout_ns < 0 {
                libc::epoll_wait(self.0, evs.as_mut_ptr(), evs.len() as i32, -1)
            } else {
                let ts = libc::timespec {
                    tv_sec: timeout_ns / 1_000_000_000,
                    tv_nsec: timeout_ns % 1_000_000_000,
                };
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.0,
                    evs.as_mut_ptr(),
                    evs.len() as i32,
                    &ts as *const _,
                    std::ptr::null::<u8>(),
                    8usize,
                ) as i32
            }
        };
        if n < 0 { 0 } else { n as usize }
    }
}

pub struct Stream {
    pub tcp: TcpStream,
    pub tls: Option<Box<rustls::Connection>>,
    pub out: Vec<u8>,
    pub off: usize,
}
impl Stream {
    pub fn new(tcp: TcpStream, tls: Option<rustls::Connection>) -> Self {
        tcp.set_nonblocking(true).unwrap();
        let _ = tcp.set_nodelay(true);
        Stream { tcp, tls: tls.map(Box::new), out: Vec::new(), off: 0 }
    }
    pub fn fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
    /// Reads once what is there into `buf`; Ok(0) = end, WouldBlock = nothing.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => (&self.tcp).read(buf),
            Some(t) => loop {
                match t.reader().read(buf) {
                    Ok(n) => return Ok(n),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                    Err(e) => return Err(e),
                }
                let n = t.read_tls(&mut (&self.tcp))?;
                if n == 0 {
                    return Ok(0);
                }
                t.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::Other, e))?;
                while t.wants_write() {
                    match t.write_tls(&mut (&self.tcp)) {
                        Ok(_) => {}
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) => return Err(e),
                    }
                }
            },
        }
    }
    /// Queues `data` and writes what the socket takes.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => {
                if self.off == self.out.len() {
                    self.out.clear();
                    self.off = 0;
                    let mut d = data;
                    while !d.is_empty() {
                        match (&self.tcp).write(d) {
                            Ok(n) => d = &d[n..],
                            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                            Err(e) => return Err(e),
                        }
                    }
                    self.out.extend_from_slice(d);
                    Ok(())
                } else {
                    self.out.extend_from_slice(data);
                    self.flush()
                }
            }
            Some(_) => {
                self.out.extend_from_slice(data);
                self.flush()
            }
        }
    }
    pub fn pending(&self) -> bool {
        self.off < self.out.len() || self.tls.as_ref().map_or(false, |t| t.wants_write())
    }
    pub fn flush(&mut self) -> io::Result<()> {
        loop {
            match &mut self.tls {
                None => {
                    if self.off == self.out.len() {
                        self.out.clear();
                        self.off = 0;
                        return Ok(());
                    }
                    match (&self.tcp).write(&self.out[self.off..]) {
                        Ok(n) => self.off += n,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                        Err(e) => return Err(e),
                    }
                }
                Some(t) => {
                    if !t.is_handshaking() && self.off < self.out.len() {
                        let n = t.writer().write(&self.out[self.off..])?;
                        self.off += n;
                        if self.off == self.out.len() {
                            self.out.clear();
                            self.off = 0;
                        }
                    }
                    if !t.wants_write() {
                        return Ok(());
                    }
                    match t.write_tls(&mut (&self.tcp)) {
                        Ok(_) => {}
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                        Err(e) => return Err(e),
                    }
                }
            }
        }
    }
}

pub fn pem_blocks(path: &str) -> Vec<(String, Vec<u8>)> {
    let s = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut out = vec![];
    let (mut label, mut b64) = (None::<String>, String::new());
    for l in s.lines() {
        if let Some(r) = l.strip_prefix("-----BEGIN ") {
            label = Some(r.trim_end_matches('-').to_string());
            b64.clear();
        } else if l.starts_with("-----END ") {
            if let Some(n) = label.take() {
                out.push((n, unb64(&b64)));
            }
        } else if label.is_some() {
            b64.push_str(l.trim());
        }
    }
    out
}
fn unb64(s: &str) -> Vec<u8> {
    let (mut acc, mut bits, mut out) = (0u32, 0, vec![]);
    for c in s.bytes() {
        let v = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        acc = acc << 6 | v as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((acc >> bits) as u8);
        }
    }
    out
}
pub fn certs(path: &str) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    pem_blocks(path).into_iter().filter(|b| b.0 == "CERTIFICATE").map(|b| b.1.into()).collect()
}
pub fn key(path: &str) -> rustls::pki_types::PrivateKeyDer<'static> {
    let b = pem_blocks(path).into_iter().find(|b| b.0.contains("PRIVATE KEY")).unwrap();
    if b.0 == "EC PRIVATE KEY" {
        rustls::pki_types::PrivateSec1KeyDer::from(b.1).into()
    } else {
        rustls::pki_types::PrivatePkcs8KeyDer::from(b.1).into()
    }
}
pub fn roots(path: &str) -> Arc<rustls::RootCertStore> {
    let mut r = rustls::RootCertStore::empty();
    for c in certs(path) {
        r.add(c).unwrap();
    }
    Arc::new(r)
}

/// Microsecond histogram: exact to 65 ms, then by 1/64th of a power of two.
pub struct Hist {
    lo: Vec<u64>,
    hi: Vec<u64>,
    pub n: u64,
    pub max: u64,
    pub sum: u64,
}
impl Hist {
    pub fn new() -> Self {
        Hist { lo: vec![0; 65536], hi: vec![0; 64 * 64], n: 0, max: 0, sum: 0 }
    }
    pub fn add(&mut self, us: u64) {
        self.n += 1;
        self.sum += us;
        if us > self.max {
            self.max = us;
        }
        if us < 65536 {
            self.lo[us as usize] += 1
        } else {
            let p = 63 - us.leading_zeros() as usize;
            let f = ((us >> (p - 6)) & 63) as usize;
            self.hi[p * 64 + f] += 1;
        }
    }
    pub fn q(&self, q: f64) -> u64 {
        let t = ((self.n as f64) * q).ceil() as u64;
        let mut c = 0;
        for (i, v) in self.lo.iter().enumerate() {
            c += v;
            if c >= t {
                return i as u64;
            }
        }
        for (i, v) in self.hi.iter().enumerate() {
            c += v;
            if c >= t && *v > 0 {
                let (p, f) = (i / 64, i % 64);
                return (64 + f as u64) << (p - 6);
            }
        }
        self.max
    }
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    pub run_ns: u64,
    pub utime: u64,
    pub stime: u64,
    pub vol: u64,
    pub invol: u64,
}
/// CPU time of a process (all its threads): schedstat in ns, stat in ticks.
pub fn cpu(pids: &[u32]) -> Cpu {
    let mut c = Cpu::default();
    for p in pids {
        if let Ok(d) = std::fs::read_dir(format!("/proc/{p}/task")) {
            for t in d.flatten() {
                if let Ok(s) = std::fs::read_to_string(t.path().join("schedstat")) {
                    c.run_ns +=
                        s.split(' ').next().and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
                }
                if let Ok(s) = std::fs::read_to_string(t.path().join("status")) {
                    for l in s.lines() {
                        let v = || {
                            l.split_whitespace()
                                .nth(1)
                                .and_then(|x| x.parse::<u64>().ok())
                                .unwrap_or(0)
                        };
                        if l.starts_with("voluntary_ctxt") {
                            c.vol += v()
                        } else if l.starts_with("nonvoluntary_ctxt") {
                            c.invol += v()
                        }
                    }
                }
            }
        }
        if let Ok(s) = std::fs::read_to_string(format!("/proc/{p}/stat")) {
            if let Some(i) = s.rfind(')') {
                let f: Vec<&str> = s[i + 2..].split(' ').collect();
                c.utime += f[11].parse::<u64>().unwrap_or(0);
                c.stime += f[12].parse::<u64>().unwrap_or(0);
            }
        }
    }
    c
}
pub fn args() -> std::collections::HashMap<String, String> {
    let mut m = std::collections::HashMap::new();
    let mut it = std::env::args().skip(1).peekable();
    while let Some(a) = it.next() {
        let k = a.trim_start_matches("--").to_string();
        let v = match it.peek() {
            Some(n) if !n.starts_with("--") => it.next().unwrap(),
            _ => "1".into(),
        };
        m.insert(k, v);
    }
    m
}
