//! What holds of any bytes that a file of certificates may have: they are read, or what is wrong with them is told. For fuzz targets.

use super::{
    Authorities, CertificateFiles, Contents, Material, PathBuf, SystemTime, Vouched, Zeroizing, der,
};

/// As each file of a set.
pub fn certificates(bytes: &[u8]) {
    let path = || Some(PathBuf::from("x"));
    let files = CertificateFiles {
        cert: path(),
        key: path(),
        ca: path().map(Authorities::File),
        crl: path(),
    };
    let part = || Some(bytes.to_vec());
    let key = part().map(Zeroizing::new);
    let contents = Contents { cert: part(), key, ca: part(), crl: part() };
    match Material::parse(&files, &contents, Vouched::ByOwnAuthorities, SystemTime::now()) {
        Ok(read) => assert!(read.own.is_some() && !bytes.is_empty()),
        Err(errors) => assert!(!errors.is_empty()),
    }
    let _any = der::validity(bytes);
}
