//! A private key out of its PEM text, of which nothing is left behind.

use base64ct::{Base64, Encoding};
use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

/// What marks each kind of key (RFC 7468 §10, RFC 5958; PKCS#1 and SEC1 as OpenSSL writes them), and how it is named decoded.
const KINDS: [(&str, &str, Decoded); 3] = [
    ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", |der| {
        PrivateKeyDer::Pkcs8(der.into())
    }),
    ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----", |der| {
        PrivateKeyDer::Pkcs1(der.into())
    }),
    ("-----BEGIN EC PRIVATE KEY-----", "-----END EC PRIVATE KEY-----", |der| {
        PrivateKeyDer::Sec1(der.into())
    }),
];

type Decoded = fn(Vec<u8>) -> PrivateKeyDer<'static>;

/// The first private key of `text`, which the caller wipes; all else that was made on the way is wiped here. The decoder's time
/// does not depend on the key.
///
/// `None` where it is not written as it should be: each mark alone on its line, and nothing but base64 with its padding between
/// them. `PrivateKeyDer::from_pem_slice` then reads it or tells why not, and leaves the base64 that it has collected in memory that
/// is freed.
pub(super) fn first(text: &[u8]) -> Option<PrivateKeyDer<'static>> {
    let mut lines = text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end);
    let mut inside = false;
    let (_, end, decoded) = loop {
        let line = lines.next()?;
        if let Some(kind) = KINDS.iter().find(|(begin, ..)| line == begin.as_bytes()) {
            break kind;
        }
        inside |= line.starts_with(b"-----BEGIN ");
        inside &= !line.starts_with(b"-----END ");
    };
    if inside {
        return None;
    }
    // Neither grows: what outgrows its buffer is moved, and leaves a copy.
    let mut base64 = Zeroizing::new(Vec::with_capacity(text.len()));
    loop {
        let line = lines.next()?;
        if line == end.as_bytes() {
            break;
        }
        base64.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
    }
    let mut der = Zeroizing::new(vec![0; base64.len() / 4 * 3]);
    let length = Base64::decode(&*base64, &mut der).ok()?.len();
    der.truncate(length);
    Some(decoded(std::mem::take(&mut *der)))
}

/// True where a key is there that needs a passphrase.
pub(super) fn is_encrypted(text: &[u8]) -> bool {
    let marks = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    marks.iter().any(|mark| find(text, mark).is_some())
}

fn find(text: &[u8], mark: &str) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn same(text: &str) {
        let library = PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap();
        assert_eq!(first(text.as_bytes()), Some(library), "{text}");
    }

    #[test]
    fn a_key_is_what_the_library_reads() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap().serialize_pem();
            let other = KeyPair::generate().unwrap().serialize_pem();
            let one_line = key
                .replace('\n', "")
                .replace("KEY-----", "KEY-----\n")
                .replace("-----END", "\n-----END");
            let of_kind = |kind: &str| key.replace("PRIVATE", &format!("{kind} PRIVATE"));
            same(&key);
            same(&key.replace('\n', "\r\n"));
            same(&one_line);
            same(&format!("Key Attributes: <none>\n{key}"));
            same(&format!(
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n{key}{other}"
            ));
            same(&of_kind("RSA"));
            same(&of_kind("EC"));
            same(&format!("{}{other}", of_kind("EC")));
        }
    }

    #[test]
    fn what_is_not_written_as_it_should_be_is_left_to_the_library() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        let encrypted = key.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n");
        let texts = [
            "",
            "x",
            &key[..key.len() / 2],
            &key.replacen('M', "*", 1),
            &encrypted,
            &key.replace('\n', ""),
            &key.replace("-----BEGIN", " -----BEGIN"),
            &key.replace("\n-----END", "-----END"),
            &format!("-----BEGIN CERTIFICATE-----\n{key}"),
            &format!("-----BEGIN PRIVATE KEY-----\n{key}"),
        ];
        for text in texts {
            assert_eq!(first(text.as_bytes()), None, "{text}");
        }
        let old = format!("# {}\n", key.trim().replace('\n', ""));
        same(&format!("{old}{key}"));
        assert!(is_encrypted(encrypted.as_bytes()) && !is_encrypted(key.as_bytes()));
    }
}
