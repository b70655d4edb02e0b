//! What an HPACK index stands for (RFC 7541 §2.3).

use std::collections::VecDeque;

use super::Broken;

/// Bytes that an entry counts beyond its name and value (RFC 7541 §4.1).
pub(in crate::io) const OVERHEAD: usize = 32;

/// The size of the dynamic table that a peer may use: what holds as long as SETTINGS do not say another (RFC 9113 §6.5.2). Ours do not.
const MOST: usize = 4_096;

/// The names of the static table (RFC 7541, appendix A), from index 1 on.
const NAMES: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

/// A field of the dynamic table: its name, and its value behind it.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

/// Both tables of a connection.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first, as they are numbered.
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: MOST }
    }

    /// The field that `index` stands for; of the static table, the index only.
    pub(super) fn field(&self, index: usize) -> Result<Known<'_>, Broken> {
        if let Ok(fixed @ 1..=61) = u8::try_from(index) {
            return Ok(Known::Static(fixed));
        }
        let entry = self.entry(index)?;
        let (name, value) = entry.text.split_at(entry.name);
        Ok(Known::Dynamic(name, value))
    }

    /// The name that `index` stands for.
    pub(super) fn name(&self, index: usize) -> Result<&[u8], Broken> {
        match index.checked_sub(1).and_then(|at| NAMES.get(at)) {
            Some(name) => Ok(name.as_bytes()),
            None => self.entry(index).map(|entry| &entry.text[..entry.name]),
        }
    }

    fn entry(&self, index: usize) -> Result<&Entry, Broken> {
        index.checked_sub(NAMES.len() + 1).and_then(|at| self.entries.get(at)).ok_or(Broken)
    }

    /// Adds a field, its value behind the `name` bytes of its name. The oldest make room for it, and one that is larger than the table
    /// empties it (RFC 7541 §4.4).
    pub(super) fn add(&mut self, text: Box<[u8]>, name: usize) {
        let entry = Entry { text, name };
        self.keep(self.most.saturating_sub(entry.size()));
        if entry.size() <= self.most {
            self.size += entry.size();
            self.entries.push_front(entry);
        }
    }

    /// Takes the size that the peer wants to use from now on.
    pub(super) fn resize(&mut self, most: usize) -> Result<(), Broken> {
        if most > MOST {
            return Err(Broken);
        }
        self.most = most;
        self.keep(most);
        Ok(())
    }

    /// Lets the oldest go until what is left is at most `size`.
    fn keep(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

/// What an index stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// A field of the static table: its index, 1 to 61.
    Static(u8),
    /// A field that was sent before: name and value.
    Dynamic(&'a [u8], &'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_the_first_behind_the_static_table() {
        let mut table = Table::new();
        table.add((*b"a1").into(), 1);
        table.add((*b"b2").into(), 1);
        assert_eq!(table.field(62), Ok(Known::Dynamic(b"b", b"2")));
        assert_eq!(table.field(63), Ok(Known::Dynamic(b"a", b"1")));
        assert_eq!(table.name(63), Ok(&b"a"[..]));
        assert_eq!(table.field(57), Ok(Known::Static(57)));
        assert_eq!(table.name(57), Ok(&b"transfer-encoding"[..]));
        for index in [0, 64, usize::MAX] {
            assert_eq!(table.field(index), Err(Broken), "{index}");
            assert_eq!(table.name(index), Err(Broken), "{index}");
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let mut table = Table::new();
        // 1 + 1 + 32 bytes each: 120 fit into 4 096.
        for _ in 0..200 {
            table.add((*b"a1").into(), 1);
        }
        assert_eq!((table.entries.len(), table.size), (120, 4_080));
        table.add([b'x'; 51].into(), 1);
        assert_eq!((table.entries.len(), table.size), (119, 118 * 34 + 83));
        assert_eq!(table.resize(83), Ok(()));
        assert_eq!(table.field(62), Ok(Known::Dynamic(b"x", &[b'x'; 50])));
        assert_eq!(table.field(63), Err(Broken));
        table.add([b'x'; 52].into(), 1);
        assert_eq!((table.entries.len(), table.size), (0, 0));
        assert_eq!((table.resize(4_097), table.resize(4_096)), (Err(Broken), Ok(())));
    }
}
