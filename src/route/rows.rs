//! Sets of routes, as the index computes with them: bits of a block.

/// Routes per block, so that a set fits in two cache lines of the stack.
pub(super) const BLOCK: usize = 1024;

const WORDS: usize = BLOCK / 64;

/// A place within a block, below [`BLOCK`].
pub(super) type Row = u16;

/// A set of rows. Sets that meet in one operation are of one block, so of one length.
#[derive(Debug, Clone)]
pub(super) struct RowSet {
    words: [u64; WORDS],
    /// Words in use; those beyond are zero. Keeps the cost of small tables small.
    used: usize,
}

impl RowSet {
    /// No row of a block of `len` rows.
    pub(super) fn empty(len: usize) -> Self {
        debug_assert!(len <= BLOCK);
        Self { words: [0; WORDS], used: len.div_ceil(64).min(WORDS) }
    }

    /// All rows of a block of `len` rows.
    pub(super) fn full(len: usize) -> Self {
        let mut set = Self::empty(len);
        (0..len.min(BLOCK)).for_each(|row| set.set(row));
        set
    }

    pub(super) fn insert(&mut self, row: Row) {
        self.set(usize::from(row));
    }

    fn set(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
    }

    pub(super) fn unite(&mut self, other: &Self) {
        for (mine, theirs) in self.words[..self.used].iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    pub(super) fn intersect(&mut self, other: &Self) {
        for (mine, theirs) in self.words[..self.used].iter_mut().zip(&other.words) {
            *mine &= theirs;
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.words[..self.used].iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
    }

    /// Whether there are at most `count` rows. Costs at most one step per word and `count`.
    pub(super) fn at_most(&self, count: usize) -> bool {
        let mut seen = 0;
        for &word in &self.words[..self.used] {
            let mut word = word;
            while word != 0 {
                seen += 1;
                if seen > count {
                    return false;
                }
                word &= word - 1;
            }
        }
        true
    }

    /// The rows, lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words[..self.used].iter().enumerate().flat_map(|(index, &word)| {
            std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|&word| word != 0)
                .map(move |word| index * 64 + word.trailing_zeros() as usize)
        })
    }
}

/// A set that is kept: a list while short, bits once that is less work to add.
#[derive(Debug, Clone)]
pub(super) enum Rows {
    /// In ascending order.
    Few(Vec<Row>),
    /// More than [`Rows::FEW`].
    Many(Box<RowSet>),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Rows {
    const FEW: usize = 16;

    /// Adds a row of a block of `len` rows.
    pub(super) fn insert(&mut self, row: Row, len: usize) {
        match self {
            Self::Few(rows) if rows.last() == Some(&row) => {}
            Self::Few(rows) if rows.len() < Self::FEW => rows.push(row),
            Self::Few(rows) => {
                let mut set = RowSet::empty(len);
                rows.iter().chain([&row]).for_each(|&row| set.insert(row));
                *self = Self::Many(Box::new(set));
            }
            Self::Many(set) => set.insert(row),
        }
    }

    /// Adds these rows to `set`.
    pub(super) fn add_to(&self, set: &mut RowSet) {
        match self {
            Self::Few(rows) => rows.iter().for_each(|&row| set.insert(row)),
            Self::Many(rows) => set.unite(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_lists_hold_beyond_the_switch() {
        for count in [0, 1, 16, 17, 64, 65, 1000, BLOCK] {
            let mut rows = Rows::default();
            (0..count).for_each(|row| rows.insert(Row::try_from(row).unwrap(), count));
            let mut set = RowSet::empty(count);
            rows.add_to(&mut set);
            assert_eq!(set.iter().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            assert_eq!(RowSet::full(count).iter().count(), count);
            assert!(set.at_most(count) && (count == 0 || !set.at_most(count - 1)));
        }
    }

    #[test]
    fn intersection_keeps_what_both_have() {
        let mut set = RowSet::full(200);
        let mut low = RowSet::empty(200);
        (0..=64).for_each(|row| low.insert(row));
        let mut other = RowSet::empty(200);
        [3, 64, 199].into_iter().for_each(|row| other.insert(row));
        set.intersect(&other);
        set.intersect(&low);
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 64]);
    }
}
