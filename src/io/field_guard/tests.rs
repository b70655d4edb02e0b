use std::collections::VecDeque;

use super::hostile::{LIMIT, PREFACE, SETTINGS, Served, served};
use super::*;
use crate::base::rng::Rng;
use crate::io::frames::{CONTINUATION, HEADERS};
use crate::io::hpack::huffman::tests::encode;

type Field = (Vec<u8>, Vec<u8>);

fn field(name: &str, value: &str) -> Field {
    (name.into(), value.into())
}

/// A client that picks among all that HPACK and HTTP/2 allow, by chance.
struct Client {
    rng: Rng,
    table: VecDeque<Field>,
    room: usize,
    next: u32,
    sent: Vec<u8>,
}

impl Client {
    fn new(seed: u64) -> Self {
        let sent = [PREFACE, SETTINGS].concat();
        Self { rng: Rng::from_seed(seed), table: VecDeque::new(), room: 4_096, next: 1, sent }
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.rng.below(many) == 0
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.sent.extend(FrameHead { length: payload.len(), kind, flags, stream }.bytes());
        self.sent.extend(payload);
    }

    fn integer(prefix: u32, first: u8, mut rest: usize, block: &mut Vec<u8>) {
        let most = (1 << prefix) - 1;
        if rest < most {
            return block.push(first | u8::try_from(rest).unwrap());
        }
        block.push(first | u8::try_from(most).unwrap());
        rest -= most;
        while rest >= 128 {
            block.push(128 + u8::try_from(rest % 128).unwrap());
            rest /= 128;
        }
        block.push(rest.try_into().unwrap());
    }

    fn string(&mut self, text: &[u8], block: &mut Vec<u8>) {
        let is_coded = self.one_in(2);
        let bytes = if is_coded { encode(text) } else { text.to_vec() };
        Self::integer(7, if is_coded { 0x80 } else { 0 }, bytes.len(), block);
        block.extend(bytes);
    }

    fn make_room(&mut self, room: usize) {
        let size = |entries: &VecDeque<Field>| -> usize {
            entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
        };
        while size(&self.table) > room {
            self.table.pop_back();
        }
    }

    fn block(&mut self, fields: &[Field]) -> Vec<u8> {
        let mut block = Vec::new();
        if self.one_in(5) {
            self.room = [0, 100, 500, 4_096][self.rng.below(4)];
            Self::integer(5, 0x20, self.room, &mut block);
            self.make_room(self.room);
        }
        for field in fields {
            let fixed = [(":method", "GET", 2), (":path", "/", 4), (":scheme", "http", 6)];
            let again = self.table.iter().position(|known| known == field).map(|at| 62 + at);
            let again = again.or_else(|| {
                fixed.iter().find(|known| *field == self::field(known.0, known.1)).map(|it| it.2)
            });
            if let Some(index) = again
                && !self.one_in(4)
            {
                Self::integer(7, 0x80, index, &mut block);
                continue;
            }
            let named = self.table.iter().position(|known| known.0 == field.0).map(|at| 62 + at);
            let named = named.or_else(|| {
                fixed.iter().find(|known| field.0 == known.0.as_bytes()).map(|it| it.2)
            });
            let named = named.filter(|_| self.rng.below(3) > 0);
            let (prefix, first) = [(6, 0x40), (6, 0x40), (4, 0), (4, 0x10)][self.rng.below(4)];
            Self::integer(prefix, first, named.unwrap_or(0), &mut block);
            if named.is_none() {
                self.string(&field.0, &mut block);
            }
            self.string(&field.1, &mut block);
            if prefix == 6 {
                let size = field.0.len() + field.1.len() + 32;
                self.make_room(self.room.saturating_sub(size));
                if size <= self.room {
                    self.table.push_front(field.clone());
                }
            }
        }
        block
    }

    /// Sends a request without a body, and says on which stream.
    fn request(&mut self, fields: &[Field]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let block = self.block(fields);
        let mut cuts = vec![0, block.len()];
        // The h2 crate takes five CONTINUATIONs that do not end a head.
        while cuts.len() < 5 && self.one_in(3) {
            cuts.push(self.rng.below(block.len() + 1));
        }
        // With padding and a priority in it, a frame is to be one that may be sent.
        cuts.extend((1..block.len() / 16_000 + 1).map(|frame| frame * 16_000));
        cuts.sort_unstable();
        for (number, cut) in cuts.windows(2).enumerate() {
            let (mut flags, mut payload) = (0, block[cut[0]..cut[1]].to_vec());
            if number == 0 {
                flags |= 0x1;
                if self.one_in(4) {
                    flags |= 0x20;
                    payload.splice(..0, [0, 0, 0, 0, 7]);
                }
                if self.one_in(4) {
                    flags |= 0x8;
                    payload.splice(..0, [3]);
                    payload.extend([0; 3]);
                }
            }
            if number + 2 == cuts.len() {
                flags |= 0x4;
            }
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            self.frame(kind, flags, stream, &payload);
        }
        stream
    }

