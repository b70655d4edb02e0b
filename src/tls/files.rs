//! A set of certificates, read from its files and checked before anything is made of it.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor, UnixTime,
};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};
use xxhash_rust::xxh3::Xxh3;
use zeroize::{Zeroize, Zeroizing};

use crate::base::certificates::{Authorities, CertificateFiles};

use super::der::{self, Validity};

/// Bytes of one file: the largest bundles of authorities have some hundred KiB, lists of revoked certificates a few MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What is wrong with one file of a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct FileError {
    /// The key that the file is written under: `cert`, `key`, `ca` or `crl`.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong, in one line, without a byte of a key.
    pub cause: String,
}

/// What the files of a set hold, unread.
#[derive(Debug)]
pub struct Contents {
    cert: Option<Vec<u8>>,
    /// Wiped when dropped.
    key: Option<Zeroizing<Vec<u8>>>,
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

/// A set that was checked: what configurations are made of.
#[derive(Debug, Clone)]
pub struct Material {
    /// Our own certificate with its chain and key.
    pub(super) own: Option<Arc<CertifiedKey>>,
    /// Who vouches for peers; `None` where the set does not say.
    pub(super) roots: Option<Arc<RootCertStore>>,
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    /// When our own certificate expires, in seconds since 1970.
    pub cert_not_after: Option<u64>,
    /// When the first of the authorities in the file does.
    pub ca_not_after: Option<u64>,
}

impl Contents {
    /// Reads every file of the set.
    ///
    /// # Errors
    /// Each file that cannot be read.
    pub fn read(files: &CertificateFiles) -> Result<Self, Vec<FileError>> {
        let mut contents = Self { cert: None, key: None, ca: None, crl: None };
        let mut errors = Vec::new();
        for (key, path) in files.paths() {
            match read(path) {
                Err(error) => {
                    errors.push(FileError {
                        key,
                        path: path.to_owned(),
                        cause: unreadable(&error),
                    });
                }
                Ok(bytes) if key == "key" => contents.key = Some(bytes),
                Ok(mut bytes) => {
                    let bytes = Some(std::mem::take(&mut *bytes));
                    match key {
                        "cert" => contents.cert = bytes,
                        "ca" => contents.ca = bytes,
                        _ => contents.crl = bytes,
                    }
                }
            }
        }
        if errors.is_empty() { Ok(contents) } else { Err(errors) }
    }

    /// Tells one content from another. Not a secret's trace: a key has more randomness than this has bits.
    pub fn fingerprint(&self) -> u128 {
        let mut hash = Xxh3::new();
        for part in [&self.cert, &self.ca, &self.crl] {
            hash.update(&part.as_ref().map_or(0, Vec::len).to_le_bytes());
            hash.update(part.as_deref().unwrap_or_default());
        }
        hash.update(self.key.as_ref().map_or(&[], |key| key.as_slice()));
        hash.digest128()
    }
}

/// All that it has, up to the limit, in a buffer that is wiped when it is dropped.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = std::fs::File::open(path)?;
    let length = usize::try_from(file.metadata()?.len().min(MAX_BYTES)).unwrap_or_default();
    // Large enough at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 64));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it has more than 16MiB"));
    }
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read (permissions)".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

/// Whether the certificate of a set has to be one that its `ca` vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// It has: an identity is who we are among those that the same authorities vouch for.
    ByOwnAuthorities,
    /// It need not: a certificate from elsewhere, such as a public one, beside authorities for callers.
    Elsewhere,
}

