//! Things that come and go, kept in one vector.

/// The place of a thing, and which of all that were ever there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    index: u32,
    generation: u32,
}

/// Things by [`Id`]. One that is gone is never found again, although its place is used anew.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, thing: T) -> Id {
        if let Some(index) = self.free.pop() {
            let (generation, place) = &mut self.places[index as usize];
            *place = Some(thing);
            return Id { index, generation: *generation };
        }
        // More than 2^32 at once do not fit into memory.
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(thing)));
        Id { index, generation: 0 }
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        let (generation, place) = self.places.get(id.index as usize)?;
        place.as_ref().filter(|_| *generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let (generation, place) = self.places.get_mut(id.index as usize)?;
        place.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let (generation, place) = self.places.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let thing = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.index);
        Some(thing)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let places = std::mem::take(&mut self.places);
        self.free.clear();
        places.into_iter().filter_map(|(_, thing)| thing)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_found_in_its_place() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_ne!(first, second);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!((slab.get(second), slab.len()), (Some(&'b'), 1));
    }
}
