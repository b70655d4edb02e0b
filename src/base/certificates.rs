//! Where certificates are read from.

use std::path::{Path, PathBuf};

/// One set of files. Each is PEM; a relative path is refused where it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// Our own certificate, and what leads from it towards its root. Written with `key`, or neither.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// Who vouches for peers.
    pub ca: Option<Authorities>,
    /// Certificates of peers that are no longer good, one list for each authority.
    pub crl: Option<PathBuf>,
}

/// Who vouches for peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Authorities {
    /// Those that the system trusts.
    System,
    /// Those in a file.
    File(PathBuf),
}

impl CertificateFiles {
    /// These, and where one is not written that of `other`. A pair stays a pair: `cert` and `key` come from one of the two, and
    /// so do `ca` and `crl`, as a list concerns the authorities that it was made by.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let pair = if self.cert.is_some() || self.key.is_some() { &self } else { other };
        let peers = if self.ca.is_some() { &self } else { other };
        Self {
            cert: pair.cert.clone(),
            key: pair.key.clone(),
            crl: self.crl.clone().or_else(|| peers.crl.clone()),
            ca: peers.ca.clone(),
        }
    }

    /// Every file, with the key that it is written under.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let ca = match &self.ca {
            Some(Authorities::File(path)) => Some(path),
            Some(Authorities::System) | None => None,
        };
        let all = [
            ("cert", self.cert.as_ref()),
            ("key", self.key.as_ref()),
            ("ca", ca),
            ("crl", self.crl.as_ref()),
        ];
        all.into_iter().filter_map(|(key, path)| Some((key, path?.as_path())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_filled_pair_by_pair() {
        let path = |text: &str| Some(PathBuf::from(text));
        let file = |text: &str| Some(Authorities::File(text.into()));
        let identity = CertificateFiles {
            cert: path("/i/cert"),
            key: path("/i/key"),
            ca: file("/i/ca"),
            crl: path("/i/crl"),
        };
        assert_eq!(CertificateFiles::default().or(&identity), identity);
        let own = CertificateFiles {
            cert: path("/o/cert"),
            key: path("/o/key"),
            ..CertificateFiles::default()
        };
        let merged = own.or(&identity);
        assert_eq!((merged.cert, merged.ca), (path("/o/cert"), file("/i/ca")));
        let public =
            CertificateFiles { ca: Some(Authorities::System), ..CertificateFiles::default() };
        let merged = public.or(&identity);
        assert_eq!((merged.key, merged.crl), (path("/i/key"), None));
    }
}