impl Material {
    /// Reads and checks a set.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(
        files: &CertificateFiles,
        vouched: Vouched,
        now: SystemTime,
    ) -> Result<Self, Vec<FileError>> {
        Self::parse(files, &Contents::read(files)?, vouched, now)
    }

    /// Checks what was read of `files`: that certificates and key can be read and fit each other, that they are valid `now`,
    /// and that the chain leads where it has to.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(
        files: &CertificateFiles,
        contents: &Contents,
        vouched: Vouched,
        now: SystemTime,
    ) -> Result<Self, Vec<FileError>> {
        let mut check = Check { files, now: seconds(now), errors: Vec::new() };
        let chain = contents.cert.as_ref().and_then(|text| check.chain(text));
        let key = contents.key.as_ref().and_then(|text| check.key(text));
        let cert_not_after = chain.as_ref().and_then(|chain| check.validity(chain));
        let own = match (chain, key) {
            (Some(chain), Some(key)) => check.pair(CertifiedKey::new(chain, key)),
            _ => None,
        };
        let crls = contents.crl.as_ref().and_then(|text| check.crls(text)).unwrap_or_default();
        let (roots, ca_not_after) = match (&files.ca, &contents.ca) {
            (Some(Authorities::System), _) => (check.system(), None),
            (_, Some(text)) => check.authorities(text).unzip(),
            _ => (None, None),
        };
        if let (Some(own), Some(roots), Vouched::ByOwnAuthorities, Some(_)) =
            (&own, &roots, vouched, &contents.ca)
            && cert_not_after.is_some()
        {
            check.vouched(own, roots);
        }
        if !check.errors.is_empty() {
            return Err(check.errors);
        }
        Ok(Self {
            own: own.map(Arc::new),
            roots: roots.map(Arc::new),
            crls,
            cert_not_after,
            ca_not_after: ca_not_after.flatten(),
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A time in messages.
fn at(seconds: u64) -> impl Display {
    // The last second that humantime can show is that of the year 9999.
    humantime::format_rfc3339_seconds(
        UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)),
    )
}

struct Check<'a> {
    files: &'a CertificateFiles,
    now: u64,
    errors: Vec<FileError>,
}

