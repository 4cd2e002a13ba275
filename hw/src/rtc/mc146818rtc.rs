//! Real-time clock and CMOS memory, type `mc146818rtc`. Registers: [`super::mc146818_regs`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use hw_core::config::RtcBase;
use hw_core::local_time::ahead_of_utc;
use hw_core::{
    Category, ClockType, DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase,
    Request, SECOND, Sizes, Timer, WakeupReason,
};
use qom::{Class, Error, Object, Prop, PropEnum, PropStruct, Property, Result};

use super::mc146818_regs::{Date, Effect, Mc146818Regs};

/// What becomes of periodic interrupts that the guest was too slow to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "LostTickPolicy")]
pub enum LostTickPolicy {
    /// They are lost.
    #[default]
    Discard,
    /// They come at the next period. Not taken by this device.
    Delay,
    /// They are made up for as the guest acknowledges.
    Slew,
}

/// Value of the `date` property: C's broken-down time.
#[derive(Clone, Debug, Default, PartialEq, PropStruct)]
#[qom(name = "struct tm")]
pub struct Tm {
    /// Years since 1900.
    #[qom(name = "tm_year")]
    pub tm_year: i64,
    /// Months since January.
    #[qom(name = "tm_mon")]
    pub tm_mon: i64,
    /// Day of the month.
    #[qom(name = "tm_mday")]
    pub tm_mday: i64,
    /// Hour.
    #[qom(name = "tm_hour")]
    pub tm_hour: i64,
    /// Minute.
    #[qom(name = "tm_min")]
    pub tm_min: i64,
    /// Second.
    #[qom(name = "tm_sec")]
    pub tm_sec: i64,
}

/// Type `mc146818rtc`.
#[derive(Object)]
#[qom(name = "mc146818rtc", parent = IsaDevice, methods(DeviceClass), interfaces("acpi-dev-aml-interface"),
    class_init = Mc146818Rtc::class_init, instance_init = Mc146818Rtc::instance_init)]
pub struct Mc146818Rtc {
    parent: IsaDevice,
    #[property(name = "base_year", default = 1980)]
    base_year: Prop<i32>,
    #[property(default = 0x70)]
    iobase: Prop<u16>,
    #[property(default = 8)]
    irq: Prop<u8>,
    #[property(name = "lost_tick_policy", default = LostTickPolicy::Discard)]
    lost_tick_policy: Prop<LostTickPolicy>,
    #[state]
    regs: MachineCell<Mc146818Regs>,
    out: IrqOut,
    timer: Timer,
    /// Seconds that the guest's calendar is ahead of the host's, for whoever has not locked the machine.
    ahead: AtomicI64,
    /// The host's calendar at realize: seconds, and the clock's value there.
    start: OnceLock<(i64, i64)>,
}

