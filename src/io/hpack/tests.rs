use super::*;
use crate::base::rng::Rng;

type Pairs = Vec<(String, String)>;

/// The fields of one block; those of the static table by their index.
fn read(reader: &mut Reader, block: &[u8]) -> Result<Pairs, Broken> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = Vec::new();
    reader.read(block, |field| {
        let name = field.index.map_or_else(|| text(field.name), |index| format!("#{index}"));
        fields.push((name, text(field.value)));
    })?;
    Ok(fields)
}

fn pairs(fields: &[(&str, &str)]) -> Result<Pairs, Broken> {
    Ok(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn the_requests_of_the_standard_are_read() {
    // RFC 7541, C.3 without the Huffman code, and C.4 with it.
    let plain: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x0fwww.example.com",
        b"\x82\x86\x84\xbe\x58\x08no-cache",
        b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    ];
    let coded: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ];
    for blocks in [plain, coded] {
        let mut reader = Reader::new();
        let authority = (":authority", "www.example.com");
        let [first, second, third] = blocks.map(|block| read(&mut reader, block));
        assert_eq!(first, pairs(&[("#2", ""), ("#6", ""), ("#4", ""), authority]));
        let no_cache = ("cache-control", "no-cache");
        assert_eq!(second, pairs(&[("#2", ""), ("#6", ""), ("#4", ""), authority, no_cache]));
        let custom = ("custom-key", "custom-value");
        assert_eq!(third, pairs(&[("#2", ""), ("#7", ""), ("#5", ""), authority, custom]));
    }
}

#[test]
fn a_name_out_of_the_table_goes_with_another_value_even_as_its_entry_makes_room() {
    let mut reader = Reader::new();
    let long = "y".repeat(4_060);
    let mut block = b"\x40\x01n\x01x\x7e\x7f\xdd\x1e".to_vec();
    block.extend(long.as_bytes());
    block.push(0xbe);
    assert_eq!(read(&mut reader, &block), pairs(&[("n", "x"), ("n", &long), ("n", &long)]));
    assert_eq!(read(&mut reader, b"\xbf"), Err(Broken));
}

#[test]
fn what_is_not_to_be_unpacked_is_refused() {
    let cases: [(&str, &[u8]); 14] = [
        ("index 0", b"\x80"),
        ("an index beyond the table", b"\xbe"),
        ("a name beyond the table", b"\x7e\x01x"),
        ("an index without its end", b"\xff\x80"),
        ("an index of six bytes", b"\xff\x80\x80\x80\x80\x01"),
        ("a name without a length", b"\x00"),
        ("a name without its end", b"\x00\x02x"),
        ("no value", b"\x00\x01x"),
        ("a value without its end", b"\x00\x01x\x02y"),
        ("a string of 2^28 bytes", b"\x00\x7f\x80\x80\x80\x7f"),
        ("padding of zeros", b"\x00\x01x\x81\xf0"),
        ("EOS in a string", b"\x00\x01x\x84\xff\xff\xff\xff"),
        ("a table that grows", b"\x3f\xe2\x1f"),
        ("a size behind a field", b"\x82\x20"),
    ];
    for (name, block) in cases {
        assert_eq!(read(&mut Reader::new(), block), Err(Broken), "{name}");
    }
    let sizes = b"\x20\x3f\xe1\x1f\x82";
    assert_eq!(
        read(&mut Reader::new(), sizes),
        pairs(&[("#2", "")]),
        "two sizes, one after another"
    );
}

#[test]
fn what_is_spelled_out_is_read_back() {
    let mut rng = Rng::from_seed(5);
    for _ in 0..500 {
        let mut text = |most: usize| "é\r\0aZ".chars().cycle().take(rng.below(most)).collect();
        let (name, value): (String, String) = (text(200), text(20_000));
        let mut block = Vec::new();
        spell(name.as_bytes(), value.as_bytes(), &mut block);
        assert_eq!(read(&mut Reader::new(), &block), pairs(&[(&name, &value)]));
    }
}

#[test]
fn what_is_wrong_is_known_again_with_the_index() {
    let mut reader = Reader::new();
    let mut faults = |block: &[u8]| {
        let mut faults = Vec::new();
        reader.read(block, |field| faults.push(field.fault.is_some())).unwrap();
        faults
    };
    // A name that is wrong, a value that is, and neither.
    assert_eq!(faults(b"\x40\x01X\x011\x40\x01y\x01\0\x40\x01z\x011"), [true, true, false]);
    assert_eq!(faults(b"\xc0\xbf\xbe"), [true, true, false]);
    // With other values, which enter the table as well: the name is still wrong, the value is not.
    assert_eq!(faults(b"\x7f\x01\x012\x7f\x01\x012\x7f\x01\x01\0"), [true, false, true]);
    assert_eq!(faults(b"\xc0\xbf\xbe"), [true, false, true]);
    // Of the static table: `transfer-encoding`, whatever its value, and no other.
    assert_eq!(faults(b"\xb9\x0f\x2a\x01x\xba\x0f\x2b\x01x"), [true, true, false, false]);
}

#[test]
fn any_bytes_are_read_or_refused() {
    let mut rng = Rng::from_seed(6);
    for _ in 0..20_000 {
        let mut reader = Reader::new();
        for _ in 0..4 {
            let block: Vec<u8> = (0..rng.below(40)).map(|_| rng.bits().to_le_bytes()[0]).collect();
            if reader.read(&block, |_| {}).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_long_string_leaves_no_long_buffer() {
    let mut reader = Reader::new();
    let coded = huffman::tests::encode(&[b'x'; 5_000]);
    let mut block = b"\0".to_vec();
    for _ in ["name", "value"] {
        block.extend(b"\xff");
        let rest = coded.len() - 127;
        block.extend([u8::try_from(rest % 128 + 128).unwrap(), u8::try_from(rest / 128).unwrap()]);
        block.extend(&coded);
    }
    let mut lengths = Vec::new();
    reader.read(&block, |field| lengths.push((field.name.len(), field.value.len()))).unwrap();
    assert_eq!(lengths, [(5_000, 5_000)]);
    assert!(reader.name.capacity().max(reader.value.capacity()) <= KEPT);
}
