//! Type `virtio-device`: what all virtio devices have, whatever shows them to the guest: features, status, queues, configuration.
//! Source: virtio 1.2 §2 and §3. Buses: `virtio-bus`, abstract, one device.
//!
//! A device type implements [`VirtioImpl`] and calls [`VirtioDevice::set_queues`] in its `realize`; from then on it takes chains with
//! [`VirtioDevice::pop`], gives them back with [`VirtioDevice::push`] and ends with [`VirtioDevice::interrupt`]. In-order use of
//! buffers and notification data are not built.

use super::dma::{Dma, memory_of};
use super::ring::{Chain, Format, MAX_SIZE, NO_VECTOR, Queue, RingError, Segment, gather, scatter};
use super::threads::Threads;
use hw_core::memory::{Attrs, RamRanges};
use hw_core::{AddressSpace, Bus, BusClass, Device, DeviceClass, DeviceImpl, Locked, MachineCell, Phase, Timer};
use parking_lot::RwLock;
use qom::{Class, Error, Level, Object, Prop, Property, Result, of_class};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Device status. Virtio 1.2 §2.1.
#[expect(missing_docs, reason = "the specification's names")]
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 0x40;
}

/// Features of all devices, as bits. Virtio 1.2 §6, the first three: §6.3.
#[expect(missing_docs, reason = "the specification's names")]
pub mod feature {
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Never to be accepted: drivers that accept all that is offered give themselves away.
    pub const BAD_FEATURE: u64 = 1 << 30;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
    pub const RING_RESET: u64 = 1 << 40;
    /// What a modern driver is not shown.
    pub const LEGACY: u64 = NOTIFY_ON_EMPTY | ANY_LAYOUT | BAD_FEATURE;
}

/// Most queues of a device.
pub const MAX_QUEUES: usize = 1024;

/// What carries interrupts and memory accesses of a device.
pub trait Transport: Send + Sync {
    /// Interrupts the guest; `vector` is the queue's or the configuration's, where vectors are in use.
    fn interrupt(&self, m: &mut Locked, vector: u16);
    /// The guest's memory, and on whose behalf it is accessed.
    fn dma(&self, m: &Locked) -> Option<(AddressSpace, Attrs)>;
}

/// Class struct of virtio devices.
#[derive(Clone)]
pub struct VirtioDeviceClass {
    /// Device type, virtio 1.2 §5.
    pub device_id: u16,
    /// Name, in those of the transport's regions.
    pub name: &'static str,
    /// See [`VirtioImpl::features`].
    pub features: fn(&dyn Object, u64) -> u64,
    /// See [`VirtioImpl::config`].
    pub config: fn(&dyn Object, &Locked) -> Vec<u8>,
    /// See [`VirtioImpl::set_config`].
    pub set_config: fn(&dyn Object, &mut Locked, usize, &[u8]),
    /// See [`VirtioImpl::handle_queue`].
    pub handle_queue: fn(&dyn Object, &mut Locked, usize),
    /// See [`VirtioImpl::status_changed`].
    pub status_changed: fn(&dyn Object, &mut Locked, u8),
    /// See [`VirtioImpl::stop`].
    pub stop: fn(&dyn Object, &mut Locked, Option<usize>),
}

impl Default for VirtioDeviceClass {
    fn default() -> Self {
        Self {
            device_id: 0,
            name: "virtio",
            features: |_, f| f,
            config: |_, _| vec![],
            set_config: |_, _, _, _| (),
            handle_queue: |_, _, _| (),
            status_changed: |_, _, _| (),
            stop: |_, _, _| (),
        }
    }
}

/// What a device type does; enter it into the class with `#[qom(methods(DeviceClass, VirtioDeviceClass))]`.
pub trait VirtioImpl: Level {
    /// The features to offer: those of all devices and of the user's choice are in `offered`.
    fn features(&self, offered: u64) -> u64 {
        offered
    }

    /// Configuration space. Its length never changes.
    fn config(&self, _m: &Locked) -> Vec<u8> {
        vec![]
    }

    /// The driver wrote these bytes at `at` of the configuration space.
    fn set_config(&self, _m: &mut Locked, _at: usize, _bytes: &[u8]) {}

    /// The driver says that a queue may have new buffers.
    fn handle_queue(&self, m: &mut Locked, n: usize);

    /// The driver changed the device status to this. All queues are looked at after it if it is ready now.
    fn status_changed(&self, _m: &mut Locked, _status: u8) {}

