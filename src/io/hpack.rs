//! The fields of an HPACK block (RFC 7541), read without an opinion about them.
//!
//! The h2 crate unpacks what is served; this reader is for what that crate cannot be asked (`io/field_guard.rs`): it knows the same
//! table, and gives every field as it was sent, whatever stands in it.

pub(super) mod huffman;
mod table;

pub(super) use table::OVERHEAD;
use table::{Known, Table};

/// A block that cannot be unpacked: an error of the connection (RFC 9113 §4.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Buffers that are larger than this do not stay with the connection.
const KEPT: usize = 1_024;

/// A field of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// One of the static table, by its index.
    Static(u8),
    /// One that was sent before: name and value.
    Again(&'a [u8], &'a [u8]),
    /// One that was spelled out: name and value.
    New(&'a [u8], &'a [u8]),
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
                0x80.. => match self.table.field(integer(&mut block, 7)?)? {
                    Known::Static(index) => see(Field::Static(index)),
                    Known::Dynamic(name, value) => see(Field::Again(name, value)),
                },
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
        self.name.shrink_to(KEPT);
        self.value.shrink_to(KEPT);
        Ok(())
    }

    /// One that is spelled out, its name possibly by an index (RFC 7541 §6.2). With a prefix of six bits it enters the table.
    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        see: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let name = match integer(block, prefix)? {
            0 => string(block, &mut self.name)?,
            index => self.table.name(index)?,
        };
        let value = string(block, &mut self.value)?;
        see(Field::New(name, value));
        if prefix == 6 {
            let (length, text) = (name.len(), [name, value].concat());
            self.table.add(text.into(), length);
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