    /// What it has sent, cut by chance.
    fn pieces(&mut self) -> VecDeque<Vec<u8>> {
        let mut rest = &self.sent[..];
        let mut pieces = VecDeque::new();
        let most = [1, 20, 1_000, 100_000][self.rng.below(4)];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at((1 + self.rng.below(most)).min(rest.len()));
            pieces.push_back(piece.to_vec());
            rest = more;
        }
        pieces
    }
}

/// Fields that no request may have.
fn malformed(rng: &mut Rng) -> Field {
    let fields: [(&[u8], &[u8]); 17] = [
        (b":path", b"/again"),
        (b":authority", b"again.example"),
        (b":method", b"GET"),
        (b"X-Upper", b"1"),
        (b"x y", b""),
        (b"", b""),
        (b"", b"1"),
        (b"\0", b""),
        (b":x", b"1"),
        (b":status", b"200"),
        (b"x-1", b"1\r\nx: 2"),
        (b"x-2", b"\0"),
        (b"x-long", &[1; 2_000]),
        (b"te", b"gzip"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"\xc3\xa4", b"1"),
    ];
    let (name, value) = fields[rng.below(fields.len())];
    (name.to_vec(), value.to_vec())
}

/// The fields of a request: its own path, and some that come again and again.
fn well_formed(rng: &mut Rng, number: u32) -> Vec<Field> {
    let path = if rng.below(3) == 0 { "/".to_owned() } else { format!("/{number}") };
    let mut fields = vec![
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "a.example"),
        field(":path", &path),
    ];
    for _ in 0..rng.below(6) {
        let name = format!("x-{}", rng.below(4));
        let kinds = if rng.below(10) == 0 { 6 } else { 4 };
        let length = [0, 1, 1, 20, 1_500, 18_000][rng.below(kinds)];
        fields.push(field(&name, &"v".repeat(length)));
    }
    fields
}

/// What the h2 crate says of a request.
fn text(fields: &[Field]) -> String {
    let of = |wanted: &str| {
        let (_, value) = fields.iter().find(|(name, _)| name == wanted.as_bytes()).unwrap();
        str::from_utf8(value).unwrap().to_owned()
    };
    let mut headers = http::HeaderMap::new();
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = http::HeaderName::from_bytes(name).unwrap();
        headers.append(name, http::HeaderValue::from_bytes(value).unwrap());
    }
    let headers: Vec<_> = headers.iter().collect();
    format!("GET http://{}{} {headers:?}", of(":authority"), of(":path"))
}

#[test]
fn a_malformed_request_is_reset_and_every_other_arrives_as_it_was_sent() {
    for seed in 0..300 {
        let (mut client, mut expected) = (Client::new(seed), Served::default());
        for number in 0..12 {
            let mut fields = well_formed(&mut client.rng, number);
            if client.one_in(3) {
                let at = 4 + client.rng.below(fields.len() - 3);
                fields.insert(at, malformed(&mut client.rng));
                if client.one_in(5) {
                    fields[0].1 = b"G T".to_vec();
                }
                expected.resets.push((client.request(&fields), 1));
                expected.faults += 1;
            } else {
                expected.requests.push((client.request(&fields), text(&fields)));
            }
            if client.one_in(4) {
                client.frame(6, 0, 0, &[1; 8]);
            }
        }
        assert_eq!(served(client.pieces(), true), expected, "{seed}");
    }
}

/// What passes of `bytes` that come in pieces of `size`.
fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut guard = FieldGuard::new(LIMIT);
    let mut passed = Vec::new();
    let mut buf = [0; 1_000];
    let mut given = |guard: &mut FieldGuard, passed: &mut Vec<u8>| {
        let mut buf = ReadBuf::new(&mut buf);
        while guard.give(&mut buf) {
            passed.extend(buf.filled());
            buf.clear();
        }
    };
    for piece in bytes.chunks(size) {
        if guard.holds() {
            guard.take(piece);
        } else {
            passed.extend(&piece[..guard.look_at(piece)]);
        }
        given(&mut guard, &mut passed);
        while guard.go_on() {
            // A block at a time, however many are here.
            assert!(guard.ready.len() < LIMIT + 3 * block::FRAME);
            given(&mut guard, &mut passed);
        }
    }
    passed.extend(&guard.held);
    passed
}

