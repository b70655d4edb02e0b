//! Sets that are good, and what is said of those that are not. `tests/certificate_files.rs` has the messages as `check` shows them.
#![allow(clippy::unwrap_used, reason = "test code")]

use super::*;
use crate::base::rng::Rng;
use crate::tls::testing::Authority;

/// The files of a set, in a folder of their own.
struct Files {
    dir: tempfile::TempDir,
    set: CertificateFiles,
}

impl Files {
    fn new(cert: &str, key: &str, ca: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let set = CertificateFiles {
            cert: Some(write("cert", cert)),
            key: Some(write("key", key)),
            ca: ca.map(|text| Authorities::File(write("ca", text))),
            crl: None,
        };
        Self { dir, set }
    }

    fn load(&self) -> Result<Material, Vec<FileError>> {
        Material::load(&self.set, Vouched::ByOwnAuthorities, SystemTime::now())
    }
}

fn issued(ca: &Authority) -> (String, String) {
    let leaf = ca.issue(|_| {});
    (leaf.cert.pem(), leaf.signing_key.serialize_pem())
}

fn causes(loaded: Result<Material, Vec<FileError>>) -> Vec<(&'static str, String)> {
    loaded.unwrap_err().into_iter().map(|error| (error.key, error.cause)).collect()
}

#[test]
fn a_chain_leads_over_what_stands_between_or_is_refused_without_it() {
    let root = Authority::new("root");
    let between = root.below("between");
    let leaf = between.issue(|_| {});
    let (ca, key, leaf) = (root.cert.pem(), leaf.signing_key.serialize_pem(), leaf.cert);
    let whole = Files::new(&(leaf.pem() + &between.cert.pem()), &key, Some(&ca));
    let material = whole.load().unwrap();
    assert_eq!(material.own.unwrap().cert.len(), 2);
    let found = causes(Files::new(&leaf.pem(), &key, Some(&ca)).load());
    assert!(
        matches!(&*found, [("cert", cause)] if cause.contains("is a certificate of the chain missing?"))
    );
    // A listener's own certificate may be from elsewhere.
    let files = Files::new(&leaf.pem(), &key, Some(&ca));
    assert!(Material::load(&files.set, Vouched::Elsewhere, SystemTime::now()).is_ok());
}

#[test]
fn an_authority_that_has_expired_harms_only_where_it_is_the_last() {
    let (good, old) = (Authority::new("good"), Authority::expired("old"));
    let (cert, key) = issued(&good);
    let both = old.cert.pem() + &good.cert.pem();
    let material = Files::new(&cert, &key, Some(&both)).load().unwrap();
    assert_eq!(material.roots.unwrap().len(), 2);
    let found = causes(Files::new(&cert, &key, Some(&old.cert.pem())).load());
    assert_eq!(found, [("ca", "all of its certificates have expired".to_owned())]);
}

#[test]
fn each_file_is_told_with_what_is_wrong_with_it() {
    let (cert, key) = issued(&Authority::new("ca"));
    let mut files = Files::new(&cert, &key, Some("nothing"));
    files.set.key = Some(files.dir.path().to_owned());
    let found = causes(files.load());
    assert!(
        matches!(&*found, [("key", cause)] if cause.starts_with("it cannot be read: ")),
        "{found:?}"
    );
    let found = causes(Files::new("nothing", &key, Some("nothing")).load());
    assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["cert", "ca"]);
    files.set.key = None;
    let large = files.dir.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
    files.set.crl = Some(large);
    let found = causes(files.load());
    assert_eq!(found, [("crl", "it cannot be read: it has more than 16MiB".to_owned())]);
}

#[test]
fn contents_are_told_apart_and_the_same_are_not() {
    let (cert, key) = issued(&Authority::new("ca"));
    let print = |cert: &str, key: &str| {
        Contents::read(&Files::new(cert, key, None).set).unwrap().fingerprint()
    };
    let same = print(&cert, &key);
    assert_eq!(same, print(&cert, &key));
    assert_ne!(same, print(&cert, &key[1..]));
    assert_ne!(same, print(&cert[1..], &key));
    // What stands in one file is not what stands in another.
    assert_ne!(print("ab", "c"), print("a", "bc"));
}

/// Whatever is wrong with a file: an answer, and no panic.
#[test]
fn broken_files_are_read_without_harm() {
    let ca = Authority::new("ca");
    let (cert, key) = issued(&ca);
    let files = Files::new(&cert, &key, Some(&ca.cert.pem()));
    let mut rng = Rng::from_seed(11);
    for _ in 0..300 {
        let mut contents = Contents::read(&files.set).unwrap();
        let part = match rng.below(3) {
            0 => contents.cert.as_mut().unwrap(),
            1 => contents.ca.as_mut().unwrap(),
            _ => &mut **contents.key.as_mut().unwrap(),
        };
        for _ in 0..=rng.below(3) {
            let at = rng.below(part.len());
            match rng.below(3) {
                0 => part.truncate(at.max(1)),
                1 => part[at] = u8::try_from(rng.below(256)).unwrap(),
                _ => part.extend_from_within(at..),
            }
        }
        let now = SystemTime::now();
        let _any = Material::parse(&files.set, &contents, Vouched::ByOwnAuthorities, now);
    }
}

/// The same bytes as each of the files: what the fuzz target tries.
#[test]
fn any_bytes_are_read_or_told_as_wrong() {
    let ca = Authority::new("ca");
    let (cert, key) = issued(&ca);
    for text in ["", "x", &cert, &key, &format!("{cert}{key}"), &format!("{key}{}", ca.cert.pem())]
    {
        hostile::certificates(text.as_bytes());
        hostile::certificates(&text.as_bytes()[..text.len() / 2]);
    }
}
