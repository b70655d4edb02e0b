//! What a request is hashed by, and what hashing policies have in common.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::candidates::Candidates;
use super::endpoint::Endpoint;
use super::standing::FULL;
use crate::base::address::Address;

/// The hash of what identifies a request's caller or object: equal values go to the same endpoint.
///
/// xxh3 without a secret, so that every sidecar, of every version, sends a key to the same endpoint. Whoever chooses the keys
/// can therefore choose keys that meet; `ring_hash` bounds what such keys do to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// Of a header's, cookie's or parameter's value, or of an address's bytes.
    pub fn of(value: &[u8]) -> Self {
        Self(xxh3_64(value))
    }

    /// Another place for the same key, where the first is taken.
    pub(super) fn again(self, times: u64) -> u64 {
        mixed(self.0 ^ times.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// True for a `share`, in thousandths, of all keys; of those for which it is true with a smaller share it stays so. An
    /// endpoint under slow start gets more and more keys, the same from every sidecar, and loses none that it has.
    pub(super) fn is_among(self, share: u32, endpoint: &Endpoint) -> bool {
        let point = mixed(self.0 ^ endpoint.hash) % u64::from(FULL);
        share == FULL || point < u64::from(share)
    }
}

/// Places of `address` on a ring or in a table: the `number`-th.
pub(super) fn place(address: &str, number: u64) -> u64 {
    xxh3_64_with_seed(address.as_bytes(), number)
}

/// An address as it is hashed.
pub(super) fn name(address: &Address) -> String {
    address.to_string()
}

/// The first member that takes the key, from a place on that the key chooses: where a policy has not found one in as many
/// steps as it may take, since hardly any is left. Looks at every member.
pub(super) fn first_of_all(candidates: &Candidates<'_>, key: Key) -> Option<usize> {
    let members = candidates.set.len();
    let start = usize::try_from(key.again(0) % members.max(1) as u64).unwrap_or(0);
    (start..members).chain(0..start).find(|index| candidates.share(*index) > 0)
}

/// Every bit of the result hangs on every bit of `bits` (the finisher of splitmix64).
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