impl Check<'_> {
    fn wrong<T>(&mut self, key: &'static str, cause: impl Into<String>) -> Option<T> {
        let path = self.files.paths().find(|(known, _)| *known == key);
        let path = path.map_or_else(PathBuf::new, |(_, path)| path.to_owned());
        self.errors.push(FileError { key, path, cause: cause.into() });
        None
    }

    /// The certificates of a PEM file, at least one.
    fn certificates(
        &mut self,
        key: &'static str,
        text: &[u8],
    ) -> Option<Vec<CertificateDer<'static>>> {
        match CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>() {
            Err(error) => self.wrong(key, broken_pem(&error)),
            Ok(certificates) if certificates.is_empty() => {
                self.wrong(key, "it holds no certificate (PEM, `-----BEGIN CERTIFICATE-----`)")
            }
            Ok(certificates) => Some(certificates),
        }
    }

    fn chain(&mut self, text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
        let chain = self.certificates("cert", text)?;
        for (index, certificate) in chain.iter().enumerate() {
            if EndEntityCert::try_from(certificate).is_err() {
                return self.wrong("cert", format!("its certificate {} cannot be read", index + 1));
            }
        }
        Some(chain)
    }

    fn key(&mut self, text: &[u8]) -> Option<Arc<dyn rustls::sign::SigningKey>> {
        let read = private_key::first(text).map_or_else(|| PrivateKeyDer::from_pem_slice(text), Ok);
        let mut key = match read {
            Ok(key) => key,
            Err(_) if private_key::is_encrypted(text) => {
                return self.wrong("key", "it is encrypted: keys are read without a passphrase");
            }
            Err(pem::Error::NoItemsFound) => {
                return self
                    .wrong("key", "it holds no private key (PEM, `-----BEGIN PRIVATE KEY-----`)");
            }
            Err(error) => return self.wrong("key", broken_pem(&error)),
        };
        let loaded = any_supported_type(&key);
        key.zeroize();
        match loaded {
            Ok(loaded) => Some(loaded),
            Err(_) => self.wrong("key", "its key cannot be used: write one for RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519"),
        }
    }

    /// When the certificate expires, where it is valid now.
    fn validity(&mut self, chain: &[CertificateDer<'static>]) -> Option<u64> {
        for (index, certificate) in chain.iter().enumerate() {
            let which = if index == 0 { "the certificate" } else { "a certificate of its chain" };
            let Some(Validity { not_before, not_after }) = der::validity(certificate) else {
                return self.wrong("cert", format!("the dates of {which} cannot be read"));
            };
            if self.now > not_after {
                return self.wrong("cert", format!("{which} has expired at {}", at(not_after)));
            }
            if self.now < not_before {
                return self
                    .wrong("cert", format!("{which} is not valid before {}", at(not_before)));
            }
        }
        chain.first().and_then(|leaf| der::validity(leaf)).map(|validity| validity.not_after)
    }

    fn pair(&mut self, own: CertifiedKey) -> Option<CertifiedKey> {
        match own.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Some(own)
            }
            Err(_) => {
                let cert = self.files.cert.as_ref().map(|path| path.display().to_string());
                let cert = cert.unwrap_or_default();
                self.wrong("key", format!("it is not the key of the certificate in {cert}"))
            }
        }
    }

    fn authorities(&mut self, text: &[u8]) -> Option<(RootCertStore, Option<u64>)> {
        let mut roots = RootCertStore::empty();
        let mut first_end: Option<u64> = None;
        for (index, certificate) in self.certificates("ca", text)?.into_iter().enumerate() {
            let validity = der::validity(&certificate);
            let (Some(validity), Ok(())) = (validity, roots.add(certificate)) else {
                return self.wrong("ca", format!("its certificate {} cannot be read", index + 1));
            };
            // One that has expired vouches for nobody, and harms nobody as long as there is another.
            if validity.not_after >= self.now {
                first_end =
                    Some(first_end.map_or(validity.not_after, |end| end.min(validity.not_after)));
            }
        }
        if first_end.is_none() {
            return self.wrong("ca", "all of its certificates have expired");
        }
        Some((roots, first_end))
    }

    fn system(&mut self) -> Option<RootCertStore> {
        let roots = system_roots();
        if roots.is_empty() {
            return self.wrong("ca", "the system has no authorities (package ca-certificates)");
        }
        Some(roots)
    }

    fn crls(&mut self, text: &[u8]) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let lists =
            CertificateRevocationListDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
        let lists = match lists {
            Err(error) => return self.wrong("crl", broken_pem(&error)),
            Ok(lists) if lists.is_empty() => {
                return self.wrong("crl", "it holds no list (PEM, `-----BEGIN X509 CRL-----`)");
            }
            Ok(lists) => lists,
        };
        for (index, list) in lists.iter().enumerate() {
            if webpki::BorrowedCertRevocationList::from_der(list).is_err() {
                return self.wrong("crl", format!("its list {} cannot be read", index + 1));
            }
        }
        Some(lists)
    }

    /// That the set's own authorities vouch for its certificate, as our peers will want it.
    fn vouched(&mut self, own: &CertifiedKey, roots: &RootCertStore) {
        let Some((leaf, chain)) = own.cert.split_first() else { return };
        let Ok(leaf) = EndEntityCert::try_from(leaf) else { return };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(self.now));
        let verified = |usage| {
            let algorithms = super::PROVIDER.signature_verification_algorithms.all;
            let anchors: &[TrustAnchor<'_>] = &roots.roots;
            leaf.verify_for_usage(algorithms, anchors, chain, time, usage, None, None).map(|_| ())
        };
        // A set serves in both roles; one of them is enough.
        let verified =
            verified(KeyUsage::server_auth()).or_else(|_| verified(KeyUsage::client_auth()));
        let Err(error) = verified else { return };
        let _told: Option<()> = self.wrong(
            "cert",
            match error {
                webpki::Error::UnknownIssuer => "its certificate is not signed by an authority in `ca` (is a certificate of the chain missing?)".to_owned(),
                webpki::Error::CertExpired { .. } => {
                    "the authority that has signed it has expired".to_owned()
                }
                webpki::Error::CaUsedAsEndEntity => {
                    "its first certificate is an authority's, not our own".to_owned()
                }
                error => format!("its certificate does not lead to an authority in `ca`: {error}"),
            },
        );
    }
}

/// Those that the system trusts; some that cannot be used may be missing.
pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn broken_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it breaks off before an `-----END` line".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with `-----BEGIN` is malformed".to_owned()
        }
        // Never what was found: it may be part of a key.
        _ => "it is not PEM: its base64 is malformed".to_owned(),
    }
}

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod hostile;
mod private_key;
#[cfg(test)]
mod tests;
