//! The fields of an HPACK block (RFC 7541) as they were sent, and what is wrong with each.
//!
//! The h2 crate unpacks what is served; this reader is for what that crate cannot be asked (`io/field_guard.rs`). It knows the same
//! table. A name and a value are looked at once, when they come: an index costs the same whatever it stands for.

pub(super) mod huffman;
mod rules;
mod table;

pub(super) use rules::{Fault, Order};
use table::{Entry, Known, Name, Table};
pub(super) use table::{OVERHEAD, TRANSFER_ENCODING};

/// A block that cannot be unpacked: an error of the connection (RFC 9113 §4.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Buffers that are larger than this do not stay with the connection.
const KEPT: usize = 1_024;

/// A field of a block.
#[derive(Debug)]
pub(super) struct Field<'a> {
    /// Where it is one of the static table, its index; its value is left out then.
    pub(super) index: Option<u8>,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// What is wrong with it, wherever it stands.
    pub(super) fault: Option<Fault>,
}

/// Reads the blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub(super) struct Reader {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self { table: Table::new(), name: Vec::new(), value: Vec::new() }
    }

    /// Shows each field of `block` to `see`.
    ///
    /// # Errors
    ///
    /// A block that cannot be unpacked. The reader is of no use after it.
    pub(super) fn read(
        &mut self,
        mut block: &[u8],
        mut see: impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let mut at_the_beginning = true;
        while let Some(first) = block.first() {
            match first {
                0x80.. => see(match self.table.field(integer(&mut block, 7)?)? {
                    Known::Static(index, name) => Field {
                        index: Some(index),
                        name: name.as_bytes(),
                        value: b"",
                        fault: (index == TRANSFER_ENCODING).then_some(rules::HOP),
                    },
                    Known::Sent(Entry { name, value, fault }) => {
                        Field { index: None, name: name.bytes(), value, fault: *fault }
                    }
                }),
                0x40.. => self.literal(&mut block, 6, &mut see)?,
                0x20.. if at_the_beginning => {
                    self.table.resize(integer(&mut block, 5)?)?;
                    continue;
                }
                0x20.. => return Err(Broken),
                _ => self.literal(&mut block, 4, &mut see)?,
            }
            at_the_beginning = false;
        }
        for buffer in [&mut self.name, &mut self.value] {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
        Ok(())
    }

    /// One that is spelled out, its name possibly by an index (RFC 7541 §6.2). With a prefix of six bits it enters the table.
    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        see: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let known = match integer(block, prefix)? {
            0 => None,
            index => Some(self.table.name(index)?),
        };
        let (name, name_fault) = match &known {
            Some(known) => (known.bytes(), known.fault),
            None => {
                let name = string(block, &mut self.name)?;
                (name, rules::of_name(name))
            }
        };
        let value = string(block, &mut self.value)?;
        let fault = name_fault.or_else(|| rules::of_value(name, value));
        see(Field { index: None, name, value, fault });
        if prefix == 6 {
            let name = match known {
                None => Name::sent(name, name_fault),
                Some(known) => known,
            };
            self.table.add(Entry { name, value: value.into(), fault });
        }
        Ok(())
    }
}

/// Takes an integer whose first byte has `prefix` bits of it (RFC 7541 §5.1), of five bytes at most.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let mask = 0xff_u8 >> (8 - prefix);
    let mut sum = usize::from(byte(block)? & mask);
    if sum < usize::from(mask) {
        return Ok(sum);
    }
    for shift in [0, 7, 14, 21] {
        let next = byte(block)?;
        sum += usize::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(sum);
        }
    }
    Err(Broken)
}

/// Takes a string (RFC 7541 §5.2); `buffer` has what was under the Huffman code.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Broken> {
    let is_coded = block.first().is_some_and(|first| *first >= 0x80);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !is_coded {
        return Ok(text);
    }
    buffer.clear();
    huffman::decode(text, buffer)?;
    Ok(buffer)
}

/// Appends a field that is spelled out, without the Huffman code, and enters no table (RFC 7541 §6.2.2).
pub(super) fn spell(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        let mut rest = text.len();
        if rest >= 0x7f {
            block.push(0x7f);
            rest -= 0x7f;
            while rest >= 0x80 {
                let [.., low] = rest.to_be_bytes();
                block.push(0x80 | low);
                rest >>= 7;
            }
        }
        let [.., low] = rest.to_be_bytes();
        block.push(low);
        block.extend(text);
    }
}

fn byte(block: &mut &[u8]) -> Result<u8, Broken> {
    let (first, rest) = block.split_first().ok_or(Broken)?;
    *block = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests;
