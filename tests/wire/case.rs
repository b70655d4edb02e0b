//! How a case is written.
//!
//! ```text
//! == name of the case
//! -> bytes from the caller to the proxy
//! => bytes that the upstream must receive
//! <= bytes that the upstream answers (default: 200 with `ok` and `Connection: close`)
//! <- bytes that the caller must receive (default: what comes of the default answer)
//! ```
//!
//! A line ends in CRLF; a line that ends in `\` does not. `\r \n \t \0 \\ \xHH` are bytes, `{text*N}` is N times the
//! text, `[ours]` stands for the two lines that every forwarded request gets. Header lines may come in any order.
//!
//! Besides these lines:
//!
//! - `on NAME`: the listener (default `out`).
//! - `refused STATUS REASON`: our own answer, closed connection, counted; the upstream gets nothing (unless `=>` says
//!   so).
//! - `failed STATUS REASON`: our own answer, counted; the connection lives.
//! - `cut REASON`: the answer breaks off after `<-`, the connection is reset; counted.
//! - `nothing`: the upstream gets nothing.
//! - `closed`: the connection is closed after the answer (default: the next request on it is answered).
//! - `gone`: the caller has left; nothing is answered, the connection is closed.
//! - `counted REASON`: `outrigger_rejected_total` grows by one for the reason.
//! - `left-out REASON`: `outrigger_dropped_total` grows by one for the reason.
//! - `broken`: the upstream sees the request break off; `=>` is what it may have got of it.
//! - `caller closes`: the caller sends FIN after its bytes.
//! - `upstream resets | keeps | early | silent | aborts`: RST after the answer; the connection stays open; the answer
//!   follows the head at once; FIN, RST without an answer.

/// Who closes what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The next request on the connection is answered.
    Open,
    /// FIN.
    Closed,
    /// RST.
    Reset,
}

/// What the upstream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upstream {
    Closes,
    Resets,
    Keeps,
    Early,
    Silent,
    Aborts,
    Holds,
}

/// What the caller must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Bytes(Vec<u8>),
    /// An answer of ours: status, reason.
    Ours(u16, String),
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) listener: String,
    pub(crate) sent: Vec<u8>,
    /// `None`: not looked at.
    pub(crate) upstream_gets: Option<Vec<u8>>,
    pub(crate) broken: bool,
    pub(crate) upstream_answers: Vec<u8>,
    pub(crate) upstream: Upstream,
    pub(crate) expected: Expected,
    pub(crate) end: End,
    pub(crate) caller_closes: bool,
    pub(crate) rejected: Vec<String>,
    pub(crate) left_out: Option<String>,
}

const REQUEST: &str = "-> GET / HTTP/1.1\n-> Host: a\n->";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const FORWARDED_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The cases of a file.
pub(crate) fn parse(file: &str, text: &str) -> Vec<Case> {
    let (_, cases) = text.split_once("\n== ").unwrap_or_else(|| panic!("{file}: no case"));
    cases.split("\n== ").map(|block| case(file, block)).collect()
}

fn case(file: &str, block: &str) -> Case {
    let (name, lines) = block.split_once('\n').unwrap_or((block, ""));
    let mut case = Case {
        name: name.trim().to_owned(),
        listener: "out".to_owned(),
        sent: Vec::new(),
        upstream_gets: None,
        broken: false,
        upstream_answers: Vec::new(),
        upstream: Upstream::Closes,
        expected: Expected::Bytes(Vec::new()),
        end: End::Open,
        caller_closes: false,
        rejected: Vec::new(),
        left_out: None,
    };
    let mut bytes = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "->" => push_line(&mut case.sent, rest),
            "=>" => push_line(case.upstream_gets.get_or_insert_default(), rest),
            "<=" => push_line(&mut case.upstream_answers, rest),
            "<-" => push_line(&mut bytes, rest),
            _ => case.directive(word, rest).unwrap_or_else(|| panic!("{file}: {name}: {line:?}")),
        }
    }
    case.complete(bytes);
    case
}

