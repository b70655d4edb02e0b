use std::os::unix::fs::symlink;

use super::*;

/// One endpoint per line, `port` alone; a line that is no number is a mistake.
fn parse(name: &str, text: &str) -> Result<Vec<EndpointSpec>, String> {
    let port = |(index, line): (usize, &str)| {
        let port: u16 = line.parse().map_err(|_| format!("{name}:{}: {line}", index + 1))?;
        Ok(EndpointSpec::at(std::net::SocketAddr::from(([127, 0, 0, 1], port))))
    };
    text.lines().enumerate().map(port).collect()
}

fn ports(look: &Look) -> Option<Result<Vec<String>, ErrorKind>> {
    let found = look.found.as_ref()?;
    let address = |endpoint: &EndpointSpec| endpoint.address.to_string();
    Some(match found {
        Ok(endpoints) => Ok(endpoints.iter().map(address).collect()),
        Err(trouble) => Err(trouble.kind),
    })
}

fn of(ports: &[u16]) -> Option<Result<Vec<String>, ErrorKind>> {
    Some(Ok(ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()))
}

#[test]
fn each_way_to_change_a_file_is_seen_and_touching_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    let next = |seen| Look::at(&path, parse, seen);

    let look = next(Seen::default());
    assert_eq!(ports(&look), Some(Err(ErrorKind::Unreachable)));
    let look = next(look.seen);
    assert_eq!(ports(&look), None, "it is missing still");

    fs::write(&path, "1\n2").unwrap();
    let look = next(look.seen);
    assert_eq!(ports(&look), of(&[1, 2]));
    fs::write(&path, "1\n2").unwrap();
    let look = next(look.seen);
    assert_eq!(ports(&look), None, "the same content");
    fs::write(&path, "3\n4").unwrap();
    let look = next(look.seen);
    assert_eq!(ports(&look), of(&[3, 4]), "in place, and as long as before");

    let other = dir.path().join("other");
    fs::write(&other, "5").unwrap();
    fs::rename(&other, &path).unwrap();
    let look = next(look.seen);
    assert_eq!(ports(&look), of(&[5]), "by a rename");

    fs::write(&path, "5\nx").unwrap();
    let look = next(look.seen);
    assert_eq!(ports(&look), Some(Err(ErrorKind::Malformed)));
    let trouble = look.found.unwrap().unwrap_err();
    assert_eq!(trouble.text, format!("{}:2: x", path.display()));
    fs::write(&path, b"5\n\xff").unwrap();
    let look = next(look.seen);
    let trouble = look.found.unwrap().unwrap_err();
    assert!(trouble.text.ends_with("list:2: the file is no UTF-8 text"), "{}", trouble.text);
}

#[test]
fn a_swapped_symlink_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    for (version, content) in [("one", "1"), ("two", "2")] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("list"), content).unwrap();
    }
    let (data, swap) = (dir.path().join("..data"), dir.path().join("..data_tmp"));
    let path = dir.path().join("list");
    symlink("one", &data).unwrap();
    symlink("..data/list", &path).unwrap();
    let look = Look::at(&path, parse, Seen::default());
    assert_eq!(ports(&look), of(&[1]));
    symlink("two", &swap).unwrap();
    fs::rename(&swap, &data).unwrap();
    assert_eq!(ports(&Look::at(&path, parse, look.seen)), of(&[2]));
}

#[test]
fn what_is_no_file_or_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let look = Look::at(dir.path(), parse, Seen::default());
    assert_eq!(ports(&look), Some(Err(ErrorKind::Unreachable)));
    let path = dir.path().join("list");
    let file = fs::File::create(&path).unwrap();
    file.set_len(MAX_BYTES + 1).unwrap();
    let look = Look::at(&path, parse, Seen::default());
    assert_eq!(ports(&look), Some(Err(ErrorKind::Malformed)));
}