#[test]
fn what_is_well_formed_passes_byte_for_byte() {
    let mut client = Client::new(1);
    for number in 0..40 {
        let fields = well_formed(&mut client.rng, number);
        let block = client.block(&fields[..4]);
        client.frame(HEADERS, 0x4, 1 + 2 * number, &block);
        client.frame(0, 0x1, 1 + 2 * number, &[0; 300]);
    }
    for size in [1, 2, 9, 10, 100, 1_000, 100_000] {
        assert_eq!(passed(&client.sent, size), client.sent, "pieces of {size}");
    }
}

#[test]
fn any_bytes_become_the_same_in_any_pieces() {
    let mut rng = Rng::from_seed(7);
    for seed in 0..1_000 {
        let mut client = Client::new(seed);
        for number in 0..4 {
            let mut fields = well_formed(&mut client.rng, number);
            fields.truncate(6);
            if client.one_in(4) {
                fields.push(malformed(&mut client.rng));
            }
            client.request(&fields);
        }
        let mut sent = client.sent;
        for _ in 0..rng.below(4) {
            let at = rng.below(sent.len());
            sent[at] = rng.bits().to_le_bytes()[0];
        }
        let size = 1 + rng.below(50);
        assert_eq!(passed(&sent, size), passed(&sent, sent.len()), "{seed}, {size}");
        let mut bytes = vec![u8::try_from(size).unwrap()];
        bytes.extend(&sent[PREFACE.len() + SETTINGS.len()..]);
        hostile::fields(&bytes);
    }
}

#[test]
fn a_block_without_an_end_is_not_held_for_ever() {
    let mut client = Client::new(1);
    client.frame(HEADERS, 0, 1, &[]);
    let mut guard = FieldGuard::new(LIMIT);
    guard.look_at(&client.sent);
    let mut held = Vec::new();
    for _ in 0..20 {
        client.sent.clear();
        client.frame(CONTINUATION, 0, 1, &[0x82; 8_000]);
        guard.take(&client.sent);
        guard.go_on();
        held.push(guard.held.len());
    }
    assert!(held.iter().all(|held| *held <= LIMIT + block::FRAME), "{held:?}");
    assert!(held.ends_with(&[0]) && guard.held.capacity() == 0);
    // The h2 crate sees all of it.
    assert_eq!(guard.ready.len(), SETTINGS.len() + 9 + 20 * 8_009 - 9);
}

#[test]
fn a_stream_that_depends_on_itself_is_reset_and_its_fields_are_known_afterwards() {
    let mut client = Client::new(1);
    let get: [&[u8]; 3] =
        [b"\x82\x86\x84\x41\x01a\x40\x01x\x011", b"\x82\x86\x84\xbf\xbe", b"\x82\x86\x84\xbf\xbe"];
    let itself = [&[0x80, 0, 0, 1, 7], get[0]].concat();
    client.frame(HEADERS, 0x25, 1, &itself);
    client.frame(HEADERS, 0x5, 3, get[1]);
    client.frame(HEADERS, 0x25, 5, &[&[0, 0, 0, 1, 7], get[2]].concat());
    let served = served([client.sent].into(), true);
    assert_eq!((served.resets, served.ended), (vec![(1, 1)], None));
    let request = "GET http://a/ [(\"x\", \"1\")]".to_owned();
    assert_eq!(served.requests, [(3, request.clone()), (5, request)]);
}

/// A block that takes little and unpacks to `fields` times 4 000 bytes, whose first request has filled the table.
fn swollen(client: &mut Client, fields: usize) -> Vec<u8> {
    let mut first = b"\x82\x86\x84\x41\x01a\x40\x01x".to_vec();
    Client::integer(7, 0, 4_000, &mut first);
    first.resize(first.len() + 4_000, b'y');
    client.frame(HEADERS, 0x5, 3, &first);
    let mut block = b"\x82\x86\x84\x01\x01a".to_vec();
    block.resize(block.len() + fields, 0xbe);
    block
}

