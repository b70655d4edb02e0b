//! The endpoints that a request has been sent to.

/// Ids of endpoints that attempts of one request went to, so that a retry goes elsewhere.
///
/// A fixed array: retries must not allocate when everything fails. It holds the most attempts that a route may have;
/// beyond that the oldest is forgotten.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    ids: [u64; Self::CAPACITY],
    /// How many were ever noted.
    noted: usize,
}

impl Tried {
    /// The most that is remembered: `retry.attempts` is at most 10.
    pub const CAPACITY: usize = 10;

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the endpoint of an attempt, by [`super::endpoint::Endpoint::id`].
    pub fn note(&mut self, id: u64) {
        self.ids[self.noted % Self::CAPACITY] = id;
        self.noted += 1;
    }

    /// True where the endpoint was tried.
    pub fn contains(&self, id: u64) -> bool {
        self.ids[..self.noted.min(Self::CAPACITY)].contains(&id)
    }

    /// True before the first attempt.
    pub fn is_empty(&self) -> bool {
        self.noted == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_ten() {
        let mut tried = Tried::new();
        assert!(tried.is_empty() && !tried.contains(0));
        for id in 1..=11 {
            tried.note(id);
        }
        assert!(!tried.contains(1) && (2..=11).all(|id| tried.contains(id)));
    }
}
