//! Where regions are left for tier 0 again and again because a check covers bytes of two pages.

use std::time::{Duration, Instant};

/// Side exits at one address after which its regions are made differently: about what compiling one costs.
const OFTEN: u32 = 1024;
/// Changes of the page between those from which on something is walked through: checks that cover one access each would cost every
/// round, the exits only one now and then.
const MOVES: u32 = OFTEN / 64;
/// What is walked through fast enough to reach [`OFTEN`] within this time leaves at many of its rounds.
const SOON: Duration = Duration::from_millis(25);
/// Places for addresses.
const SITES: usize = 256;

/// An address that regions are left at, since another one had its place.
#[derive(Clone, Copy)]
struct Site {
    ip: u64,
    times: u32,
    /// The page whose end was reached over last, and how often it was another one.
    page: u64,
    moves: u32,
    since: Option<Instant>,
}
/// See the module.
pub(crate) struct Sides {
    /// By hash of the address.
    met: Box<[Site; SITES]>,
    /// The page whose end a check that failed reaches over, until the region is left for it.
    crossed: Option<u64>,
    /// The address that was noted last has been met often.
    pub often: bool,
}
impl Sides {
    pub fn new() -> Sides {
        let none = Site { ip: 0, times: 0, page: 0, moves: 0, since: None };
        Sides { met: super::tlb::boxed(none), crossed: None, often: false }
    }
    /// A check for an access to the linear address `la` failed, which may begin that far from its page's beginning, at most.
    pub fn failed(&mut self, la: u64, limit: u64) {
        self.crossed = (la & 0xfff > limit).then_some(la >> 12)
    }
    /// A region was left at `ip`. True once checks there should cover one access each.
    pub fn note(&mut self, ip: u64, now: impl Fn() -> Instant) -> bool {
        let Some(page) = self.crossed.take() else { return self.often };
        let site = &mut self.met[(ip.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SITES];
        if site.ip != ip || site.times == 0 {
            *site = Site { ip, times: 0, page, moves: 0, since: Some(now()) }
        }
        site.times += 1;
        site.moves += u32::from(site.page != page);
        site.page = page;
        if site.times == OFTEN {
            site.times = 0;
            self.often = site.moves < MOVES || site.since.is_some_and(|s| now().duration_since(s) < SOON)
        }
        self.often
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves `times` times, before an access at the address and the time in milliseconds that `at` gives.
    fn leave(times: u32, at: impl Fn(u32) -> (u64, u32)) -> bool {
        let (mut s, start) = (Sides::new(), Instant::now());
        (0..times).any(|i| {
            let (la, ms) = at(i);
            s.failed(la, 0xff0);
            s.note(0x40_1000, || start + Duration::from_millis(ms.into()))
        })
    }
    #[test]
    fn an_object_across_pages_is_found_however_rare() {
        assert!(!leave(OFTEN - 1, |i| (0x7ff8, 10 * i)));
        assert!(leave(OFTEN, |i| (0x7ff8, 10 * i)));
    }
    #[test]
    fn what_is_walked_through_is_found_only_if_it_leaves_all_the_time() {
        let walk = |i: u32| 0x7ffc + u64::from(i / 4) * 0x1000;
        assert!(!leave(10 * OFTEN, |i| (walk(i), i)));
        assert!(leave(OFTEN, |i| (walk(i), i / 64)));
    }
    #[test]
    fn what_does_not_reach_over_an_end_does_not_count() {
        assert!(!leave(10 * OFTEN, |_| (0x7000, 0)));
    }
}