impl Mc146818Rtc {
    fn class_init(c: &mut Class) {
        c.property(Property::computed::<Tm>("date").getter(|r: &Self| {
            let now = r.core().clocks.now_of(r.clock()) as i64;
            let d = Date::from_seconds(r.host_seconds(now) + r.ahead.load(Ordering::Relaxed));
            Ok(Tm {
                tm_year: d.year - 1900,
                tm_mon: d.month - 1,
                tm_mday: d.day,
                tm_hour: d.hour,
                tm_min: d.minute,
                tm_sec: d.second,
            })
        }));
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Misc];
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init_on(self, self.clock(), Self::expired);
        Ok(())
    }

    /// What makes it go on (`-rtc clock=`).
    fn clock(&self) -> ClockType {
        self.core().board().rtc.clock
    }

    fn now(&self, m: &Locked) -> i64 {
        m.clock.now_of(self.clock()) as i64
    }

    /// What `-rtc base=` says at start-up, in calendar seconds.
    fn base_seconds(&self, m: &Locked) -> i64 {
        let host = (m.clock.now_of(ClockType::Host) / SECOND) as i64;
        match self.core().board().rtc.base {
            RtcBase::Utc => host,
            RtcBase::Local => host + ahead_of_utc(host),
            RtcBase::Date(seconds) => seconds,
        }
    }

    /// The host's calendar at clock value `now`: what a clock shows that nobody has set.
    fn host_seconds(&self, now: i64) -> i64 {
        self.start.get().map_or(0, |(seconds, at)| seconds + (now - at).div_euclid(SECOND as i64))
    }

    /// The output, for a board that routes it (HPET legacy replacement) instead of line `irq`.
    pub fn output(&self) -> &IrqOut {
        &self.out
    }

    /// Line of the bus that the interrupt belongs on.
    pub fn irq_number(&self) -> u8 {
        self.irq.get()
    }

    /// Sets CMOS byte `addr`, for the board.
    pub fn set_cmos(&self, m: &mut Locked, addr: u8, val: u8) {
        self.regs.rw(m).cmos.set(addr, val);
    }

    /// CMOS byte `addr`.
    pub fn cmos(&self, m: &Locked, addr: u8) -> u8 {
        self.regs.ro(m).cmos.get(addr)
    }

    fn note_offset(&self, m: &Locked) -> i64 {
        let offset = self.regs.ro(m).seconds() - self.host_seconds(self.now(m));
        self.ahead.store(offset, Ordering::Relaxed);
        offset
    }

    fn expired(&self, m: &mut Locked) {
        let now = self.now(m);
        let e = self.regs.rw(m).sync(now);
        self.act(m, e);
    }

    fn act(&self, m: &mut Locked, e: Effect) {
        if e.alarm {
            m.request(Request::Wakeup(WakeupReason::Rtc));
        }
        if e.time_set {
            let offset = self.note_offset(m);
            self.core().emit("RTC_CHANGE", serde_json::json!({ "offset": offset, "qom-path": self.path() }));
        }
        if self.out.level() != e.irq {
            self.out.set(m, e.irq);
        }
        self.timer.arm(m, e.deadline.and_then(|d| u64::try_from(d).ok()));
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let now = self.now(m);
        let (v, e) = self.regs.rw(m).read(off, now);
        self.act(m, e);
        v.into()
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let now = self.now(m);
        let e = self.regs.rw(m).write(off, val as u8, now);
        self.act(m, e);
    }
}

impl DeviceImpl for Mc146818Rtc {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.gpio_out("", &self.out);
        let policy = self.lost_tick_policy.get();
        if policy == LostTickPolicy::Delay {
            return Err(Error::generic("Invalid lost tick policy."));
        }
        if self.irq.get() > 15 {
            return Err(Error::generic(format!("Maximum value for \"irq\" is: {}", 15)));
        }
        // Boards say 2000 and mean that the century byte counts whole centuries.
        if self.base_year.get() == 2000 {
            self.base_year.set(0);
        }
        let (now, seconds) = (self.now(m), self.base_seconds(m));
        let (seconds, now) = *self.start.get_or_init(|| (seconds, now));
        *self.regs.rw(m) =
            Mc146818Regs::power_on(now, seconds, self.base_year.get().into(), policy == LostTickPolicy::Slew);
        let imp = Sizes::new(1, 1);
        let ops = Ops { read: Self::read, write: Self::write, imp, ..Ops::default() };
        let both = MemoryRegion::io(self, "rtc", 2, ops);
        let ops = Ops { read: Self::read, write: Self::write, imp, ..Ops::default() };
        let index = MemoryRegion::io(self, "rtc-index", 1, ops);
        both.add_subregion(m, 0, &index);
        self.map_io(m, self.iobase.get().into(), &both)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.timer.arm(m, None);
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => {
                let now = self.now(m);
                let _ = self.regs.rw(m).reset(now);
            }
            Phase::Hold => self.expired(m),
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if !self.regs.ro(m).is_valid() {
            return Err(Error::generic("mc146818rtc: impossible register values"));
        }
        let now = self.now(m);
        let e = self.regs.rw(m).resume(now);
        self.act(m, e);
        self.note_offset(m);
        Ok(())
    }
}
