//! A set that mostly has no element or one, and takes no memory of its own then.

use std::slice;

/// A set of few elements. Two with the same elements are equal, in whatever order they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T>(Held<T>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Held<T> {
    None,
    One(T),
    /// Two or more, ascending.
    More(Box<[T]>),
}

impl<T> Few<T> {
    /// The elements, ascending.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.as_slice().iter()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Held::None)
    }

    /// The element, where there is one and no other.
    #[must_use]
    pub fn only(&self) -> Option<&T> {
        match &self.0 {
            Held::One(only) => Some(only),
            Held::None | Held::More(_) => None,
        }
    }

    fn as_slice(&self) -> &[T] {
        match &self.0 {
            Held::None => &[],
            Held::One(only) => slice::from_ref(only),
            Held::More(all) => all,
        }
    }

    fn into_vec(self) -> Vec<T> {
        match self.0 {
            Held::None => Vec::new(),
            Held::One(only) => vec![only],
            Held::More(all) => all.into_vec(),
        }
    }
}

impl<T: Ord> Few<T> {
    /// Whether the element is there.
    #[must_use]
    pub fn contains(&self, element: &T) -> bool {
        self.as_slice().binary_search(element).is_ok()
    }

    /// Adds an element that may be there already.
    pub fn insert(&mut self, element: T) {
        if !self.contains(&element) {
            let all = std::mem::take(self).into_vec();
            *self = all.into_iter().chain([element]).collect();
        }
    }

    /// Takes an element out that need not be there.
    pub fn remove(&mut self, element: &T) {
        if self.contains(element) {
            let all = std::mem::take(self).into_vec();
            *self = all.into_iter().filter(|held| held != element).collect();
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Held::None)
    }
}

impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut elements = elements.into_iter();
        let Some(first) = elements.next() else { return Self::default() };
        let Some(second) = elements.next() else { return Self(Held::One(first)) };
        let mut all: Vec<T> = [first, second].into_iter().chain(elements).collect();
        all.sort_unstable();
        all.dedup();
        match all.pop() {
            Some(only) if all.is_empty() => Self(Held::One(only)),
            last => Self(Held::More(all.into_iter().chain(last).collect())),
        }
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Few<T> {
    fn from(elements: [T; N]) -> Self {
        elements.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{address::Address, name::ObjectName};

    #[test]
    fn one_element_takes_no_memory_of_its_own() {
        assert!(size_of::<Few<Address>>() <= 24 && size_of::<Few<ObjectName>>() <= 40);
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((any::<bool>(), 0..5_u8), 0..20)) {
            let (mut few, mut set) = (Few::default(), BTreeSet::new());
            for (comes, element) in changes {
                if comes {
                    few.insert(element);
                    set.insert(element);
                } else {
                    few.remove(&element);
                    set.remove(&element);
                }
                prop_assert!(few.iter().eq(set.iter()) && few.len() == set.len());
                prop_assert_eq!(few.is_empty(), set.is_empty());
                prop_assert_eq!(few.only(), set.first().filter(|_| set.len() == 1));
                prop_assert!((0..5).all(|element| few.contains(&element) == set.contains(&element)));
                prop_assert_eq!(&few, &set.iter().rev().copied().chain(set.first().copied()).collect());
            }
        }
    }
}