    /// A queue, or the whole device, goes back to its reset state: forget the chains that came from it.
    fn stop(&self, _m: &mut Locked, _queue: Option<usize>) {}
}

fn level<T: Level, R>(o: &dyn Object, f: impl FnOnce(&T) -> R) -> R {
    match T::of(o) {
        Some(t) => f(t),
        None => f(of_class::<T>(&*o.base().object())),
    }
}

impl VirtioDeviceClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: VirtioImpl>(&mut self) {
        self.features = |o, f| level(o, |t: &T| t.features(f));
        self.config = |o, m| level(o, |t: &T| t.config(m));
        self.set_config = |o, m, at, bytes| level(o, |t: &T| t.set_config(m, at, bytes));
        self.handle_queue = |o, m, n| level(o, |t: &T| t.handle_queue(m, n));
        self.status_changed = |o, m, s| level(o, |t: &T| t.status_changed(m, s));
        self.stop = |o, m, n| level(o, |t: &T| t.stop(m, n));
    }
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtioRegs {
    /// Device status.
    pub status: u8,
    /// Interrupt status: queue, configuration. §4.1.4.5.
    pub isr: u8,
    /// Queue that the per-queue registers are about.
    pub queue_sel: u16,
    /// Configuration vector.
    pub config_vector: u16,
    /// Configuration generation.
    pub generation: u8,
    /// Features that the driver accepted.
    pub features: u64,
    /// The driver did something wrong: nothing happens until it resets the device.
    pub broken: bool,
    /// Queues that had more than the device takes in one go.
    #[serde(default)]
    pub again: Vec<usize>,
    /// The queues.
    pub queues: Vec<Queue>,
}

impl Default for VirtioRegs {
    fn default() -> Self {
        Self {
            status: 0,
            isr: 0,
            queue_sel: 0,
            config_vector: NO_VECTOR,
            generation: 0,
            features: 0,
            broken: false,
            again: vec![],
            queues: vec![],
        }
    }
}

impl VirtioRegs {
    fn reset(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        queues.iter_mut().for_each(Queue::reset);
        *self = Self { queues, ..Self::default() };
    }

    /// The selected queue, if there is one.
    pub fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.queue_sel)).filter(|q| q.max != 0)
    }

    /// Whether the driver accepted all of these features.
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    fn format(&self) -> Format {
        Format {
            packed: self.has(feature::RING_PACKED),
            event_idx: self.has(feature::EVENT_IDX),
            notify_on_empty: self.has(feature::NOTIFY_ON_EMPTY) && !self.has(feature::VERSION_1),
        }
    }
}

/// Type `virtio-bus`.
#[derive(Object)]
#[qom(name = "virtio-bus", parent = Bus, abstract, class_init = |c: &mut Class| c.edit::<BusClass>().max_dev = 1)]
pub struct VirtioBus {
    parent: Bus,
}

/// Type `virtio-device`.
#[derive(Object)]
#[qom(name = "virtio-device", parent = Device, abstract, methods(DeviceClass), class_init = VirtioDevice::class_init,
    instance_init = VirtioDevice::instance_init)]
pub struct VirtioDevice {
    parent: Device,
    /// Features that the user can switch, and then all that are offered.
    wanted: Prop<u64>,
    #[property(name = "use-started", default = true)]
    use_started: Prop<bool>,
    #[property(name = "use-disabled-flag", default = true)]
    use_disabled_flag: Prop<bool>,
    #[property(name = "x-disable-legacy-check", default = false)]
    disable_legacy_check: Prop<bool>,
    #[state]
    regs: MachineCell<VirtioRegs>,
    again: Timer,
    offered: AtomicU64,
    /// Sizes of the queues.
    layout: RwLock<Vec<u16>>,
    transport: RwLock<Option<Arc<dyn Transport>>>,
    threads: Threads,
}

/// Properties for features of all devices: name, bit, default.
const FEATURES: [(&str, u64, bool); 8] = [
    ("indirect_desc", feature::INDIRECT_DESC, true),
    ("event_idx", feature::EVENT_IDX, true),
    ("notify_on_empty", feature::NOTIFY_ON_EMPTY, true),
    ("any_layout", feature::ANY_LAYOUT, true),
    ("iommu_platform", feature::ACCESS_PLATFORM, false),
    ("packed", feature::RING_PACKED, false),
    ("queue_reset", feature::RING_RESET, true),
    ("in_order", feature::IN_ORDER, false),
];

impl VirtioDevice {
    fn class_init(c: &mut Class) {
        c.edit::<VirtioDeviceClass>();
        c.edit::<DeviceClass>().bus_type = Some("virtio-bus");
        for (name, bit, on) in FEATURES {
            Self::feature_property(c, name, bit, on);
        }
    }

