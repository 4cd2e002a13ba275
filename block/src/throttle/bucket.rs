//! The leaky buckets behind the limits. Source: `docs/throttle` of QEMU (what the options mean).
//!
//! Each limit is a bucket that requests fill and time empties at the limit's rate. With no burst rate a bucket holds a tenth of a second of it.
//! With one, it holds what the burst rate gives in the burst's length; if that is more than a second, a second bucket sees that the burst
//! itself is no faster.

use qom::{Error, Result};

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;
/// Highest rate.
const MAX: u64 = 1_000_000_000_000_000;

/// What the limits are of, in the order of [`Limits::all`]: words of the options.
pub const WORDS: [&str; 6] = ["bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"];

/// A part of a limit: ending of its option, how it is read and set.
type Part = (&'static str, fn(&Limit) -> u64, fn(&mut Limit, u64));

const PARTS: [Part; 3] = [
    ("", |l| l.avg, |l, v| l.avg = v),
    ("-max", |l| l.max, |l, v| l.max = v),
    ("-max-length", |l| l.length, |l, v| l.length = v),
];

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Units in a second; 0: no limit.
    pub avg: u64,
    /// Units in a second of a burst; 0: no bursts.
    pub max: u64,
    /// Seconds of a burst.
    pub length: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { avg: 0, max: 0, length: 1 }
    }
}

/// All limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes and requests: of all, of reads, of writes ([`WORDS`]).
    pub all: [Limit; 6],
    /// A request counts as one for each of this many bytes; 0: as one.
    pub iops_size: u64,
}

impl Limits {
    /// Sets what the option `name` is about (`bps-read-max`); false: there is none of this name.
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        if name == "iops-size" {
            self.iops_size = value;
            return true;
        }
        for (limit, word) in self.all.iter_mut().zip(WORDS) {
            if let Some((.., set)) = name.strip_prefix(word).and_then(|end| PARTS.iter().find(|p| p.0 == end)) {
                set(limit, value);
                return true;
            }
        }
        false
    }

    /// Every option and its value.
    pub fn options(&self) -> Vec<(String, u64)> {
        let of = |(limit, word): (&Limit, &str)| PARTS.map(|(end, get, _)| (format!("{word}{end}"), get(limit)));
        let mut all: Vec<_> = self.all.iter().zip(WORDS).flat_map(of).collect();
        all.push(("iops-size".into(), self.iops_size));
        all
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.all.iter().any(|l| l.avg > 0)
    }

    /// Whether they make sense together.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<()> {
        let bad = |text: &str| Err(Error::generic(text));
        for kind in self.all.as_chunks::<3>().0 {
            let [total, read, write] = kind;
            let both = |of: fn(&Limit) -> u64| of(total) > 0 && (of(read) > 0 || of(write) > 0);
            if both(|l| l.avg) || both(|l| l.max) {
                return bad("bps/iops/max total values and read/write values cannot be used at the same time");
            }
        }
        if self.iops_size > 0 && self.all.iter().skip(3).all(|l| l.avg == 0) {
            return bad("iops size requires an iops value to be set");
        }
        for l in &self.all {
            if l.avg > MAX || l.max > MAX {
                return bad("bps/iops/max values must be within [0, 1000000000000000]");
            }
            if l.length == 0 {
                return bad("the burst length cannot be 0");
            }
            if l.length > 1 && l.max == 0 {
                return bad("burst length set without burst rate");
            }
            if l.max > 0 && l.length > MAX / l.max {
                return bad("burst length too high for this burst rate");
            }
            if l.max > 0 && l.avg == 0 {
                return bad("bps_max/iops_max require corresponding bps/iops values");
            }
            if l.max > 0 && l.max < l.avg {
                return bad("bps_max/iops_max cannot be lower than bps/iops");
            }
        }
        Ok(())
    }
}

/// What is in one bucket, in units.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: f64,
    burst: f64,
}

impl Bucket {
    fn leak(&mut self, l: &Limit, ns: u64) {
        let seconds = ns as f64 / SECOND;
        self.level = (self.level - l.avg as f64 * seconds).max(0.0);
        if l.length > 1 {
            self.burst = (self.burst - l.max as f64 * seconds).max(0.0);
        }
    }

    /// Nanoseconds until the bucket takes another request.
    fn wait(&self, l: &Limit) -> u64 {
        if l.avg == 0 {
            return 0;
        }
        let room = if l.max == 0 { l.avg as f64 / 10.0 } else { l.max as f64 * l.length as f64 };
        let too_much =
            |level: f64, room: f64, rate: u64| ((level - room).max(0.0) * SECOND / rate as f64).ceil() as u64;
        let wait = too_much(self.level, room, l.avg);
        if wait == 0 && l.length > 1 {
            return too_much(self.burst, l.max as f64 / 10.0, l.max);
        }
        wait
    }
}

