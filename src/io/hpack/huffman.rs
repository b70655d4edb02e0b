//! The Huffman code of HPACK strings (RFC 7541 §5.2, appendix B), read only.
//!
//! The code is canonical: codes of one length follow each other, in the order of what they mean, and each length goes on where the
//! one before it ended. So the rows below are the whole of it.

use super::Broken;

/// How many bits, and what the codes of that length mean, in their order. Behind the last stands EOS, which no string may contain.
#[rustfmt::skip]
const ROWS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"),
    (30, b"\x0a\x0d\x16"),
];

/// The first code of each row, at the upper end of 32 bits.
const FIRST: [u32; ROWS.len()] = {
    let mut first = [0; ROWS.len()];
    let (mut code, mut row) = (0, 0);
    loop {
        first[row] = code;
        let (bits, symbols) = ROWS[row];
        row += 1;
        if row == ROWS.len() {
            break first;
        }
        let mut symbol = 0;
        while symbol < symbols.len() {
            code += 1 << (32 - bits);
            symbol += 1;
        }
    }
};

/// What a code of at most eight bits means and its length, by the eight bits that it begins. No length: the code is longer.
const SHORT: [(u8, u32); 256] = {
    let mut short = [(0, 0); 256];
    let (mut at, mut row) = (0, 0);
    while ROWS[row].0 <= 8 {
        let (bits, symbols) = ROWS[row];
        let mut symbol = 0;
        while symbol < symbols.len() {
            let end = at + (1 << (8 - bits));
            while at < end {
                short[at] = (symbols[symbol], bits);
                at += 1;
            }
            symbol += 1;
        }
        row += 1;
    }
    short
};

/// Appends what `coded` means to `text`.
///
/// # Errors
///
/// EOS in the string, and an end that is not at most seven bits of it (RFC 7541 §5.2).
pub(super) fn decode(coded: &[u8], text: &mut Vec<u8>) -> Result<(), Broken> {
    let (mut bits, mut count) = (0_u64, 0);
    let mut rest = coded.iter();
    loop {
        while count <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let (byte, length) = symbol(bits)?;
        if length > count {
            break;
        }
        text.push(byte);
        bits <<= length;
        count -= length;
    }
    let is_padding = count < 8 && bits.leading_ones() == count;
    if is_padding { Ok(()) } else { Err(Broken) }
}

/// What the first code in `bits` means, and its length.
fn symbol(bits: u64) -> Result<(u8, u32), Broken> {
    let [first, ..] = bits.to_be_bytes();
    let (byte, length) = SHORT[usize::from(first)];
    if length > 0 {
        return Ok((byte, length));
    }
    let upper = (bits >> 32) as u32;
    let row = FIRST.iter().rposition(|first| *first <= upper).ok_or(Broken)?;
    let (length, symbols) = ROWS[row];
    let at = (upper - FIRST[row]) >> (32 - length);
    let byte = usize::try_from(at).ok().and_then(|at| symbols.get(at)).ok_or(Broken)?;
    Ok((*byte, length))
}

#[cfg(test)]
pub(in crate::io) mod tests;
