//! The connections that are open: how many, whose, and which one is closed for a new one. A client may have as many as are free
//! (see [`super::share`]); where it has, or all are taken, the one that has rested longest among those of the client with
//! the most gives way. So there is always room for a client that has none, however many connections others hold.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Client, share::has_room};

/// Connections at a time.
pub(crate) const MOST: usize = 1000;

#[derive(Debug)]
struct Entry {
    client: Client,
    /// When it last had a reply, or was opened; of two the one with the smaller number rests longer.
    used: Arc<AtomicU64>,
    close: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
    by: HashMap<Client, Own>,
}

/// What the connections of one client have together.
#[derive(Debug)]
struct Own {
    connections: usize,
    turn: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        Self { connections: 0, turn: Arc::new(Semaphore::new(1)) }
    }
}

/// The open connections. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    table: Arc<Mutex<Table>>,
    uses: Arc<AtomicU64>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Open,
    id: u64,
    used: Arc<AtomicU64>,
    /// One of a client's questions is worked on at a time: those of its other connections do not stand in the way of other clients' ones.
    pub(crate) turn: Arc<Semaphore>,
    /// Cancelled when the connection is to give way.
    pub(crate) close: CancellationToken,
}

impl Open {
    /// A place for a connection of `client`, and whether another one gave way for it.
    pub(crate) fn place(&self, client: Client) -> (Place, bool) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = table.replaced(client);
        if let Some(entry) = replaced.and_then(|id| table.remove(id)) {
            entry.close.cancel();
        }
        let (id, used, close) =
            (table.next, Arc::new(AtomicU64::new(self.use_number())), CancellationToken::new());
        table.next += 1;
        let own = table.by.entry(client).or_default();
        own.connections += 1;
        let turn = own.turn.clone();
        table.entries.insert(id, Entry { client, used: used.clone(), close: close.clone() });
        (Place { open: self.clone(), id, used, turn, close }, replaced.is_some())
    }

    fn use_number(&self) -> u64 {
        self.uses.fetch_add(1, Relaxed)
    }
}

impl Table {
    /// Which connection gives way for a new one of `client`, if one has to.
    fn replaced(&self, client: Client) -> Option<u64> {
        let own = self.by.get(&client).map_or(0, |own| own.connections);
        if has_room(own, self.entries.len(), MOST) {
            return None;
        }
        let most = self.by.values().map(|own| own.connections).max()?;
        let has_most = |client| self.by.get(client).is_some_and(|own| own.connections == most);
        let of_those = self.entries.iter().filter(|(_, entry)| has_most(&entry.client));
        of_those.min_by_key(|(_, entry)| entry.used.load(Relaxed)).map(|(id, _)| *id)
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(own) = self.by.get_mut(&entry.client) {
            own.connections -= 1;
            if own.connections == 0 {
                self.by.remove(&entry.client);
            }
        }
        Some(entry)
    }
}

impl Place {
    /// A reply was sent.
    pub(crate) fn used(&self) {
        self.used.store(self.open.use_number(), Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.table.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::of([10, 0, 0, last].into())
    }

    fn closed(places: &[Place]) -> Vec<usize> {
        let places = places.iter().enumerate();
        places.filter(|(_, place)| place.close.is_cancelled()).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_client_with_many_connections_closes_its_own_and_others_have_room() {
        let open = Open::default();
        let mut flood: Vec<Place> = (0..500).map(|_| open.place(client(1)).0).collect();
        assert_eq!(closed(&flood), [0; 0]);
        flood[0].used();
        flood.push(open.place(client(1)).0);
        assert_eq!(closed(&flood), [1], "the one that has rested longest");
        let good: Vec<(Place, bool)> = (2..100).map(|last| open.place(client(last))).collect();
        assert!(good.iter().all(|(_, replaced)| !replaced));
        flood.extend((0..1000).map(|_| open.place(client(1)).0));
        assert!(good.iter().all(|(place, _)| !place.close.is_cancelled()));
        assert_eq!(open.table.lock().unwrap().entries.len(), 598);
        drop((flood, good));
        let table = open.table.lock().unwrap();
        assert_eq!((table.entries.len(), table.by.len()), (0, 0));
    }

    #[test]
    fn when_all_are_taken_by_as_many_clients_the_one_that_rested_longest_gives_way() {
        let open = Open::default();
        let mut places: Vec<Place> =
            (0..MOST).map(|index| open.place(Client::number(index as u64)).0).collect();
        assert_eq!(closed(&places), [0; 0]);
        let (new, replaced) = open.place(client(1));
        assert_eq!((replaced, closed(&places)), (true, vec![0]));
        places.push(new);
        places[1].used();
        places.push(open.place(client(2)).0);
        assert_eq!(closed(&places), [0, 2]);
        assert_eq!(open.table.lock().unwrap().entries.len(), MOST);
        places.extend([open.place(client(2)).0, open.place(client(2)).0]);
        assert_eq!(closed(&places), [0, 2, 3, 1001], "who has more than others gives way first");
    }
}
