//! Connections into the guest that are over, by their ends. The guest's end of one that the guest ended waits there for a minute (TIME-WAIT,
//! RFC 9293 §3.3.2), and takes a new one with the same ends only if its numbers go on from the old one's, which those of ours do not: it
//! would come about at the second try, a second later.

use super::tcp::Key;
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How long Linux and the BSDs wait at most.
const WAIT: Duration = Duration::from_secs(60);
/// Most that are remembered: half of the ports that connections can come from, so that there is always another.
const MOST: usize = 32 << 10;

/// Ends of connections that were.
#[derive(Default)]
pub struct Recent {
    keys: HashSet<Key>,
    order: VecDeque<(Instant, Key)>,
}

impl Recent {
    /// A connection has ended.
    pub fn add(&mut self, key: Key, now: Instant) {
        self.forget(now);
        if self.keys.insert(key) {
            self.order.push_back((now, key));
        }
        if self.order.len() > MOST
            && let Some((_, key)) = self.order.pop_front()
        {
            self.keys.remove(&key);
        }
    }

    /// Those that are no longer waited for.
    pub fn forget(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= WAIT) {
            self.keys.remove(&key);
        }
    }

    /// Whether there was one with these ends.
    pub fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    #[test]
    fn connections_are_remembered_for_a_minute_and_not_without_end() {
        let key = |port: u16| {
            let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Key { guest: at(22), remote: at(port) }
        };
        let (mut recent, start) = (Recent::default(), Instant::now());
        recent.add(key(1), start);
        recent.add(key(2), start + Duration::from_secs(30));
        recent.forget(start + Duration::from_secs(59));
        assert!(recent.contains(&key(1)) && recent.contains(&key(2)) && !recent.contains(&key(3)));
        recent.forget(start + WAIT);
        assert!(!recent.contains(&key(1)) && recent.contains(&key(2)));
        (0..=u16::MAX).for_each(|port| recent.add(key(port), start + WAIT));
        assert_eq!((recent.keys.len(), recent.order.len()), (MOST, MOST));
    }
}
