//! Where regions are left for tier 0 again and again because a check covers bytes of two pages, or are not left, but look for them
//! again and again.

use std::time::{Duration, Instant};

/// Side exits at one address after which its regions are made differently: about what compiling one costs.
const OFTEN: u32 = 1024;
/// Changes of the page between those from which on something is walked through: checks that cover one access each would cost every
/// round, the exits only one now and then.
const MOVES: u32 = OFTEN / 64;
/// What is walked through fast enough to reach [`OFTEN`] within this time leaves at many of its rounds.
const SOON: Duration = Duration::from_millis(25);
/// Looks for the same bytes of two pages after which those who look are made differently: some ten of them cost what an exit does.
const OFTEN_ON: u32 = 16 * OFTEN;
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
    /// By hash: what was looked for last, page and limit, and how often.
    on: Box<[((u64, u64), u32); SITES]>,
    /// The exit that comes is one too many.
    at_once: bool,
    /// The page whose end a check that failed reaches over, until the region is left for it.
    crossed: Option<u64>,
    /// The address that was noted last has been met often.
    pub often: bool,
}
impl Sides {
    pub fn new() -> Sides {
        let none = Site { ip: 0, times: 0, page: 0, moves: 0, since: None };
        let (met, on) = (super::tlb::boxed(none), super::tlb::boxed(((0, 0), 0)));
        Sides { met, on, at_once: false, crossed: None, often: false }
    }
    /// A check for an access to the linear address `la` reaches over its page's end, and can go on. False if it is to fail, so that those
    /// it covers get checks of their own.
    pub fn goes_on(&mut self, la: u64, limit: u64) -> bool {
        let (key, times) = &mut self.on[place(la >> 12 ^ limit << 52)];
        if *key != (la >> 12, limit) {
            (*key, *times) = ((la >> 12, limit), 0)
        }
        *times = (*times + 1) % OFTEN_ON;
        self.at_once = *times == 0;
        !self.at_once
    }
    /// A check for an access to the linear address `la` failed, which may begin that far from its page's beginning, at most.
    pub fn failed(&mut self, la: u64, limit: u64) {
        self.crossed = (la & 0xfff > limit).then_some(la >> 12)
    }
    /// A region was left at `ip`. True once checks there should cover one access each.
    pub fn note(&mut self, ip: u64, now: impl Fn() -> Instant) -> bool {
        let Some(page) = self.crossed.take() else { return self.often };
        if std::mem::take(&mut self.at_once) {
            self.often = true;
            return true;
        }
        let site = &mut self.met[place(ip)];
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

fn place(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SITES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_over_the_same_end_is_found_by_and_by() {
        let mut s = Sides::new();
        // (What was met once does not count.)
        assert!(s.goes_on(0x9ff0, 0xf00));
        let looks = (1..=OFTEN_ON).find(|_| !s.goes_on(0x7ff0, 0xf00));
        assert_eq!(looks, Some(OFTEN_ON));
        s.failed(0x7ff0, 0xf00);
        assert!(s.note(0x40_1000, || unreachable!("no time matters")));
        s.often = false;
        s.failed(0x7ff0, 0xf00);
        assert!(!s.note(0x40_1000, Instant::now), "once");
    }

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
