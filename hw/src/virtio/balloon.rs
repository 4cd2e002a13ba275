//! A balloon of guest memory, type `virtio-balloon-device`. Source: virtio 1.2 §5.5; later statistics: Linux's `virtio_balloon.h`.
//! The driver puts pages into it, which go back to the host, and takes them out again; it says how much memory is free.
//! Not modelled: hints of free pages (`free-page-hint`), which need a thread of their own.
//!
//! A machine has at most one, found by [`VirtioBalloon::of`]. Pages may be anything the driver says: what is not RAM is left alone.

use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl};
use super::ring::{Chain, total};
use hw_core::clock::{ClockType, SECOND};
use hw_core::{Category, Core, DeviceClass, DeviceImpl, Locked, Machine, MachineCell, Timer};
use parking_lot::Mutex;
use qom::{Class, Error, Handle, Level, Object, Prop, Property, Ref, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Features. §5.5.3
mod f {
    pub const STATS_VQ: u64 = 1 << 1;
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub const FREE_PAGE_HINT: u64 = 1 << 3;
    pub const PAGE_POISON: u64 = 1 << 4;
    pub const REPORTING: u64 = 1 << 5;
}

/// Properties for features: name, bit, default.
const FEATURES: [(&str, u64, bool); 4] = [
    ("deflate-on-oom", f::DEFLATE_ON_OOM, false),
    ("free-page-hint", f::FREE_PAGE_HINT, false),
    ("page-poison", f::PAGE_POISON, true),
    ("free-page-reporting", f::REPORTING, false),
];

/// Queues, and entries of the first three and of the last.
const INFLATE: usize = 0;
const STATS: usize = 2;
const REPORTING: usize = 3;
const SIZE: u16 = 128;
const REPORTING_SIZE: u16 = 32;
/// Bytes of the pages that the driver counts in, as a power of two. §5.5.6
const PAGE_SHIFT: u32 = 12;
/// Most pages of a chain that go back to the host: the rest are no worse for the guest.
const MAX_PAGES: u64 = 1 << 16;
/// Places of the fields that the driver writes, in the configuration space. §5.5.4
const ACTUAL: usize = 4;
const POISON: usize = 12;
/// Bytes of an entry of the statistics: tag, value. §5.5.6.3
const ENTRY: usize = 10;
/// Most bytes of statistics that are looked at.
const MAX_STATS: u64 = 4096;

/// Names of the statistics, by tag. §5.5.6.4
const NAMES: [&str; 16] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
    "stat-htlb-pgalloc",
    "stat-htlb-pgfail",
    "stat-oom-kills",
    "stat-alloc-stalls",
    "stat-async-scans",
    "stat-direct-scans",
    "stat-async-reclaims",
    "stat-direct-reclaims",
];
/// A statistic that the driver did not give.
const UNKNOWN: u64 = u64::MAX;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct BalloonRegs {
    /// Pages that the driver is to put into the balloon.
    num_pages: u32,
    /// Pages that it says are in it.
    actual: u32,
    /// What it fills free pages with.
    poison_val: u32,
    stats: [u64; NAMES.len()],
    /// When they came, seconds since 1970.
    last_update: u64,
    /// The buffer that the driver gets back when statistics are wanted again.
    waiting: Option<Chain>,
    /// When they are wanted again.
    poll_at: Option<u64>,
}

impl Default for BalloonRegs {
    fn default() -> Self {
        Self {
            num_pages: 0,
            actual: 0,
            poison_val: 0,
            stats: [UNKNOWN; NAMES.len()],
            last_update: 0,
            waiting: None,
            poll_at: None,
        }
    }
}

/// The machine's balloon: [`Core::service`].
#[derive(Default)]
struct Place(Mutex<Handle<VirtioBalloon>>);

/// Type `virtio-balloon-device`.
#[derive(Object)]
#[qom(name = "virtio-balloon-device", parent = VirtioDevice, methods(DeviceClass, VirtioDeviceClass),
    class_init = VirtioBalloon::class_init, instance_init = VirtioBalloon::instance_init)]
pub struct VirtioBalloon {
    parent: VirtioDevice,
    /// Seconds between two looks at the statistics; 0: nobody looks.
    interval: Prop<u32>,
    #[state]
    regs: MachineCell<BalloonRegs>,
    poll: Timer,
}

