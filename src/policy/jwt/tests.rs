//! Tests of tokens and keys.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::*;
use crate::base::rng::Rng;

const NOW: u64 = 1_800_000_000;

/// A key pair: what signs, and its public half.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn new(id: &str, algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &PKCS_ECDSA_P384_SHA384,
            _ => &PKCS_RSA_SHA256,
        };
        let der = KeyPair::generate_for(kind).unwrap().serialize_der();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&der),
            _ => EncodingKey::from_rsa_pem(pem(&der).as_bytes()).unwrap(),
        };
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(id);
        Self { algorithm, key, jwk }
    }

    fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk["kid"].as_str().map(str::to_owned);
        header
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.key).unwrap()
    }
}

fn base64(bytes: &[u8], alphabet_end: &[u8; 2]) -> String {
    let digit = |bits: u32| {
        let place = usize::try_from(bits & 63).unwrap();
        char::from(match place {
            0..26 => b'A' + u8::try_from(place).unwrap(),
            26..52 => b'a' + u8::try_from(place - 26).unwrap(),
            52..62 => b'0' + u8::try_from(place - 52).unwrap(),
            _ => alphabet_end[place - 62],
        })
    };
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        (0..=chunk.len()).for_each(|at| out.push(digit(bits >> (18 - 6 * at))));
    }
    out
}

fn url(text: &str) -> String {
    base64(text.as_bytes(), b"-_")
}

fn pem(der: &[u8]) -> String {
    let text = base64(der, b"+/");
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    format!("-----BEGIN PRIVATE KEY-----\n{text}{padding}\n-----END PRIVATE KEY-----\n")
}

