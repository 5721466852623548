//! A bounded number of things that clients share: each may have as many as are free, so that one alone has half of them at most, two
//! have a third each, and there is always something left for one that has none (dynamic thresholds: Choudhury and Hahne, 1998).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Client;

/// Whether a client that has `own` of the `taken` ones may have another one of `most`.
pub(crate) fn has_room(own: usize, taken: usize, most: usize) -> bool {
    own < most.saturating_sub(taken)
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Client, usize>,
}

/// Who has how many. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares(Arc<Mutex<Taken>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    client: Client,
    shares: Shares,
}

impl Shares {
    /// One more for `client`, where all clients together have `most` at most.
    pub(crate) fn take(&self, client: Client, most: usize) -> Option<Permit> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by.get(&client).copied().unwrap_or_default();
        if !has_room(own, taken.all, most) {
            return None;
        }
        taken.by.insert(client, own + 1);
        taken.all += 1;
        Some(Permit { client, shares: self.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(shares: &Shares, client: u64, most: usize) -> Vec<Permit> {
        std::iter::from_fn(|| shares.take(Client::number(client), most)).collect()
    }

    #[test]
    fn one_client_has_half_and_leaves_room_for_those_that_have_none() {
        let shares = Shares::default();
        let first = all_of(&shares, 1, 1000);
        assert_eq!(first.len(), 500);
        let second = all_of(&shares, 2, 1000);
        assert_eq!(second.len(), 250);
        assert!(shares.take(Client::number(1), 1000).is_none());
        for other in 3..13 {
            assert!(shares.take(Client::number(other), 1000).is_some());
        }
        drop((first, second));
        let taken = shares.0.lock().unwrap();
        assert_eq!((taken.all, taken.by.len()), (0, 0), "nothing is left of clients that are gone");
    }

    #[test]
    fn all_together_never_have_more_than_there_are() {
        let shares = Shares::default();
        let all: Vec<Vec<Permit>> = (0..100).map(|client| all_of(&shares, client, 10)).collect();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 10);
        assert_eq!(all_of(&Shares::default(), 1, 1).len(), 1);
    }
}
