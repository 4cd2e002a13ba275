//! Which requests wait for others: two that overlap, one of them changing bytes, run one after the other.

use std::collections::VecDeque;

/// A range of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: u64,
    pub end: u64,
    pub changes: bool,
}

impl Range {
    fn conflicts(&self, other: &Self) -> bool {
        (self.changes || other.changes) && self.start < other.end && other.start < self.end
    }
}

/// Requests in flight and those that wait for them.
pub(crate) struct Tracker<T> {
    next: u64,
    active: Vec<(u64, Range)>,
    waiting: VecDeque<(u64, Range, T)>,
}

impl<T> Default for Tracker<T> {
    fn default() -> Self {
        Self { next: 0, active: vec![], waiting: VecDeque::new() }
    }
}

impl<T> Tracker<T> {
    /// Takes a request; Some: it may start now, under this ticket.
    pub fn enter(&mut self, range: Range, item: T) -> Option<(u64, T)> {
        self.next += 1;
        let held = self.active.iter().map(|a| &a.1).chain(self.waiting.iter().map(|w| &w.1));
        if held.into_iter().any(|r| r.conflicts(&range)) {
            self.waiting.push_back((self.next, range, item));
            return None;
        }
        self.active.push((self.next, range));
        Some((self.next, item))
    }

    /// Whether there are no requests.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// A request has ended: those that may start now.
    pub fn leave(&mut self, ticket: u64) -> Vec<(u64, T)> {
        self.active.retain(|a| a.0 != ticket);
        let (mut started, mut kept) = (vec![], VecDeque::new());
        for (id, range, item) in std::mem::take(&mut self.waiting) {
            let blocked = self.active.iter().map(|a| &a.1).chain(kept.iter().map(|(_, r, _)| r));
            if blocked.into_iter().any(|r| r.conflicts(&range)) {
                kept.push_back((id, range, item));
            } else {
                self.active.push((id, range));
                started.push((id, item));
            }
        }
        self.waiting = kept;
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64, changes: bool) -> Range {
        Range { start, end, changes }
    }

    #[test]
    fn writes_to_one_place_keep_their_order() {
        let mut t = Tracker::default();
        let (a, _) = t.enter(range(0, 10, true), 'a').unwrap();
        assert_eq!(t.enter(range(5, 6, false), 'b'), None);
        assert_eq!(t.enter(range(5, 20, true), 'c'), None);
        assert!(t.enter(range(20, 30, true), 'd').is_some());
        let started = t.leave(a);
        assert_eq!(started.iter().map(|s| s.1).collect::<Vec<_>>(), ['b']);
        let started = t.leave(started[0].0);
        assert_eq!(started.iter().map(|s| s.1).collect::<Vec<_>>(), ['c']);
    }

    #[test]
    fn reads_do_not_wait_for_reads_but_for_a_write_that_waits() {
        let mut t = Tracker::default();
        let (a, _) = t.enter(range(0, 10, false), 'a').unwrap();
        let (b, _) = t.enter(range(0, 10, false), 'b').unwrap();
        assert_eq!(t.enter(range(0, 1, true), 'c'), None);
        assert_eq!(t.enter(range(0, 1, false), 'd'), None);
        assert!(t.leave(a).is_empty());
        assert_eq!(t.leave(b).len(), 1);
    }
}
