//! What of a flood the kernel lets into a socket's queue at all. To forget a datagram that was received takes the server time, and
//! the queue may be full all the same; the kernel's filter takes the sender's. Each client that sends more than its part in a round
//! of overload is let through by chance, with the share that would have been its part, and less with each such round; while
//! there is no overload, twice as much again and again, until the client is as free as others.

use super::Client;

/// Clients that are held back at a time.
pub(crate) const MOST: usize = 8;
/// How often more is let through, in nanoseconds.
const EASE: u64 = 100_000_000;
/// Nothing less is let through: a client that stops to flood is seen.
const LEAST: f64 = 1e-4;

/// The clients that are held back, and what share of their datagrams is let through.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    clients: Vec<(Client, f64)>,
    changed: bool,
    /// When more was let through, or less, the last time.
    eased: u64,
}

impl Sieve {
    /// Lets through this share of what was let through of `client`.
    pub(crate) fn narrow(&mut self, client: Client, share: f64) {
        let index = match self.clients.iter().position(|(held, _)| *held == client) {
            Some(index) => index,
            None if self.clients.len() == MOST => return,
            None => {
                self.clients.push((client, 1.0));
                self.clients.len() - 1
            }
        };
        let (_, through) = &mut self.clients[index];
        *through = (*through * share).clamp(LEAST, 1.0);
        self.changed = true;
    }

    /// Lets through more at times; `overload` keeps it as it is.
    pub(crate) fn ease(&mut self, now: u64, overload: bool) {
        if self.clients.is_empty() || overload || self.changed {
            self.eased = now;
        } else if now.saturating_sub(self.eased) >= EASE {
            self.eased = now;
            self.changed = true;
            self.clients.iter_mut().for_each(|(_, through)| *through *= 2.0);
            self.clients.retain(|(_, through)| *through < 1.0);
        }
    }

    /// What holds from now on, where it is not what has been told.
    pub(crate) fn change(&mut self) -> Option<&[(Client, f64)]> {
        std::mem::take(&mut self.changed).then_some(&self.clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Client = Client::number(1);

    #[test]
    fn a_flood_is_narrowed_until_it_fits_and_eased_until_it_is_free() {
        let mut sieve = Sieve::default();
        assert_eq!(sieve.change(), None);
        sieve.narrow(A, 0.5);
        sieve.narrow(A, 0.5);
        sieve.ease(EASE, true);
        assert_eq!(sieve.change(), Some(&[(A, 0.25)][..]));
        for (now, overload, expected) in [
            (2 * EASE - 1, false, None),
            (2 * EASE, true, None),
            (3 * EASE - 1, false, None),
            (3 * EASE, false, Some(&[(A, 0.5)][..])),
            (4 * EASE, false, Some(&[][..])),
            (5 * EASE, false, None),
        ] {
            sieve.ease(now, overload);
            assert_eq!(sieve.change(), expected, "{now}");
        }
    }

    #[test]
    fn only_so_many_are_held_back_and_none_for_good() {
        let mut sieve = Sieve::default();
        for client in 0..20 {
            (0..100).for_each(|_| sieve.narrow(Client::number(client), 0.1));
        }
        let held = sieve.change().unwrap();
        assert!(held.len() == MOST && held.iter().all(|(_, through)| *through == LEAST), "{held:?}");
    }
}
