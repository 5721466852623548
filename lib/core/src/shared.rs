//! Values that many objects have in common, kept once: names of namespaces and nodes, labels.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// The values that somebody has of late.
#[derive(Debug)]
pub struct Shared<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// With so many it is time to forget those that nobody has any more.
    full: usize,
}

/// Fewer values than these are not worth a look.
const FEW: usize = 64;

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), full: FEW }
    }
}

impl<T: Eq + Hash + ?Sized> Shared<T> {
    /// The one copy of a value; `copy` makes it where there is none yet.
    pub fn get(&mut self, value: &T, copy: impl FnOnce(&T) -> Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.full {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.full = FEW.max(2 * self.values.len());
        }
        let value = copy(value);
        self.values.insert(Arc::clone(&value));
        value
    }
}

impl Shared<str> {
    /// The one copy of a text.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        self.get(text, |text| text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut shared = Shared::<str>::default();
        let [first, second, other] = ["a", "a", "b"].map(|text| shared.text(text));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
        assert_eq!((&*first, &*other), ("a", "b"));
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let mut shared = Shared::<str>::default();
        let kept: Vec<_> = (0..FEW).map(|number| shared.text(&format!("kept-{number}"))).collect();
        for number in 0..100 * FEW {
            shared.text(&format!("gone-{number}"));
        }
        assert!(shared.values.len() <= 2 * FEW, "{}", shared.values.len());
        assert!(Arc::ptr_eq(&kept[0], &shared.text("kept-0")));
    }
}
