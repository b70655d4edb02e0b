//! An endpoint as configuration and discovery name it, before it has any state.

use std::collections::BTreeMap;

use super::address::Address;

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where it is reached; never port 0.
    pub address: Address,
    /// Relative share, 1..=1 000. Default 1.
    pub weight: u32,
    /// 0: first choice. A larger one is used for what those before it cannot take. Default 0.
    pub priority: u32,
    /// Where it stands. Default none.
    pub zone: Option<String>,
    /// What `subset` selects by. Default none.
    pub labels: BTreeMap<String, String>,
}

impl EndpointSpec {
    /// An endpoint of weight 1 and priority 0 without zone and labels.
    pub fn at(address: impl Into<Address>) -> Self {
        let address = address.into();
        Self { address, weight: 1, priority: 0, zone: None, labels: BTreeMap::new() }
    }
}