impl VirtioBalloon {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (5, "virtio-balloon");
        for (name, bit, on) in FEATURES {
            VirtioDevice::feature_property(c, name, bit, on);
        }
        super::threads::properties(c, false);
        c.property(Property::new("guest-stats", "guest statistics").reader(|o| {
            let device = o.cast::<VirtioBalloon>().ok_or_else(|| Error::generic("not a balloon"))?;
            device.guest_stats()
        }));
        c.property(
            Property::computed::<i64>("guest-stats-polling-interval")
                .type_named("int")
                .getter(|d: &VirtioBalloon| Ok(i64::from(d.interval.get())))
                .setter(VirtioBalloon::set_interval)
                .live(),
        );
    }

    fn instance_init(&self) -> Result<()> {
        self.want(FEATURES.iter().filter(|f| f.2).fold(0, |all, f| all | f.1));
        self.poll.init(self, Self::ask);
        Ok(())
    }

    /// The machine's balloon, if it has one.
    pub fn of(core: &Core) -> Option<Ref<VirtioBalloon>> {
        core.service::<Place>().0.lock().upgrade()
    }

    fn ram_size(&self) -> u64 {
        Machine::of(self.scope()).map_or(0, |m| m.ram_size())
    }

    /// Bytes of memory that the guest has left, as its driver says.
    pub fn actual(&self, m: &Locked) -> u64 {
        self.ram_size().saturating_sub(u64::from(self.regs.ro(m).actual) << PAGE_SHIFT)
    }

    /// Asks the driver to leave the guest this many bytes of memory.
    pub fn set_target(&self, m: &mut Locked, bytes: u64) {
        let pages = self.ram_size().saturating_sub(bytes) >> PAGE_SHIFT;
        self.regs.rw(m).num_pages = u32::try_from(pages).unwrap_or(u32::MAX);
        self.config_changed(m);
    }

    // ---- statistics ----

    fn guest_stats(&self) -> Result<Value> {
        let core = self.core();
        if core.is_locked_here() {
            return Err(Error::generic("'guest-stats' cannot be read from inside the machine"));
        }
        let m = core.lock();
        let r = self.regs.ro(&m);
        let stats: Map<String, Value> =
            NAMES.iter().zip(r.stats).map(|(name, v)| ((*name).to_owned(), v.into())).collect();
        Ok(json!({"stats": stats, "last-update": r.last_update}))
    }

    fn set_interval(&self, seconds: i64) -> Result<()> {
        if seconds < 0 {
            return Err(Error::generic("timer value must be greater than zero"));
        }
        let seconds = u32::try_from(seconds).map_err(|_| Error::generic("timer value is too big"))?;
        let before = self.interval.get();
        self.interval.set(seconds);
        if self.is_realized() && seconds != before {
            let core = self.core();
            if core.is_locked_here() {
                self.interval.set(before);
                return Err(Error::generic("the interval cannot be set from inside the machine"));
            }
            // The first look is at once.
            self.ask_later(&mut core.lock(), if before == 0 { 0 } else { seconds });
        }
        Ok(())
    }

    fn ask_later(&self, m: &mut Locked, seconds: u32) {
        let at = m.clock.now().saturating_add(u64::from(seconds).saturating_mul(SECOND));
        self.regs.rw(m).poll_at = (self.interval.get() != 0).then_some(at);
        self.arm(m);
    }

    fn arm(&self, m: &mut Locked) {
        let at = self.regs.ro(m).poll_at;
        self.poll.arm(m, at);
    }

    /// Gives the driver its buffer back, which asks for statistics.
    fn ask(&self, m: &mut Locked) {
        self.regs.rw(m).poll_at = None;
        if !self.has_feature(m, f::STATS_VQ) || self.regs.ro(m).waiting.is_none() {
            return self.ask_later(m, self.interval.get());
        }
        self.hand_back(m);
        self.interrupt(m, STATS);
    }

    fn hand_back(&self, m: &mut Locked) {
        if let Some(chain) = self.regs.rw(m).waiting.take() {
            self.push(m, STATS, &chain, 0);
        }
    }

    fn take_stats(&self, m: &mut Locked, chain: Chain) {
        // (Only one buffer is needed: one too many goes back.)
        if self.regs.ro(m).waiting.is_some() {
            self.hand_back(m);
            self.interrupt(m, STATS);
        }
        let mut bytes = vec![0; total(&chain.readable).min(MAX_STATS) as usize];
        let n = self.read_from(m, &chain.readable, 0, &mut bytes);
        bytes.truncate(n);
        let now = self.core().clocks.now_of(ClockType::Host) / SECOND;
        let r = self.regs.rw(m);
        r.stats = [UNKNOWN; NAMES.len()];
        for entry in bytes.as_chunks::<ENTRY>().0 {
            let [t0, t1, value @ ..] = *entry;
            if let Some(slot) = r.stats.get_mut(usize::from(u16::from_le_bytes([t0, t1]))) {
                *slot = u64::from_le_bytes(value);
            }
        }
        r.last_update = now;
        r.waiting = Some(chain);
        self.ask_later(m, self.interval.get());
    }

    // ---- pages ----

    /// The pages of a buffer go back to the host.
    fn inflate(&self, m: &mut Locked, chain: &Chain) {
        let mut bytes = vec![0; total(&chain.readable).min(MAX_PAGES * 4) as usize];
        let n = self.read_from(m, &chain.readable, 0, &mut bytes);
        bytes.truncate(n);
        let mut pages: Vec<u64> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b).into()).collect();
        // Neighbours go together: the host is asked less often.
        pages.sort_unstable();
        pages.dedup();
        for run in pages.chunk_by(|a, b| a + 1 == *b) {
            if let Some(first) = run.first() {
                self.discard(first << PAGE_SHIFT, (run.len() as u64) << PAGE_SHIFT);
            }
        }
    }

    /// The driver reports free pages, which are the chain's buffers. §5.5.6.7
    fn reported(&self, m: &mut Locked, chain: &Chain) {
        // A guest that fills free pages with something expects to find it again.
        let poisoned = self.has_feature(m, f::PAGE_POISON) && self.regs.ro(m).poison_val != 0;
        if !poisoned {
            chain.writable.iter().for_each(|s| self.discard(s.addr, s.len.into()));
        }
    }

    /// Gives what is RAM of a range back to the host.
    fn discard(&self, addr: u64, len: u64) {
        let view = self.core().memory.view();
        let end = addr.saturating_add(len);
        let mut at = addr;
        while at < end {
            let Some(range) = view.find(at) else {
                match view.next_start(at) {
                    Some(next) => at = next,
                    None => return,
                }
                continue;
            };
            let stop = end.min(range.last.saturating_add(1));
            if let Some((block, offset)) = range.writable(at)
                && let Err(e) = block.discard(offset, stop - at)
            {
                tracing::debug!(block = block.name(), "a balloon's pages stay with the guest: {e}");
            }
            at = stop;
        }
    }
}