    fn instance_init(&self) -> Result<()> {
        self.wanted.set(FEATURES.iter().filter(|f| f.2).fold(0, |all, f| all | f.1));
        self.again.init(self, Self::look_again);
        Ok(())
    }

    /// Adds a property that offers a feature or does not. Its default is only shown here: see [`VirtioDevice::want`].
    pub fn feature_property(c: &mut Class, name: &'static str, bit: u64, on: bool) {
        c.property(Property::bit(name, bit, |d: &VirtioDevice| &d.wanted).default_value(on));
    }

    /// Features that the device offers unless the user says otherwise; for `instance_init`.
    pub fn want(&self, features: u64) {
        self.wanted.set(self.wanted.get() | features);
    }

    /// Whether the user, or a default, wants the device to offer this.
    pub fn wants(&self, feature: u64) -> bool {
        self.wanted.get() & feature != 0
    }

    /// The virtio part of its class.
    pub fn virtio_class(&self) -> &'static VirtioDeviceClass {
        self.class().get().expect("classes below 'virtio-device' have a VirtioDeviceClass")
    }

    /// What the guest sees of it.
    pub fn regs(&self) -> &MachineCell<VirtioRegs> {
        &self.regs
    }

    // ---- for transports ----

    /// A transport takes the device, which is realized; `own`: features of the transport.
    pub fn plug(&self, transport: Arc<dyn Transport>, own: u64) {
        let offered = (self.virtio_class().features)(&*self.object(), self.wanted.get() | own);
        self.offered.store(offered, Ordering::Relaxed);
        *self.transport.write() = Some(transport);
    }

    /// The features that are offered.
    pub fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// The driver accepts features. Those that are not offered are left out; after `FEATURES_OK` nothing changes.
    pub fn set_features(&self, m: &mut Locked, features: u64) {
        let offered = self.offered();
        let regs = self.regs.rw(m);
        if regs.status & status::FEATURES_OK == 0 {
            regs.features = features & offered;
        }
    }

    /// The driver writes the device status.
    pub fn set_status(&self, m: &mut Locked, new: u8) {
        if new == 0 {
            return self.reset_device(m);
        }
        let offered = self.offered();
        let regs = self.regs.rw(m);
        let accepts = new & !regs.status & status::FEATURES_OK != 0;
        let starts = new & !regs.status & status::DRIVER_OK != 0;
        let platform = feature::ACCESS_PLATFORM;
        if regs.has(feature::VERSION_1) && accepts && offered & platform != 0 && !regs.has(platform) {
            return; // refused: the driver sees that the bit does not stay
        }
        // Only a reset takes this away. §2.1.1
        regs.status = new | regs.status & status::NEEDS_RESET;
        (self.virtio_class().status_changed)(&*self.object(), m, new);
        if starts {
            self.look_at_queues(m);
        }
    }

    /// All back to the state after power on.
    pub fn reset_device(&self, m: &mut Locked) {
        (self.virtio_class().stop)(&*self.object(), m, None);
        self.regs.rw(m).reset();
        self.arm_again(m);
    }

    /// The driver resets a queue. §2.6.1
    pub fn reset_queue(&self, m: &mut Locked, n: usize) {
        (self.virtio_class().stop)(&*self.object(), m, Some(n));
        if let Some(q) = self.regs.rw(m).queues.get_mut(n) {
            q.reset();
        }
    }

    /// The driver notifies a queue.
    pub fn notified(&self, m: &mut Locked, n: usize) {
        if !self.threads.tell(self.this(), n) {
            self.serve(m, n)
        }
    }

    /// Who serves its queues.
    pub(super) fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Looks at a queue.
    pub(super) fn serve(&self, m: &mut Locked, n: usize) {
        if self.is_working(m) && self.regs.ro(m).queues.get(n).is_some_and(|q| q.enabled) {
            (self.virtio_class().handle_queue)(&*self.object(), m, n);
        }
    }

    /// The driver is ready. What it notified before it said so was dropped, so all queues with something in them are looked at.
    fn look_at_queues(&self, m: &mut Locked) {
        let queues = self.layout.read().len();
        for n in 0..queues {
            if !self.is_empty(m, n) {
                self.notified(m, n)
            }
        }
    }

    /// Bytes of the configuration space; `None` beyond its end.
    pub fn read_config(&self, m: &Locked, at: u64, len: u32) -> Option<u64> {
        let config = (self.virtio_class().config)(&*self.object(), m);
        let at = usize::try_from(at).ok()?;
        let bytes = config.get(at..at.checked_add(len as usize)?)?;
        Some(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    /// Writes bytes of the configuration space; nothing beyond its end.
    pub fn write_config(&self, m: &mut Locked, at: u64, len: u32, val: u64) {
        let bytes = val.to_le_bytes();
        let (Ok(at), Some(bytes)) = (usize::try_from(at), bytes.get(..len as usize)) else { return };
        if at.saturating_add(bytes.len()) <= self.config_len(m) {
            (self.virtio_class().set_config)(&*self.object(), m, at, bytes);
        }
    }

    /// Length of the configuration space.
    pub fn config_len(&self, m: &Locked) -> usize {
        (self.virtio_class().config)(&*self.object(), m).len()
    }

    // ---- for devices ----

    /// Makes the queues; in `realize`. `sizes`: entries of each.
    pub fn set_queues(&self, m: &mut Locked, sizes: impl IntoIterator<Item = u16>) {
        let sizes: Vec<u16> = sizes.into_iter().take(MAX_QUEUES).collect();
        self.regs.rw(m).queues = sizes.iter().copied().map(Queue::new).collect();
        *self.layout.write() = sizes;
    }

    /// Whether the driver accepted a feature.
    pub fn has_feature(&self, m: &Locked, feature: u64) -> bool {
        self.regs.ro(m).has(feature)
    }

    /// Whether the driver drives the device and nothing went wrong.
    pub fn is_working(&self, m: &Locked) -> bool {
        let regs = self.regs.ro(m);
        // Legacy drivers may use their queues before they say that they are ready. §3.1.2
        let ready = regs.status & status::DRIVER_OK != 0 || !regs.has(feature::VERSION_1);
        ready && !regs.broken && self.dma(m).is_some()
    }

    fn dma(&self, m: &Locked) -> Option<(AddressSpace, Attrs)> {
        let transport = self.transport.read().clone();
        transport?.dma(m)
    }

    /// Does something with a queue and guest memory. What the driver did wrong marks the device broken.
    fn with_queue<R>(
        &self,
        m: &mut Locked,
        n: usize,
        f: impl FnOnce(&mut Queue, &mut Dma<'_>, Format) -> std::result::Result<R, RingError>,
    ) -> Option<R> {
        if self.regs.ro(m).broken {
            return None;
        }
        let (space, attrs) = self.dma(m)?;
        let regs = self.regs.rw(m);
        let format = regs.format();
        // The queue is taken out while guest memory is touched.
        let mut queue = std::mem::replace(regs.queues.get_mut(n)?, Queue::new(0));
        let result = f(&mut queue, &mut Dma { m, space: &space, attrs }, format);
        if let Some(slot) = self.regs.rw(m).queues.get_mut(n) {
            *slot = queue;
        }
        result.map_err(|e| self.set_broken(m, &e.to_string())).ok()
    }

    /// The next chain of a queue.
    pub fn pop(&self, m: &mut Locked, n: usize) -> Option<Chain> {
        self.with_queue(m, n, |q, mem, format| q.pop(mem, format)).flatten()
    }

    /// Takes the chains of a queue. A guest may add buffers as fast as they are used: after as many as a queue holds, others get the
    /// machine, and the rest comes a little later.
    pub fn each_chain<T: Level>(&self, m: &mut Locked, n: usize, f: impl Fn(&T, &mut Locked, Chain)) {
        let o = self.object();
        let me = of_class::<T>(&*o);
        for _ in 0..MAX_SIZE {
            let Some(chain) = self.pop(m, n) else { return };
            f(me, m, chain);
        }
        self.look_later(m, n);
    }

    /// Looks at a queue a little later, when others had the machine.
    pub fn look_later(&self, m: &mut Locked, n: usize) {
        let again = &mut self.regs.rw(m).again;
        if !again.contains(&n) {
            again.push(n);
        }
        self.arm_again(m);
    }

    fn arm_again(&self, m: &mut Locked) {
        let now = m.clock.now();
        let at = (!self.regs.ro(m).again.is_empty()).then_some(now);
        self.again.arm(m, at);
    }

    fn look_again(&self, m: &mut Locked) {
        for n in std::mem::take(&mut self.regs.rw(m).again) {
            self.notified(m, n);
        }
    }

    /// Gives the chain that was popped last back untouched.
    pub fn unpop(&self, m: &mut Locked, n: usize, chain: &Chain) {
        let regs = self.regs.rw(m);
        let format = regs.format();
        if let Some(q) = regs.queues.get_mut(n) {
            q.unpop(chain, format);
        }
    }

    /// Whether a queue has nothing for the device.
    pub fn is_empty(&self, m: &mut Locked, n: usize) -> bool {
        self.with_queue(m, n, |q, mem, format| q.is_empty(mem, format)).unwrap_or(true)
    }

    /// Gives a chain back to the driver; `len` bytes were written. Interrupts are up to [`VirtioDevice::interrupt`].
    pub fn push(&self, m: &mut Locked, n: usize, chain: &Chain, len: u32) {
        self.push_all(m, n, &[(chain, len)]);
    }

    /// [`VirtioDevice::push`] of chains that the driver is to see at once.
    pub fn push_all(&self, m: &mut Locked, n: usize, done: &[(&Chain, u32)]) {
        self.with_queue(m, n, |q, mem, format| q.push(mem, format, done));
    }

    /// Interrupts for what was pushed, if the driver wants that.
    pub fn interrupt(&self, m: &mut Locked, n: usize) {
        if self.with_queue(m, n, |q, mem, format| q.wants_interrupt(mem, format)) != Some(true) {
            return;
        }
        let regs = self.regs.rw(m);
        regs.isr |= 1;
        let vector = regs.queues.get(n).map_or(NO_VECTOR, |q| q.vector);
        self.signal(m, vector);
    }

    fn signal(&self, m: &mut Locked, vector: u16) {
        let transport = self.transport.read().clone();
        if let Some(t) = transport {
            t.interrupt(m, vector);
        }
    }

    /// Copies out of segments of guest memory from byte `skip` on; how many bytes there were.
    pub fn read_from(&self, m: &mut Locked, segments: &[Segment], skip: u64, buf: &mut [u8]) -> usize {
        let Some((space, attrs)) = self.dma(m) else { return 0 };
        gather(&mut Dma { m, space: &space, attrs }, segments, skip, buf)
    }

    /// Copies into segments of guest memory from byte `skip` on; how many bytes had room.
    pub fn write_to(&self, m: &mut Locked, segments: &[Segment], skip: u64, data: &[u8]) -> usize {
        let Some((space, attrs)) = self.dma(m) else { return 0 };
        scatter(&mut Dma { m, space: &space, attrs }, segments, skip, data)
    }

    /// See [`memory_of`].
    pub fn memory_of(&self, m: &Locked, segments: &[Segment], skip: u64, len: u64, write: bool) -> Option<RamRanges> {
        let (space, _) = self.dma(m)?;
        memory_of(&space, segments, skip, len, write)
    }

    /// The configuration space has changed: tells the driver, if it drives the device.
    pub fn config_changed(&self, m: &mut Locked) {
        let regs = self.regs.rw(m);
        if regs.status & status::DRIVER_OK == 0 {
            return;
        }
        regs.isr |= 3;
        regs.generation = regs.generation.wrapping_add(1);
        let vector = regs.config_vector;
        self.signal(m, vector);
    }

    /// The driver did something wrong: nothing happens any more until it resets the device. §2.1.2
    pub fn set_broken(&self, m: &mut Locked, what: &str) {
        let regs = self.regs.rw(m);
        if regs.broken {
            return;
        }
        regs.broken = true;
        let modern = regs.has(feature::VERSION_1);
        if modern {
            regs.status |= status::NEEDS_RESET;
        }
        tracing::warn!(target: "guest_errors", device = self.label(), "virtio: {what}");
        if modern {
            self.config_changed(m);
        }
    }
}

impl DeviceImpl for VirtioDevice {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if self.bus().is_none() {
            return Err(Error::generic(format!("'{}' needs a virtio bus", self.type_name())));
        }
        if self.wants(feature::IN_ORDER) {
            return Err(Error::generic("in_order=on is not built yet"));
        }
        self.parent_realize(m)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.reset_device(m);
        *self.transport.write() = None;
        self.set_queues(m, []);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            self.reset_device(m);
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let regs = self.regs.ro(m);
        let layout = self.layout.read();
        let possible = regs.queues.iter().zip(layout.iter()).all(|(q, max)| q.is_possible(*max));
        let again = regs.again.iter().all(|n| *n < layout.len());
        if !possible || !again || regs.queues.len() != layout.len() || regs.features & !self.offered() != 0 {
            return Err(Error::generic(format!("{}: impossible state", self.type_name())));
        }
        self.arm_again(m);
        self.parent_post_load(m)
    }
}
