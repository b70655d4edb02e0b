//! The one source of randomness: seeded, owned by a worker, passed as an argument.

use std::time::Duration;

/// A small seeded generator (wyrand, through `fastrand`): not for secrets.
///
/// Policies take `&mut Rng`, so that a test with the same seed sees the same choices.
#[derive(Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A generator that always yields the same sequence for `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A generator seeded by the system.
    pub fn from_entropy() -> Self {
        Self(fastrand::Rng::new())
    }

    /// Uniform in `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.usize(..bound) }
    }

    /// Uniform in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        self.0.f64()
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Uniform in `0..=max`.
    pub fn duration_up_to(&mut self, max: Duration) -> Duration {
        max.mul_f64(self.0.f64())
    }

    /// `text` with up to four of its bytes replaced, inserted (those of `likely`, that mean something there), or removed: near enough
    /// to what is right to get past a parser's first line.
    #[cfg(test)]
    pub fn damaged(&mut self, text: &[u8], likely: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len().max(1));
            match (self.below(4), text.is_empty()) {
                (_, true) | (0, _) => {
                    text.insert(at.min(text.len()), likely[self.below(likely.len())]);
                }
                (1, _) => text[at] = likely[self.below(likely.len())],
                (2, _) => text[at] = self.bits().to_le_bytes()[0],
                _ => drop(text.remove(at)),
            }
        }
        text
    }
}
