//! How many connections each client has to a listener, over all threads.
//!
//! Start at [`Clients::take`]. A client is known while it has a connection, so there are never more
//! entries than connections, whose number has a limit of its own.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client_of;

/// Threads meet over a lock by a chance of one in so many.
const SHARDS: usize = 16;

#[derive(Default)]
pub struct Clients {
    /// Its key is nobody's to know: nobody can crowd one shard.
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// One of a client's connections. It counts as long as this lives.
pub struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// Counts one more connection from `address`, unless its client has as many as `most` already.
    pub fn take(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<Seat> {
        let client = client_of(address);
        let mut shard = self.shard(client);
        let count = shard.get(&client).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        shard.insert(client, count + 1);
        drop(shard);
        Some(Seat { clients: self.clone(), client })
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let place = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client);
        match shard.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(shard.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(clients: &Clients) -> usize {
        clients.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn a_client_has_so_many_at_a_time_and_is_forgotten_with_the_last() {
        let clients = Arc::new(Clients::default());
        let take = |address: &str| clients.take(address.parse().unwrap(), 2);
        let (first, second) = (take("203.0.113.9"), take("::ffff:203.0.113.9"));
        assert!(first.is_some() && second.is_some() && take("203.0.113.9").is_none());
        let other = (take("2001:db8::1"), take("2001:db8::2"), take("2001:db8:0:1::1"));
        assert!(other.0.is_some() && other.1.is_some() && other.2.is_some());
        assert!(take("2001:db8::3").is_none(), "a network is one client");
        drop(first);
        assert!(take("203.0.113.9").is_some());
        drop((second, other));
        assert_eq!(known(&clients), 0);
    }

    #[test]
    fn no_count_is_lost_among_threads() {
        let clients = Arc::new(Clients::default());
        let address = "203.0.113.9".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let seats = [clients.take(address, 3), clients.take(address, 3)];
                        assert!(seats.iter().flatten().count() <= 2);
                    }
                });
            }
        });
        assert_eq!(known(&clients), 0);
    }
}
