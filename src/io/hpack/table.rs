//! What an HPACK index stands for (RFC 7541 §2.3).

use std::collections::VecDeque;
use std::rc::Rc;

use super::Broken;
use super::rules::{self, Fault};

/// Bytes that an entry counts beyond its name and value (RFC 7541 §4.1).
pub(in crate::io) const OVERHEAD: usize = 32;

/// The size of the dynamic table that a peer may use: what holds as long as SETTINGS do not say another (RFC 9113 §6.5.2). Ours do not.
const MOST: usize = 4_096;

/// How many fields the static table has.
const FIXED: usize = 61;

/// The index of the only one that no request may have.
pub(in crate::io) const TRANSFER_ENCODING: u8 = 57;

/// The names of the static table (RFC 7541, appendix A), from index 1 on.
const NAMES: [&str; FIXED] = [
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

/// A name, and what is wrong with it whatever its value.
#[derive(Debug, Clone)]
pub(super) struct Name {
    text: Text,
    pub(super) fault: Option<Fault>,
}

#[derive(Debug, Clone)]
enum Text {
    Static(&'static str),
    /// Shared: it may be used again and again, by two bytes each time.
    Sent(Rc<[u8]>),
}

impl Name {
    pub(super) fn sent(text: &[u8], fault: Option<Fault>) -> Self {
        Self { text: Text::Sent(text.into()), fault }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.text {
            Text::Static(text) => text.as_bytes(),
            Text::Sent(text) => text,
        }
    }
}

/// A field of the dynamic table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) value: Box<[u8]>,
    /// What is wrong with the name, or with the value.
    pub(super) fault: Option<Fault>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.bytes().len() + self.value.len() + OVERHEAD
    }
}

/// What an index stands for.
#[derive(Debug)]
pub(super) enum Known<'a> {
    /// A field of the static table: its index, 1 to 61, and its name.
    Static(u8, &'static str),
    /// A field that was sent before.
    Sent(&'a Entry),
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

    /// The field that `index` stands for.
    pub(super) fn field(&self, index: usize) -> Result<Known<'_>, Broken> {
        let at = index.checked_sub(1).ok_or(Broken)?;
        match (NAMES.get(at), u8::try_from(index)) {
            (Some(name), Ok(index)) => Ok(Known::Static(index, name)),
            _ => self.entries.get(at - FIXED).map(Known::Sent).ok_or(Broken),
        }
    }

    /// The name that `index` stands for.
    pub(super) fn name(&self, index: usize) -> Result<Name, Broken> {
        Ok(match self.field(index)? {
            Known::Static(index, name) => Name {
                text: Text::Static(name),
                fault: (index == TRANSFER_ENCODING).then_some(rules::HOP),
            },
            Known::Sent(entry) => entry.name.clone(),
        })
    }

    /// Adds a field. The oldest make room for it, and one that is larger than the table empties it (RFC 7541 §4.4).
    pub(super) fn add(&mut self, entry: Entry) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: &str) -> Entry {
        Entry {
            name: Name::sent(name.as_bytes(), None),
            value: value.as_bytes().into(),
            fault: None,
        }
    }

    /// What an index stands for, as text.
    fn at(table: &Table, index: usize) -> Option<String> {
        Some(match table.field(index).ok()? {
            Known::Static(index, name) => format!("{index} {name}"),
            Known::Sent(entry) => {
                let value = str::from_utf8(&entry.value).unwrap();
                format!("{}={value}", str::from_utf8(entry.name.bytes()).unwrap())
            }
        })
    }

    #[test]
    fn the_newest_is_the_first_behind_the_static_table() {
        let mut table = Table::new();
        table.add(entry("a", "1"));
        table.add(entry("b", "2"));
        assert_eq!(at(&table, 62).unwrap(), "b=2");
        assert_eq!(at(&table, 63).unwrap(), "a=1");
        assert_eq!(at(&table, 1).unwrap(), "1 :authority");
        assert_eq!(at(&table, 61).unwrap(), "61 www-authenticate");
        assert_eq!(at(&table, 57).unwrap(), "57 transfer-encoding");
        assert!(table.name(57).unwrap().fault.is_some() && table.name(58).unwrap().fault.is_none());
        for index in [0, 64, usize::MAX] {
            assert_eq!(at(&table, index), None, "{index}");
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let mut table = Table::new();
        // 1 + 1 + 32 bytes each: 120 fit into 4 096.
        for _ in 0..200 {
            table.add(entry("a", "1"));
        }
        assert_eq!((table.entries.len(), table.size), (120, 4_080));
        table.add(entry("b", &"x".repeat(50)));
        assert_eq!((table.entries.len(), table.size), (119, 118 * 34 + 83));
        assert_eq!(table.resize(83), Ok(()));
        assert_eq!(at(&table, 62).unwrap(), format!("b={}", "x".repeat(50)));
        assert_eq!(at(&table, 63), None);
        table.add(entry("c", &"x".repeat(51)));
        assert_eq!((table.entries.len(), table.size), (0, 0));
        assert_eq!((table.resize(4_097), table.resize(4_096)), (Err(Broken), Ok(())));
    }
}
