//! Places for connections, numbered from 0, each number used again when its connection is gone.

/// A vector with holes.
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// Puts in what `make` makes of its number.
    pub(crate) fn insert_with<E>(&mut self, make: impl FnOnce(usize) -> Result<T, E>) -> Result<usize, E> {
        let at = self.free.last().copied().unwrap_or(self.places.len());
        let value = make(at)?;
        match self.places.get_mut(at) {
            Some(place) => {
                *place = Some(value);
                self.free.pop();
            }
            None => self.places.push(Some(value)),
        }
        Ok(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.places.get_mut(at)?.as_mut()
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let value = self.places.get_mut(at)?.take()?;
        self.free.push(at);
        Some(value)
    }

    /// Those in use, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.places.iter().enumerate().filter_map(|(at, place)| Some((at, place.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_number_is_used_again() {
        let mut slots = Slots::new();
        let put = |slots: &mut Slots<usize>| slots.insert_with(Ok::<_, ()>).unwrap();
        assert_eq!((put(&mut slots), put(&mut slots)), (0, 1));
        assert_eq!(slots.remove(0), Some(0));
        assert_eq!(slots.remove(0), None);
        assert!(slots.insert_with(|_| Err("refused")).is_err());
        assert_eq!((put(&mut slots), put(&mut slots)), (0, 2));
        assert_eq!(slots.iter().count(), 3);
    }
}