/// The buckets of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buckets {
    limits: Limits,
    all: [Bucket; 6],
    /// When they leaked last, in ns.
    then: u64,
}

/// The limits that hold for a direction.
const fn concerns(n: usize, write: bool) -> bool {
    n.is_multiple_of(3) || n % 3 == if write { 2 } else { 1 }
}

impl Buckets {
    /// Empty buckets.
    pub fn new(limits: Limits, now: u64) -> Self {
        Self { limits, all: [Bucket::default(); 6], then: now }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Nanoseconds from `now` until a request may go; 0: at once.
    pub fn wait(&mut self, write: bool, now: u64) -> u64 {
        let ns = now.saturating_sub(self.then);
        self.then = now.max(self.then);
        let mut longest = 0;
        for (n, (bucket, limit)) in self.all.iter_mut().zip(&self.limits.all).enumerate() {
            bucket.leak(limit, ns);
            if concerns(n, write) {
                longest = longest.max(bucket.wait(limit));
            }
        }
        longest
    }

    /// A request of so many bytes goes.
    pub fn account(&mut self, write: bool, bytes: u64) {
        let requests = match self.limits.iops_size {
            size if size > 0 && bytes > size => bytes as f64 / size as f64,
            _ => 1.0,
        };
        for (n, (bucket, limit)) in self.all.iter_mut().zip(&self.limits.all).enumerate() {
            if concerns(n, write) && limit.avg > 0 {
                let units = if n < 3 { bytes as f64 } else { requests };
                bucket.level += units;
                if limit.length > 1 {
                    bucket.burst += units;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(n: usize, limit: Limit) -> Limits {
        let mut l = Limits::default();
        l.all[n] = limit;
        l
    }

    /// Bytes that get through in so many seconds, in requests of 1000 bytes made as soon as they may.
    fn through(l: Limits, seconds: u64) -> u64 {
        let (mut b, mut now, mut bytes) = (Buckets::new(l, 0), 0, 0);
        loop {
            now += b.wait(false, now);
            if now >= seconds * 1_000_000_000 {
                return bytes;
            }
            b.account(false, 1000);
            bytes += 1000;
        }
    }

    #[test]
    fn a_rate_holds() {
        let got = through(limits(1, Limit { avg: 100_000, ..Limit::default() }), 10);
        // A tenth of a second goes at once.
        assert!((1_000_000..=1_012_000).contains(&got), "{got}");
        assert_eq!(through(limits(2, Limit { avg: 1, ..Limit::default() }), 0), 0);
        let got = through(limits(3, Limit { avg: 50, ..Limit::default() }), 10);
        assert!((500_000..=507_000).contains(&got), "{got}");
    }

    #[test]
    fn a_burst_ends() {
        let l = limits(0, Limit { avg: 100_000, max: 500_000, length: 4 });
        let in_burst = through(l, 4);
        assert!((1_990_000..=2_060_000).contains(&in_burst), "{in_burst}");
        // The bucket of 2,000,000 leaks 100,000 in a second: it is full after five.
        let after = through(l, 60) - through(l, 50);
        assert!((990_000..=1_010_000).contains(&after), "{after}");
    }

    #[test]
    fn large_requests_count_as_several() {
        let mut l = limits(3, Limit { avg: 100, ..Limit::default() });
        l.iops_size = 100;
        // Two at once, then ten in each second.
        assert_eq!(through(l, 10) / 1000, 101);
    }

    #[test]
    fn limits_that_make_no_sense() {
        let error = |l: Limits| l.check().unwrap_err().to_string();
        let mut both = limits(0, Limit { avg: 1, ..Limit::default() });
        both.all[1].avg = 1;
        assert!(error(both).contains("cannot be used at the same time"));
        assert!(error(limits(0, Limit { max: 1, ..Limit::default() })).contains("require corresponding"));
        assert!(error(limits(0, Limit { avg: 2, max: 1, length: 1 })).contains("cannot be lower"));
        assert!(error(limits(0, Limit { avg: MAX + 1, ..Limit::default() })).contains("must be within"));
        assert!(error(limits(0, Limit { avg: 1, max: 1, length: 0 })).contains("cannot be 0"));
        assert!(error(limits(0, Limit { avg: 1, max: 0, length: 2 })).contains("without burst rate"));
        assert!(error(limits(0, Limit { avg: 1, max: MAX, length: 2 })).contains("too high"));
        assert!(error(Limits { iops_size: 1, ..Limits::default() }).contains("requires an iops value"));
        assert!(limits(0, Limit { avg: 1, max: 2, length: 2 }).check().is_ok());
    }
}