impl Case {
    fn directive(&mut self, word: &str, rest: &str) -> Option<()> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (word, &words[..]) {
            ("on", [listener]) => self.listener = (*listener).to_owned(),
            ("refused" | "failed", [status, reason]) => {
                self.expected = Expected::Ours(status.parse().ok()?, (*reason).to_owned());
                self.rejected.push((*reason).to_owned());
                if word == "refused" {
                    self.end = End::Closed;
                    self.upstream_gets.get_or_insert_default();
                }
            }
            ("cut", [reason]) => {
                self.end = End::Reset;
                self.rejected.push((*reason).to_owned());
            }
            ("nothing", []) => self.upstream_gets = Some(Vec::new()),
            ("closed", []) => self.end = End::Closed,
            ("gone", []) => {
                self.end = End::Closed;
                self.upstream = Upstream::Holds;
            }
            ("counted", [reason]) => self.rejected.push((*reason).to_owned()),
            ("left-out", [reason]) => self.left_out = Some((*reason).to_owned()),
            ("broken", []) => self.broken = true,
            ("caller", ["closes"]) => self.caller_closes = true,
            ("upstream", ["resets"]) => self.upstream = Upstream::Resets,
            ("upstream", ["keeps"]) => self.upstream = Upstream::Keeps,
            ("upstream", ["early"]) => self.upstream = Upstream::Early,
            ("upstream", ["aborts"]) => self.upstream = Upstream::Aborts,
            ("upstream", ["silent"]) => self.upstream = Upstream::Silent,
            _ => return None,
        }
        Some(())
    }

    fn complete(&mut self, expected: Vec<u8>) {
        if self.sent.is_empty() {
            for line in REQUEST.lines() {
                push_line(&mut self.sent, line.strip_prefix("->").unwrap().trim_start());
            }
        }
        let unanswered = self.upstream_gets.as_ref().is_some_and(Vec::is_empty);
        if self.upstream_answers.is_empty()
            && !matches!(self.upstream, Upstream::Silent | Upstream::Aborts | Upstream::Holds)
            && !unanswered
        {
            self.upstream_answers = ANSWER.to_vec();
            if expected.is_empty() && self.expected == Expected::Bytes(Vec::new()) {
                self.expected = Expected::Bytes(FORWARDED_ANSWER.to_vec());
            }
        }
        if !expected.is_empty() {
            self.expected = Expected::Bytes(expected);
        }
    }
}

fn push_line(to: &mut Vec<u8>, line: &str) {
    if line == "[ours]" {
        to.extend_from_slice(b"via: 1.1 outrigger (*)\r\nx-request-id: *\r\n");
        return;
    }
    let (line, open) = match line.strip_suffix('\\') {
        Some(line) if !line.ends_with('\\') => (line, true),
        _ => (line, false),
    };
    to.extend(unescape(line));
    if !open {
        to.extend_from_slice(b"\r\n");
    }
}

fn unescape(text: &str) -> Vec<u8> {
    if let Some((before, rest)) = text.split_once('{')
        && let Some((inner, after)) = rest.split_once('}')
        && let Some((piece, times)) = inner.rsplit_once('*')
        && let Ok(times) = times.parse()
    {
        return [unescape(before), unescape(piece).repeat(times), unescape(after)].concat();
    }
    let mut bytes = Vec::new();
    let mut chars = text.bytes();
    while let Some(byte) = chars.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match chars.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [chars.next().unwrap(), chars.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("unknown escape {other:?} in {text:?}"),
        });
    }
    bytes
}

/// One form of a message for comparison: header lines sorted by name, our own varying values as `*`.
pub(crate) fn normal(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    // A body that looks like a head is sorted too, on both sides alike.
    while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
        let (head, after) = rest.split_at(end);
        let head = text(head);
        let mut lines: Vec<String> = head.split("\r\n").map(starred).collect();
        lines[1..].sort_by_key(|line| line.split(':').next().map(str::to_owned));
        out.push_str(&lines.join("\r\n"));
        out.push_str("\r\n\r\n");
        rest = &after[4..];
    }
    out + &text(rest)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn starred(line: &str) -> String {
    let hex = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match line.split_once(": ") {
        Some(("x-request-id", id)) if hex(id) => "x-request-id: *".to_owned(),
        Some(("via", via)) if via.starts_with("1.1 outrigger (") => {
            "via: 1.1 outrigger (*)".to_owned()
        }
        Some(("date", _)) => "date: *".to_owned(),
        _ => line.to_owned(),
    }
}