impl VirtioImpl for VirtioBalloon {
    fn features(&self, offered: u64) -> u64 {
        offered | f::STATS_VQ
    }

    /// §5.5.4; as long as the features that need it.
    fn config(&self, m: &Locked) -> Vec<u8> {
        let r = self.regs.ro(m);
        // (The third: the id of a hint of free pages.)
        let mut c: Vec<u8> = [r.num_pages, r.actual, 0, r.poison_val].iter().flat_map(|w| w.to_le_bytes()).collect();
        if !self.wants(f::PAGE_POISON) {
            c.truncate(8);
        }
        c
    }

    fn set_config(&self, m: &mut Locked, at: usize, bytes: &[u8]) {
        let mut config = self.config(m);
        crate::scsi::put(config.get_mut(at..).unwrap_or_default(), 0, bytes);
        let word = |at: usize| config.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let (actual, poison) = (word(ACTUAL), word(POISON));
        let poisons = self.has_feature(m, f::PAGE_POISON);
        let r = self.regs.rw(m);
        let before = std::mem::replace(&mut r.actual, actual);
        r.poison_val = if poisons { poison } else { 0 };
        if before != actual {
            let left = self.actual(m);
            self.core().emit("BALLOON_CHANGE", json!({"actual": left}));
        }
    }

    fn handle_queue(&self, m: &mut Locked, n: usize) {
        self.each_chain(m, n, |d: &Self, m, chain| {
            match n {
                STATS => return d.take_stats(m, chain),
                INFLATE => d.inflate(m, &chain),
                REPORTING => d.reported(m, &chain),
                // What leaves the balloon is ordinary memory again: the host gives it when it is used.
                _ => {}
            }
            d.push(m, n, &chain, 0);
            d.interrupt(m, n);
        });
    }

    /// Linux gives its buffer for statistics before it is ready.
    /// What the balloon holds and is to hold stays: the guest's memory does not come back by itself.
    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        let r = self.regs.rw(m);
        match queue {
            None => {
                let (num_pages, actual) = (r.num_pages, r.actual);
                *r = BalloonRegs { num_pages, actual, ..BalloonRegs::default() };
                self.ask_later(m, self.interval.get());
            }
            Some(STATS) => r.waiting = None,
            Some(_) => {}
        }
    }
}

impl DeviceImpl for VirtioBalloon {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if self.wants(f::FREE_PAGE_HINT) {
            return Err(Error::generic(if self.threads().is_one() {
                "free page hints are not built yet"
            } else {
                "'free-page-hint' requires 'iothread' to be set"
            }));
        }
        let place = self.core().service::<Place>();
        if place.0.lock().upgrade().is_some() {
            return Err(Error::generic("Only one balloon device is supported"));
        }
        let reporting = self.wants(f::REPORTING).then_some(REPORTING_SIZE);
        self.set_queues(m, [SIZE, SIZE, SIZE].into_iter().chain(reporting));
        self.parent_realize(m)?;
        *place.0.lock() = self.this();
        self.ask_later(m, 0);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        *self.regs.rw(m) = BalloonRegs::default();
        self.arm(m);
        *self.core().service::<Place>().0.lock() = Handle::default();
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.arm(m);
        self.parent_post_load(m)
    }
}
