//! A set of public keys (RFC 7517), and signatures that they verify. The cryptography is jsonwebtoken's, over aws-lc-rs.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;

/// Keys that are kept of one set: an issuer has two or three.
const MOST_KEYS: usize = 64;
/// Keys that are tried for a token that names none.
const MOST_TRIED: usize = 4;

/// The keys of one issuer that can verify something.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys of the set that are not used: shared secrets, for encryption, of another kind, or beyond the most that are kept.
    left_out: usize,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    /// For each algorithm that it is for.
    rules: Vec<Validation>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or without a list `keys`.
    #[error("not a JSON object with a list `keys`")]
    Malformed,
    /// None of its keys can verify a signature.
    #[error(
        "none of its keys is a public key for signatures (RSA of 2048 bits and more, P-256, P-384, Ed25519)"
    )]
    NoKeys,
}

impl KeySet {
    /// Reads a JWK set. A key that cannot be used spoils none of the others.
    ///
    /// # Errors
    /// Where it is none, or holds nothing that can be used.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| KeySetError::Malformed)?;
        let all = set.keys.len();
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).take(MOST_KEYS).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoKeys);
        }
        let left_out = all - keys.len();
        Ok(Self { keys, left_out })
    }

    /// How many can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a set without keys is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many cannot.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The claims of a token whose signature is right.
    pub(super) fn verify(
        &self,
        header: &Header,
        token: &str,
    ) -> Result<Map<String, Value>, Refusal> {
        let named = |key: &&Key| header.kid.is_none() || header.kid == key.id;
        let mut refused = Refusal::UnknownKey;
        let mut tried = 0;
        for key in self.keys.iter().filter(named) {
            let Some(rules) = key.rules.iter().find(|rules| rules.algorithms.contains(&header.alg))
            else {
                if refused == Refusal::UnknownKey {
                    refused = Refusal::Algorithm;
                }
                continue;
            };
            if tried == MOST_TRIED {
                break;
            }
            tried += 1;
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, rules) {
                Ok(token) => return Ok(token.claims),
                Err(error) => {
                    refused = match error.kind() {
                        jsonwebtoken::errors::ErrorKind::InvalidSignature => Refusal::Signature,
                        jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => Refusal::Algorithm,
                        _ => Refusal::Malformed,
                    }
                }
            }
        }
        Err(refused)
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let possible: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) if is_long(&key.n) => {
                &[RS256, RS384, RS512, PS256, PS384, PS512]
            }
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[ES256],
                EllipticCurve::P384 => &[ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[EdDSA]
            }
            _ => return None,
        };
        let algorithms: Vec<Algorithm> = match common.key_algorithm {
            None => possible.to_vec(),
            Some(only) => {
                let only = Algorithm::try_from(only).ok()?;
                possible.iter().copied().filter(|algorithm| *algorithm == only).collect()
            }
        };
        if algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self {
            id: jwk.common.key_id,
            key,
            rules: algorithms.into_iter().map(signature_only).collect(),
        })
    }
}

/// Whether a modulus in base64url has at least 2048 bits.
fn is_long(modulus: &str) -> bool {
    modulus.trim_end_matches('=').len() * 6 >= 2048
}

/// What is claimed is judged by ourselves, at the time that we are given.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules
}

/// What a token says of itself.
pub(super) struct Unverified {
    pub(super) header: Header,
    pub(super) issuer: String,
}

/// Reads what selects the key. Nothing of it is believed.
pub(super) fn unverified(token: &str) -> Result<Unverified, Refusal> {
    #[derive(Deserialize)]
    struct Claims {
        iss: Option<String>,
    }
    if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return Err(Refusal::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        // An algorithm that is none of those known, `none` among them.
        jsonwebtoken::errors::ErrorKind::Json(error) if error.to_string().contains("variant") => {
            Refusal::Algorithm
        }
        _ => Refusal::Malformed,
    })?;
    if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
        return Err(Refusal::Malformed);
    }
    let claims: Claims =
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| Refusal::Malformed)?;
    Ok(Unverified { header, issuer: claims.iss.unwrap_or_default() })
}