fn set(keys: &[&Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn issuer(keys: &[&Value]) -> Issuer {
    let issuer = Issuer {
        name: "https://auth.blog".to_owned(),
        audience: vec!["orders".to_owned()],
        leeway: Duration::from_secs(30),
        claims: vec![
            ("sub".to_owned(), HeaderName::from_static("x-user")),
            ("roles".to_owned(), HeaderName::from_static("x-roles")),
        ],
        keys: Arc::default(),
    };
    if !keys.is_empty() {
        issuer.keys.publish(set(keys));
    }
    issuer
}

fn claims() -> Value {
    json!({ "iss": "https://auth.blog", "aud": "orders", "sub": "ann", "exp": NOW + 60, "nbf": NOW - 60, "roles": ["a", "b"] })
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

fn refused(issuers: &[Issuer], token: &str) -> Option<Refusal> {
    verify(issuers, token, NOW).err()
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens() {
    let signers = [Algorithm::ES256, Algorithm::ES384, Algorithm::RS256, Algorithm::PS512]
        .map(|algorithm| Signer::new(&format!("{algorithm:?}"), algorithm));
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    let issuers = [issuer(&keys)];
    for signer in &signers {
        let (by, found) = verify(&issuers, &signer.sign(&claims()), NOW).unwrap();
        let headers: Vec<_> = by.headers(&found).collect();
        assert_eq!(headers[0].1, "ann");
        assert_eq!(headers[1].1, "a,b");
    }
    let other = Signer::new("ES256", Algorithm::ES256);
    assert_eq!(refused(&issuers, &other.sign(&claims())), Some(Refusal::Signature));
    let unknown = Signer::new("new", Algorithm::ES256);
    assert!(!issuers[0].keys.was_wanted());
    assert_eq!(refused(&issuers, &unknown.sign(&claims())), Some(Refusal::UnknownKey));
    assert!(issuers[0].keys.was_wanted() && !issuers[0].keys.was_wanted());
}

#[test]
fn claims_are_held_against_what_is_asked_for() {
    let signer = Signer::new("a", Algorithm::ES256);
    let issuers = [issuer(&[&signer.jwk])];
    for (changed, want) in [
        (claims(), None),
        (with("iss", json!("https://auth.other")), Some(Refusal::Issuer)),
        (with("iss", json!("https://auth.blog/")), Some(Refusal::Issuer)),
        (with("iss", Value::Null), Some(Refusal::Issuer)),
        (with("aud", json!("lists")), Some(Refusal::Audience)),
        (with("aud", json!(["lists", "orders"])), None),
        (with("aud", json!([])), Some(Refusal::Audience)),
        (with("aud", Value::Null), Some(Refusal::MissingClaim)),
        (with("exp", Value::Null), Some(Refusal::MissingClaim)),
        (with("exp", json!(NOW - 29)), None),
        (with("exp", json!(NOW - 30)), Some(Refusal::Expired)),
        (with("exp", json!(0)), Some(Refusal::Expired)),
        (with("exp", json!(1_800_000_060.5)), None),
        (with("exp", json!(-1)), Some(Refusal::Malformed)),
        (with("exp", json!("tomorrow")), Some(Refusal::Malformed)),
        (with("exp", json!(1e300)), None),
        (with("nbf", json!(NOW + 30)), None),
        (with("nbf", json!(NOW + 31)), Some(Refusal::NotYetValid)),
        (with("nbf", json!("now")), Some(Refusal::Malformed)),
        (with("nbf", Value::Null), None),
    ] {
        assert_eq!(refused(&issuers, &signer.sign(&changed)), want, "{changed}");
    }
    let mut open = issuer(&[&signer.jwk]);
    open.audience.clear();
    assert_eq!(refused(&[open], &signer.sign(&with("aud", json!("lists")))), None);
}

#[test]
fn neither_none_nor_an_hmac_with_a_public_key_passes() {
    let signer = Signer::new("a", Algorithm::RS256);
    let issuers = [issuer(&[&signer.jwk])];
    let body = url(&claims().to_string());
    for algorithm in ["none", "None", "NONE", "nOnE"] {
        let head = url(&json!({ "alg": algorithm, "kid": "a" }).to_string());
        for signature in ["", "AA"] {
            let token = format!("{head}.{body}.{signature}");
            assert_eq!(refused(&issuers, &token), Some(Refusal::Algorithm), "{algorithm}");
        }
    }
    let modulus = signer.jwk["n"].as_str().unwrap().to_owned();
    for (algorithm, secret) in
        [(Algorithm::HS256, modulus), (Algorithm::HS512, signer.jwk.to_string())]
    {
        let mut header = Header::new(algorithm);
        for kid in [Some("a".to_owned()), None] {
            header.kid = kid;
            let token =
                encode(&header, &claims(), &EncodingKey::from_secret(secret.as_bytes())).unwrap();
            assert_eq!(refused(&issuers, &token), Some(Refusal::Algorithm));
        }
    }
    // A key that says what it is for is for nothing else.
    let mut only = signer.jwk.clone();
    only["alg"] = json!("RS512");
    assert_eq!(refused(&[issuer(&[&only])], &signer.sign(&claims())), Some(Refusal::Algorithm));
}

#[test]
fn a_token_that_was_changed_or_is_none_is_refused() {
    let signer = Signer::new("a", Algorithm::ES256);
    let issuers = [issuer(&[&signer.jwk])];
    let token = signer.sign(&claims());
    let [head, _, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let forged = format!("{head}.{}.{signature}", url(&with("sub", json!("root")).to_string()));
    assert_eq!(refused(&issuers, &forged), Some(Refusal::Signature));
    for (token, want) in [
        (String::new(), Refusal::Malformed),
        ("a.b".to_owned(), Refusal::Malformed),
        ("a.b.c".to_owned(), Refusal::Malformed),
        (format!("{token}.x"), Refusal::Malformed),
        (format!("{head}..{signature}"), Refusal::Malformed),
        ("a".repeat(LONGEST + 1), Refusal::Malformed),
        (format!("{}.{}.{signature}", url("[]"), url("{}")), Refusal::Malformed),
        (
            format!("{head}.{}.{signature}", url("{\"iss\":\"https://auth.blog\",\"iss\":\"x\"}")),
            Refusal::Malformed,
        ),
    ] {
        assert_eq!(refused(&issuers, &token), Some(want), "{token:.40}");
    }
    let mut header = signer.header();
    header.crit = Some(vec!["exp".to_owned()]);
    let critical = encode(&header, &claims(), &signer.key).unwrap();
    assert_eq!(refused(&issuers, &critical), Some(Refusal::Malformed));
}

#[test]
fn a_set_keeps_what_it_can_use() {
    let (good, bad) = (Signer::new("a", Algorithm::ES256), Signer::new("b", Algorithm::ES256));
    let mut encryption = bad.jwk;
    encryption["use"] = json!("enc");
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "s" });
    let odd = json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" });
    let short = json!({ "kty": "RSA", "n": "AAAA", "e": "AQAB" });
    let found = set(&[&secret, &odd, &short, &encryption, &good.jwk, &json!(7)]);
    assert_eq!((found.len(), found.left_out()), (1, 5));
    let parse = |text: &str| KeySet::parse(text.as_bytes()).unwrap_err();
    assert_eq!(parse("{"), KeySetError::Malformed);
    assert_eq!(parse("[]"), KeySetError::Malformed);
    assert_eq!(parse("{\"keys\":[]}"), KeySetError::NoKeys);
    assert_eq!(parse(&json!({ "keys": [secret] }).to_string()), KeySetError::NoKeys);
    let many: Vec<&Value> = std::iter::repeat_n(&good.jwk, 100).collect();
    assert_eq!((set(&many).len(), set(&many).left_out()), (64, 36));
}

#[test]
fn a_token_without_a_key_id_is_tried_with_few_keys() {
    let signers: Vec<Signer> = (0..6).map(|_| Signer::new("x", Algorithm::ES256)).collect();
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    let issuers = [issuer(&keys)];
    let unnamed =
        |signer: &Signer| encode(&Header::new(Algorithm::ES256), &claims(), &signer.key).unwrap();
    assert_eq!(refused(&issuers, &unnamed(&signers[3])), None);
    assert_eq!(refused(&issuers, &unnamed(&signers[4])), Some(Refusal::Signature));
}

#[test]
fn the_issuer_chooses_the_keys() {
    let (ours, theirs) = (Signer::new("a", Algorithm::ES256), Signer::new("a", Algorithm::ES256));
    let mut other = issuer(&[&theirs.jwk]);
    other.name = "https://auth.other".to_owned();
    let issuers = [issuer(&[&ours.jwk]), other];
    let foreign = with("iss", json!("https://auth.other"));
    assert_eq!(refused(&issuers, &theirs.sign(&foreign)), None);
    assert_eq!(refused(&issuers, &ours.sign(&foreign)), Some(Refusal::Signature));
    assert_eq!(refused(&[issuer(&[])], &ours.sign(&claims())), Some(Refusal::NoKeys));
}

#[test]
fn the_token_is_in_one_bearer_field() {
    let of = |fields: &[&'static str]| -> HeaderMap {
        fields
            .iter()
            .map(|field| (http::header::AUTHORIZATION, HeaderValue::from_static(field)))
            .collect()
    };
    assert_eq!(bearer(&of(&[])), Ok(None));
    assert_eq!(bearer(&of(&["Basic eDp5"])), Ok(None));
    assert_eq!(bearer(&of(&["Bearer a.b.c"])), Ok(Some("a.b.c")));
    assert_eq!(bearer(&of(&["bearer  a.b.c "])), Ok(Some("a.b.c")));
    assert_eq!(bearer(&of(&["Bearer a.b.c", "Bearer a.b.c"])), Err(Refusal::Malformed));
}

#[test]
fn only_plain_claims_become_headers() {
    let issuer = issuer(&[]);
    let headers = |sub: Value| -> Vec<String> {
        let claims = json!({ "sub": sub });
        let headers = issuer.headers(claims.as_object().unwrap());
        headers.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    for (claim, want) in [
        (json!("ann"), "ann"),
        (json!(7), "7"),
        (json!(true), "true"),
        (json!(["a", "b"]), "a,b"),
        (json!("josé"), "josé"),
    ] {
        assert_eq!(headers(claim), [want]);
    }
    for claim in [
        json!({}),
        Value::Null,
        json!(["a,b"]),
        json!([1]),
        json!("a\r\nx: y"),
        json!("a".repeat(5_000)),
    ] {
        assert!(headers(claim.clone()).is_empty(), "{claim}");
    }
}

#[test]
fn damaged_tokens_pass_for_none_and_damaged_sets_harm_nobody() {
    let mut rng = Rng::from_seed(43);
    let signer = Signer::new("a", Algorithm::ES256);
    let issuers = [issuer(&[&signer.jwk])];
    let token = signer.sign(&claims());
    let text = json!({ "keys": [signer.jwk] }).to_string();
    let mut read = 0;
    for _ in 0..2_000 {
        let damaged = rng.damaged(token.as_bytes(), b".-_=AZ09");
        // The last digit of a signature has bits that mean nothing: they must be zero.
        if let Ok(damaged) = std::str::from_utf8(&damaged) {
            assert!(damaged == token || verify(&issuers, damaged, NOW).is_err(), "{damaged}");
        }
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&rng.damaged(b"Bearer a.b.c", b" \tB")) {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let _any = bearer(&headers);
        read += usize::from(KeySet::parse(&rng.damaged(text.as_bytes(), b"\"{}[]:,09")).is_ok());
    }
    assert!(read > 10, "{read} sets were read");
}
