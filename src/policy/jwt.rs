//! Bearer tokens (RFC 7519): who issued them, for whom, until when, and that nobody has changed them.
//!
//! The key decides which algorithms it verifies (RFC 8725 §3.1): its `alg`, else those of its type. What a token says of itself only
//! selects among them, so that neither `none` nor an HMAC keyed with a public key can pass: a key that is a shared secret is never taken
//! from a set, as whoever may read the set could sign. Tokens with critical extensions (`crit`) are refused, as we know none.
//!
//! Every token is verified. A cache of verified ones was rejected: it would need a bound, a clock and a lock or a copy per worker, and hold
//! credentials in memory, to save one verification of a signature.
//!
//! Time comes in as `now`, in seconds since 1970; nothing here reads a clock or a network.

mod keys;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

pub use keys::{KeySet, KeySetError};

/// A longer token is refused unread.
const LONGEST: usize = 16 * 1024;
/// A longer claim becomes no header.
const LONGEST_CLAIM: usize = 4 * 1024;

/// Where the keys of an issuer are, as far as they are known. Shared by workers and whoever keeps it up to date.
#[derive(Debug, Default)]
pub struct Keys {
    set: ArcSwapOption<KeySet>,
    /// A token named a key that is not in the set: it may be a new one.
    wanted: std::sync::atomic::AtomicBool,
}

impl Keys {
    /// The set in force, if there was ever one.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.set.load_full()
    }

    /// Puts a set in force.
    pub fn publish(&self, set: KeySet) {
        self.set.store(Some(Arc::new(set)));
    }

    /// Whether an unknown key was asked for since the last call.
    pub fn was_wanted(&self) -> bool {
        self.wanted.swap(false, std::sync::atomic::Ordering::Relaxed)
    }

    fn want(&self) {
        self.wanted.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// One trusted issuer.
#[derive(Debug)]
pub struct Issuer {
    /// `iss`, compared exactly.
    pub name: String,
    /// One of these must be in `aud`; empty: not asked for.
    pub audience: Vec<String>,
    /// How far clocks may be apart: `exp` holds that much longer, `nbf` that much earlier.
    pub leeway: Duration,
    /// Claims that become headers.
    pub claims: Vec<(String, HeaderName)>,
    /// What its tokens are verified with.
    pub keys: Arc<Keys>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is none.
    Missing,
    /// It is no token: its form, its length, its JSON, two of them, a critical extension.
    Malformed,
    /// It is signed with an algorithm that its key is not for, or with none.
    Algorithm,
    /// No key of its issuer has its `kid`.
    UnknownKey,
    /// Its signature is wrong.
    Signature,
    /// Nobody trusts its `iss`.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// `exp` has passed.
    Expired,
    /// `nbf` is still to come.
    NotYetValid,
    /// It has no `exp`, or no `aud` where one is asked for.
    MissingClaim,
    /// The issuer's keys are not known yet: says nothing about the token.
    NoKeys,
}

impl Refusal {
    /// All of them; metric handles are indexed by it.
    pub const ALL: [Self; 11] = [
        Self::Missing,
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYetValid,
        Self::MissingClaim,
        Self::NoKeys,
    ];

    /// The word in the log and in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::MissingClaim => "missing_claim",
            Self::NoKeys => "no_keys",
        }
    }

    /// A dense index below `ALL.len()`.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The token of `Authorization: Bearer`; nothing where there is another scheme, or no such field.
///
/// # Errors
/// Several such fields, of which another server might take another one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    const SCHEME: &str = "bearer ";
    let mut fields = headers.get_all(http::header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let Ok(field) = field.to_str() else { return Err(Refusal::Malformed) };
    match field.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            Ok(Some(token.trim_matches(' ')))
        }
        _ => Ok(None),
    }
}

/// The claims of a token, and which of `issuers` has issued it.
///
/// # Errors
/// Why it is refused.
pub fn verify<'a>(
    issuers: &'a [Issuer],
    token: &str,
    now: u64,
) -> Result<(&'a Issuer, Map<String, Value>), Refusal> {
    if token.len() > LONGEST {
        return Err(Refusal::Malformed);
    }
    let claimed = keys::unverified(token)?;
    let mut refused = Refusal::Issuer;
    for issuer in issuers.iter().filter(|issuer| issuer.name == claimed.issuer) {
        match issuer.verify(&claimed, token, now) {
            Ok(claims) => return Ok((issuer, claims)),
            Err(refusal) => refused = refusal,
        }
    }
    Err(refused)
}

impl Issuer {
    fn verify(
        &self,
        claimed: &keys::Unverified,
        token: &str,
        now: u64,
    ) -> Result<Map<String, Value>, Refusal> {
        let set = self.keys.set.load();
        let set = set.as_ref().ok_or(Refusal::NoKeys)?;
        let claims = set.verify(&claimed.header, token).inspect_err(|refusal| {
            if *refusal == Refusal::UnknownKey {
                self.keys.want();
            }
        })?;
        // Read again of what was verified: two parsers might disagree about a doubled name.
        if claims.get("iss").and_then(Value::as_str) != Some(&*self.name) {
            return Err(Refusal::Issuer);
        }
        self.check_times(&claims, now)?;
        self.check_audience(&claims)?;
        Ok(claims)
    }

    fn check_times(&self, claims: &Map<String, Value>, now: u64) -> Result<(), Refusal> {
        let leeway = self.leeway.as_secs();
        let expires = seconds(claims, "exp")?.ok_or(Refusal::MissingClaim)?;
        if now >= expires.saturating_add(leeway) {
            return Err(Refusal::Expired);
        }
        match seconds(claims, "nbf")? {
            Some(begins) if now.saturating_add(leeway) < begins => Err(Refusal::NotYetValid),
            _ => Ok(()),
        }
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |value: &Value| {
            value.as_str().is_some_and(|name| self.audience.iter().any(|ours| ours == name))
        };
        let found = match claims.get("aud") {
            None | Some(Value::Null) => return Err(Refusal::MissingClaim),
            Some(Value::Array(names)) => names.iter().any(ours),
            Some(one) => ours(one),
        };
        if found { Ok(()) } else { Err(Refusal::Audience) }
    }

    /// The headers that its claims become. A claim that is not there, or is no text, number, truth or list of texts without commas, becomes none.
    pub fn headers(
        &self,
        claims: &Map<String, Value>,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.claims.iter().filter_map(|(claim, name)| {
            let text = text(claims.get(claim)?)?;
            (text.len() <= LONGEST_CLAIM).then_some(())?;
            Some((name.clone(), HeaderValue::from_str(&text).ok()?))
        })
    }
}

/// Seconds since 1970, whole or with a fraction (RFC 7519 §2, NumericDate).
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative, and saturates"
            )]
            (None, Some(seconds)) if seconds >= 0.0 => Ok(Some(seconds as u64)),
            _ => Err(Refusal::Malformed),
        },
        Some(_) => Err(Refusal::Malformed),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Array(items) => {
            let items = items.iter().map(|item| item.as_str().filter(|item| !item.contains(',')));
            items.collect::<Option<Vec<&str>>>().map(|items| items.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