#[test]
fn what_is_spelled_out_does_not_grow_without_bounds() {
    let mut client = Client::new(1);
    client.request(&[field("X", "1")]);
    let (small, large) = (swollen(&mut client, 16), vec![0xbe; block::FRAME - 100]);
    for stream in 0..200 {
        client.frame(HEADERS, 0x5, 5 + 2 * stream, &small);
    }
    let too_large = [&small[..6], &large].concat();
    client.frame(HEADERS, 0x5, 1_001, &too_large);
    client.frame(HEADERS, 0x5, 1_003, &small[..6]);
    // What is ready at once is bounded there.
    let all = passed(&client.sent, client.sent.len());
    assert!(all.len() > 200 * 64_000, "{}", all.len());
    let served = served([client.sent].into(), true);
    assert_eq!((served.ended, &served.resets[..]), (None, &[(1, 1)][..]));
    // The large one was answered by the h2 crate: 431.
    let streams: Vec<u32> = served.requests.iter().map(|(stream, _)| *stream).collect();
    let expected: Vec<u32> = (0..=200).map(|number| 3 + 2 * number).chain([1_003]).collect();
    assert_eq!(streams, expected);
}

#[test]
fn what_is_malformed_in_a_head_that_is_spelled_out_over_frames_is_reset() {
    let twice: [&[u8]; 3] =
        [b"\x82\x86\x84\x01\x01a\x01\x01b", b"\x82\x86\x84\x84", b"\xb9\x82\x86\x84"];
    for begin in twice {
        let mut client = Client::new(1);
        client.request(&[field("X", "1")]);
        let mut block = begin.to_vec();
        block.extend(b"\x00\x01x");
        let coded = encode(&[b'a'; 20_000]);
        Client::integer(7, 0x80, coded.len(), &mut block);
        block.extend(coded);
        client.frame(HEADERS, 0x5, 3, &block);
        let served = served([client.sent].into(), true);
        assert_eq!((served.ended, served.resets), (None, vec![(1, 1), (3, 1)]));
        assert_eq!(served.requests, []);
    }
}

#[test]
fn a_promise_and_what_cannot_be_unpacked_end_the_connection() {
    let itself = [&[0, 0, 0, 1, 7][..], b"\x40\x03x-a\x011\x80"].concat();
    let promise = [&[0, 0, 0, 2][..], b"\x40\x03x-a\x011\x40\x02te\x04gzip"].concat();
    let cases: [(u8, u8, &[u8]); 4] = [
        (HEADERS, 0x5, b"\x80"),
        (HEADERS, 0x5, b"\x82\x86\x84\x00"),
        (HEADERS, 0x25, &itself),
        (frames::PUSH_PROMISE, 0x4, &promise),
    ];
    for (kind, flags, block) in cases {
        for malformed_before in [false, true] {
            let mut client = Client::new(1);
            if malformed_before {
                client.request(&[field("X", "1")]);
            }
            client.frame(kind, flags, 3, block);
            client.frame(HEADERS, 0x5, 5, b"\x82\x86\x84\x41\x01a");
            let served = served([client.sent].into(), true);
            // PROTOCOL_ERROR.
            assert_eq!((served.ended, served.requests.len()), (Some(1), 0), "{block:?}");
        }
    }
}

#[test]
fn what_breaks_off_a_block_ends_the_connection() {
    let get = b"\x82\x86\x84\x41\x01a";
    let padded = [&[200, 0, 0, 0, 1, 7][..], get].concat();
    let itself = [&[0, 0, 0, 1, 7][..], get].concat();
    let cases: [(u8, &[u8]); 3] =
        [(0x1, b"\x82\x86\x84\x41\x01a\x84"), (0x2d, &padded), (0x21, &itself)];
    for (flags, payload) in cases {
        let mut client = Client::new(1);
        client.frame(HEADERS, flags, 1, payload);
        client.frame(6, 0, 0, &[1; 8]);
        client.frame(HEADERS, 0x5, 3, get);
        let served = served([client.sent].into(), true);
        assert_eq!((served.ended, served.requests), (Some(1), vec![]), "{payload:?}");
    }
}

#[test]
fn a_head_on_a_stream_that_is_past_is_left_to_the_h2_crate() {
    let get = b"\x82\x86\x84\x01\x01a";
    for stream in [1, 2, 3] {
        let mut client = Client::new(1);
        client.frame(HEADERS, 0x5, 3, get);
        client.frame(HEADERS, 0x5, stream, get);
        let [bare, guarded] =
            [false, true].map(|guarded| served([client.sent.clone()].into(), guarded));
        assert_eq!(guarded, bare, "{stream}");
        assert!(guarded.ended.is_some());
    }
}
