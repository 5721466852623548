//! The connections that are open: how many, whose, and which one is closed for a new one. A client may have as many as are free
//! (see [`super::share`]); where it has, or all are taken, the one that has rested longest among those of the client with
//! the most gives way. So there is always room for a client that has none, however many connections others hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Client, share::has_room};

/// Handshakes of TLS that one client has under way at a time.
pub(crate) const HANDSHAKES: usize = 8;
/// Connections at a time.
pub(crate) const MOST: usize = 1000;

#[derive(Debug)]
struct Entry {
    client: Client,
    /// The number of its last reply, or of its opening; of two the one with the smaller number rests longer.
    used: u64,
    close: CancellationToken,
}

/// All is kept in order, so that a flood of connections costs little more than as many that have room.
#[derive(Debug, Default)]
struct Table {
    /// Numbers of connections and of uses are given out one after the other.
    next: u64,
    entries: HashMap<u64, Entry>,
    by: HashMap<Client, Own>,
    ranks: BTreeSet<Rank>,
}

/// Who gives way: the last in order, who has the most connections, and of those the one whose connection has rested longest.
type Rank = (usize, Reverse<u64>, Client);

/// What the connections of one client have together.
#[derive(Debug)]
struct Own {
    /// The connections, by their last use.
    by_use: BTreeMap<u64, u64>,
    turn: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        let [turn, handshakes] = [1, HANDSHAKES].map(|most| Arc::new(Semaphore::new(most)));
        Self { by_use: BTreeMap::new(), turn, handshakes }
    }
}

impl Own {
    /// `None` where it has no connection.
    fn rank(&self, client: Client) -> Option<Rank> {
        let (longest, _) = self.by_use.first_key_value()?;
        Some((self.by_use.len(), Reverse(*longest), client))
    }
}

/// The open connections. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Arc<Mutex<Table>>);

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Open,
    id: u64,
    /// One of a client's questions is worked on at a time: those of its other connections do not stand in the way of other clients' ones.
    pub(crate) turn: Arc<Semaphore>,
    /// The client's handshakes, for which its questions do not wait.
    pub(crate) handshakes: Arc<Semaphore>,
    /// Cancelled when the connection is to give way.
    pub(crate) close: CancellationToken,
}

impl Open {
    /// A place for a connection of `client`, and whether another one gave way for it.
    pub(crate) fn place(&self, client: Client) -> (Place, bool) {
        let mut table = self.table();
        let replaced = table.replaced(client);
        if let Some(entry) = replaced.and_then(|id| table.remove(id)) {
            entry.close.cancel();
        }
        let (id, used, close) = (table.number(), table.number(), CancellationToken::new());
        table.entries.insert(id, Entry { client, used, close: close.clone() });
        let (turn, handshakes) = table.change(client, |own| {
            own.by_use.insert(used, id);
            (own.turn.clone(), own.handshakes.clone())
        });
        (Place { open: self.clone(), id, turn, handshakes, close }, replaced.is_some())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Which connection gives way for a new one of `client`, if one has to.
    fn replaced(&self, client: Client) -> Option<u64> {
        let own = self.by.get(&client).map_or(0, |own| own.by_use.len());
        if has_room(own, self.entries.len(), MOST) {
            return None;
        }
        let (_, Reverse(used), client) = self.ranks.last()?;
        self.by.get(client)?.by_use.get(used).copied()
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.change(entry.client, |own| own.by_use.remove(&entry.used));
        Some(entry)
    }

    /// A reply was sent on a connection, unless it has given way.
    fn used(&mut self, id: u64) {
        let now = self.number();
        if let Some(entry) = self.entries.get_mut(&id) {
            let (client, before) = (entry.client, std::mem::replace(&mut entry.used, now));
            self.change(client, |own| {
                own.by_use.remove(&before);
                own.by_use.insert(now, id)
            });
        }
    }

    /// Changes what a client has, and its rank with it.
    fn change<T>(&mut self, client: Client, change: impl FnOnce(&mut Own) -> T) -> T {
        let own = self.by.entry(client).or_default();
        if let Some(rank) = own.rank(client) {
            self.ranks.remove(&rank);
        }
        let changed = change(own);
        match own.rank(client) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.by.remove(&client);
            }
        }
        changed
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Place {
    /// A reply was sent.
    pub(crate) fn used(&self) {
        self.open.table().used(self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.table().remove(self.id);
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
        assert_eq!(open.table().entries.len(), 598);
        drop((flood, good));
        let table = open.table();
        assert_eq!((table.entries.len(), table.by.len(), table.ranks.len()), (0, 0, 0));
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
        assert_eq!(open.table().entries.len(), MOST);
        places.extend([open.place(client(2)).0, open.place(client(2)).0]);
        assert_eq!(closed(&places), [0, 2, 3, 1001], "who has more than others gives way first");
    }

    #[test]
    fn whoever_comes_goes_and_asks_the_one_gives_way_that_a_look_at_all_would_find() {
        let (open, mut places) = (Open::default(), vec![]);
        let mut state = 7_u64;
        for step in 0..4000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (kind, index) = (state >> 33 & 7, usize::try_from(state >> 40).unwrap());
            match (kind, places.len()) {
                (0, 1..) => drop(places.swap_remove(index % places.len())),
                (1..3, 1..) => Place::used(&places[index % places.len()]),
                _ => {
                    // Some have many, others one or two.
                    let client = Client::number((state >> 40 & 0x3f).pow(2));
                    let expected = looked_for(&open.table(), client);
                    assert_eq!(open.table().replaced(client), expected, "in step {step}");
                    places.push(open.place(client).0);
                }
            }
            if step % 500 == 0 {
                places.retain(|place| !place.close.is_cancelled());
            }
        }
        assert!(open.table().entries.len() > MOST / 2);
    }

    /// Which connection gives way for a new one of `client`, by a look at all.
    fn looked_for(table: &Table, client: Client) -> Option<u64> {
        let mut counts: HashMap<Client, usize> = HashMap::new();
        table.entries.values().for_each(|entry| *counts.entry(entry.client).or_default() += 1);
        if has_room(counts.get(&client).copied().unwrap_or_default(), table.entries.len(), MOST) {
            return None;
        }
        let all = table.entries.iter().map(|(id, entry)| (counts[&entry.client], Reverse(entry.used), *id));
        all.max().map(|(_, _, id)| id)
    }
}
