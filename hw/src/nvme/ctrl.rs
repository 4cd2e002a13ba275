//! The controller, type `nvme`: registers, doorbells, queues, interrupts. Source: NVM Express 1.4 §3 (registers), §7.6 (initialization).
//! Commands: `admin`, `io`.

use super::identify::{ControllerInfo, VERSION};
use super::io::Pending;
use super::ns::{MAX_NAMESPACES, Namespace, NsMedia, NvmeBus, open};
use super::queues::{Cq, Queues, Sq};
use super::spec::{CQE, Command, Completion, SQE, reg};
use crate::block::conf::{DiskConf, HasDisk};
use crate::virtio::dma::Dma;
use block::{Action, Loans};
use hw_core::memory::Attrs;
use hw_core::pci::{BarKind, MsixPlace};
use hw_core::{
    Bus, Category, Device, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, PciDevice, PciDeviceClass,
    Phase, RunState, Sizes, events::VmState,
};
use parking_lot::{Mutex, RwLock};
use qom::{Class, Error, Input, Level, Object, Prop, PropEnum, Property, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Smallest and largest memory page, as powers of two.
const MIN_PAGE: u32 = 12;
const MAX_PAGE: u32 = 16;
/// Most events that wait for a request.
const MAX_EVENTS: usize = 64;
/// Register window before doorbells.
const REGISTERS: u64 = reg::DOORBELLS;
/// Bytes of a doorbell.
const DOORBELL: u64 = 4;

/// An asynchronous event: type, information, log page. §5.2.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    pub kind: u8,
    pub info: u8,
    pub log: u8,
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct NvmeRegs {
    pub cc: u32,
    pub csts: u32,
    pub aqa: u32,
    pub asq: u64,
    pub acq: u64,
    pub mask: u32,
    pub queues: Queues,
    /// Jobs at work, by ticket.
    pub pending: BTreeMap<u64, Pending>,
    pub next: u64,
    /// Features that were set.
    pub features: BTreeMap<u16, u32>,
    /// What the driver said of the write cache.
    pub write_cache: Option<bool>,
    /// Requests for events, by command identifier.
    pub aers: Vec<u16>,
    pub events: VecDeque<Event>,
    /// Types of events that are not told until their log page was read.
    pub masked: u8,
    pub changed: BTreeSet<u32>,
}

/// `spdm_trans`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "SpdmTransportType")]
pub enum SpdmTransport {
    /// Unspecified.
    Unspecified,
    /// Data object exchange.
    #[default]
    Doe,
    /// Security protocols.
    Nvme,
}

/// Type `nvme`.
#[derive(Object)]
#[qom(name = "nvme", parent = PciDevice, methods(DeviceClass), class_init = Nvme::class_init,
    interfaces("pci-express-device"))]
pub struct Nvme {
    parent: PciDevice,
    conf: DiskConf,
    #[property]
    serial: Prop<String>,
    #[property]
    model: Prop<String>,
    #[property(name = "firmware-version")]
    firmware: Prop<String>,
    /// Pairs of queues besides the admin queues.
    #[property(name = "max_ioqpairs", default = 64)]
    pub(super) max_ioqpairs: Prop<u32>,
    /// As above, the admin queues included; 0: not given.
    #[property(name = "num_queues", default = 0)]
    num_queues: Prop<u32>,
    #[property(name = "msix_qsize", default = 65)]
    pub(super) msix_qsize: Prop<u16>,
    #[property(name = "msix-exclusive-bar", default = false)]
    msix_exclusive_bar: Prop<bool>,
    /// Entries of a queue, zero-based.
    #[property(default = 2047)]
    pub(super) mqes: Prop<u16>,
    /// Largest transfer: pages as a power of two; 0: no limit.
    #[property(default = 7)]
    pub(super) mdts: Prop<u8>,
    #[property(default = 7)]
    vsl: Prop<u8>,
    /// Requests for events, zero-based.
    #[property(default = 3)]
    pub(super) aerl: Prop<u8>,
    #[property(name = "aer_max_queued", default = 64)]
    aer_max_queued: Prop<u32>,
    #[property(name = "smart_critical_warning")]
    pub(super) critical_warning: Prop<u8>,
    #[property(name = "use-intel-id", default = false)]
    use_intel_id: Prop<bool>,
    #[property(name = "cmb_size_mb", default = 0)]
    cmb_size_mb: Prop<u32>,
    #[property(name = "legacy-cmb", default = false)]
    legacy_cmb: Prop<bool>,
    /// Shadow doorbells, which are not offered.
    #[property(default = true)]
    dbcs: Prop<bool>,
    /// Where doorbells would be taken without leaving the guest; here it makes no difference.
    #[property(default = false)]
    ioeventfd: Prop<bool>,
    #[property(default = false)]
    ocp: Prop<bool>,
    #[property(name = "ctratt.mem", default = false)]
    ctratt_mem: Prop<bool>,
    #[property(name = "atomic.dn", default = false)]
    atomic_dn: Prop<bool>,
    #[property(name = "atomic.awun", default = 0)]
    awun: Prop<u16>,
    #[property(name = "atomic.awupf", default = 0)]
    awupf: Prop<u16>,
    #[property(name = "zoned.zasl", default = 0)]
    zasl: Prop<u8>,
    #[property(name = "zoned.auto_transition", default = true)]
    auto_transition: Prop<bool>,
    #[property(name = "sriov_max_vfs", default = 0)]
    max_vfs: Prop<u16>,
    #[property(name = "sriov_vq_flexible", default = 0)]
    vq_flexible: Prop<u16>,
    #[property(name = "sriov_vi_flexible", default = 0)]
    vi_flexible: Prop<u16>,
    #[property(name = "sriov_max_vi_per_vf", default = 0)]
    max_vi_per_vf: Prop<u32>,
    #[property(name = "sriov_max_vq_per_vf", default = 0)]
    max_vq_per_vf: Prop<u32>,
    #[property(name = "spdm_port", default = 0)]
    spdm_port: Prop<u16>,
    #[property(name = "spdm_trans", default = SpdmTransport::Doe)]
    spdm_trans: Prop<SpdmTransport>,
    #[state]
    pub(super) regs: MachineCell<NvmeRegs>,
    pub(super) namespaces: RwLock<BTreeMap<u32, Namespace>>,
    /// Jobs that failed and wait for the machine to go on.
    pub(super) held: Mutex<BTreeSet<u64>>,
    /// The driver's memory that requests under way move bytes of, by ticket.
    pub(super) loans: Loans<u64>,
    /// Counts resets and loads: what was submitted before has no job any more.
    pub(super) epoch: AtomicU64,
}

impl HasDisk for Nvme {
    fn disk_conf(&self) -> &DiskConf {
        &self.conf
    }
}

impl Nvme {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Storage];
        d.desc = "Non-Volatile Memory Express";
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision) = (0x1b36, 0x0010, 2);
        (p.class_id, p.prog_if) = (0x0108, 2);
        DiskConf::properties::<Nvme>(c);
        DiskConf::boot_property::<Nvme>(c);
        let refuse = |what: &'static str| {
            move |o: &dyn Object, input: Input<'_>| {
                if matches!(input, Input::Json(serde_json::Value::Null)) || input.shown().is_empty() {
                    return Ok(());
                }
                Err(Error::generic(format!("{}: {what} is not built yet", o.type_name())).into())
            }
        };
        for (name, ty) in [("subsys", "link<nvme-subsys>"), ("pmrdev", "link<memory-backend>")] {
            c.property(Property::new(name, ty).reader(|_| Ok("".into())).writer(refuse(name)));
        }
    }

    pub(super) fn info(&self, m: &Locked) -> ControllerInfo {
        let c = self.config().ro(m);
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        ControllerInfo {
            vendor: c.word(hw_core::pci::reg::VENDOR_ID),
            subsystem_vendor: c.word(hw_core::pci::reg::SUBSYSTEM_VENDOR_ID),
            serial: self.serial.get(),
            model: or(self.model.get(), "QEMU NVMe Ctrl"),
            firmware: or(self.firmware.get(), "11.1.3"),
            mdts: self.mdts.get(),
            aerl: self.aerl.get(),
            write_cache: true,
        }
    }

    // ---- namespaces ----

    pub(super) fn namespace(&self, nsid: u32) -> Option<Namespace> {
        self.namespaces.read().get(&nsid).cloned()
    }

    pub(super) fn free_namespace(&self) -> Option<u32> {
        (1..=MAX_NAMESPACES).find(|n| !self.namespaces.read().contains_key(n))
    }

    pub(super) fn attach(&self, m: &mut Locked, nsid: u32, ns: Namespace) {
        self.namespaces.write().insert(nsid, ns);
        self.namespace_changed(m, nsid);
    }

    pub(super) fn detach(&self, m: &mut Locked, nsid: u32) {
        self.namespaces.write().remove(&nsid);
        self.namespace_changed(m, nsid);
    }

    /// Tells the driver that a namespace has come, gone or another size.
    pub(super) fn namespace_changed(&self, m: &mut Locked, nsid: u32) {
        let r = self.regs.rw(m);
        if r.csts & reg::CSTS_RDY != 0 && r.changed.insert(nsid) {
            self.event(m, Event { kind: 2, info: 0, log: 4 });
        }
    }

    // ---- memory ----

    /// Does something with guest memory.
    pub(super) fn with_dma<R>(&self, m: &mut Locked, f: impl FnOnce(&mut Dma<'_>) -> R) -> R {
        let (space, attrs) = (self.dma_space(), Attrs::requester(self.requester_id(m)));
        f(&mut Dma { m, space: &space, attrs })
    }

    /// Bytes of a memory page, as the driver has chosen it.
    pub(super) fn page(&self, m: &Locked) -> u64 {
        1 << (MIN_PAGE + (self.regs.ro(m).cc >> 7 & 0xf)).min(MAX_PAGE)
    }

    // ---- registers ----

    /// §3.1.1
    fn cap(&self) -> u64 {
        let pages = u64::from(MAX_PAGE - MIN_PAGE);
        // Contiguous queues; 7.5 s; the NVM command set.
        u64::from(self.mqes.get()) | 1 << 16 | 0xf << 24 | 1 << 37 | pages << 52
    }

    fn register(&self, m: &Locked, off: u64) -> u64 {
        let r = self.regs.ro(m);
        match off {
            reg::CAP => self.cap(),
            reg::VS => VERSION.into(),
            reg::INTMS | reg::INTMC => r.mask.into(),
            reg::CC => r.cc.into(),
            reg::CSTS => r.csts.into(),
            reg::AQA => r.aqa.into(),
            reg::ASQ => r.asq,
            reg::ACQ => r.acq,
            _ => 0,
        }
    }

    fn read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        if off >= REGISTERS {
            return 0; // doorbells are written only
        }
        let wide = matches!(off & !7, reg::CAP | reg::ASQ | reg::ACQ);
        let base = if wide { off & !7 } else { off & !3 };
        let mut v = self.register(m, base) >> (8 * (off - base));
        if size == 8 && !wide {
            v |= self.register(m, base + 4) << 32;
        }
        v
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, v: u64) {
        if off >= REGISTERS {
            if size == 4 && off.is_multiple_of(DOORBELL) {
                self.doorbell(m, (off - REGISTERS) / DOORBELL, v as u32);
            }
            return;
        }
        if !off.is_multiple_of(4) {
            return;
        }
        self.write_long(m, off, v as u32);
        if size == 8 {
            self.write_long(m, off + 4, (v >> 32) as u32);
        }
    }

    fn write_long(&self, m: &mut Locked, off: u64, v: u32) {
        let msix = self.msix_enabled(m);
        let r = self.regs.rw(m);
        let low = |old: u64| old & !0xffff_ffff | u64::from(v & !0xfff);
        let high = |old: u64| old & 0xffff_ffff | u64::from(v) << 32;
        match off {
            // Undefined with vectors: left alone.
            reg::INTMS if !msix => r.mask |= v,
            reg::INTMC if !msix => r.mask &= !v,
            reg::CC => return self.configure(m, v),
            reg::AQA => r.aqa = v & 0x0fff_0fff,
            reg::ASQ => r.asq = low(r.asq),
            0x2c => r.asq = high(r.asq),
            reg::ACQ => r.acq = low(r.acq),
            0x34 => r.acq = high(r.acq),
            _ => {}
        }
        self.update_line(m);
    }

    /// Controller configuration. §3.1.5
    fn configure(&self, m: &mut Locked, v: u32) {
        let was = self.regs.ro(m).cc;
        self.regs.rw(m).cc = v;
        let (old, new) = (was & reg::CC_EN, v & reg::CC_EN);
        if old == 0 && new != 0 {
            self.start(m);
        } else if old != 0 && new == 0 {
            self.stop(m);
            self.regs.rw(m).csts &= !(reg::CSTS_RDY | reg::CSTS_CFS);
        }
        let (shut, now) = (was >> 14 & 3, v >> 14 & 3);
        if shut == 0 && now != 0 {
            // (Drives need no preparation: what was acknowledged as stable is.)
            let r = self.regs.rw(m);
            r.csts = r.csts & !reg::CSTS_SHST | reg::SHST_COMPLETE;
        } else if shut != 0 && now == 0 {
            self.regs.rw(m).csts &= !reg::CSTS_SHST;
        }
    }

    /// §7.6.1
    fn start(&self, m: &mut Locked) {
        let mqes = u32::from(self.mqes.get());
        let r = self.regs.rw(m);
        let (sq, cq) = (r.aqa & 0xfff, r.aqa >> 16);
        let shift = MIN_PAGE + (r.cc >> 7 & 0xf);
        let page = 1u64 << shift.min(MAX_PAGE);
        // Memory pages, command set, sizes of the queues.
        let fits = shift <= MAX_PAGE
            && r.cc >> 4 & 7 == 0
            && (1..=mqes.max(1)).contains(&sq)
            && (1..=mqes.max(1)).contains(&cq)
            && r.asq.is_multiple_of(page)
            && r.acq.is_multiple_of(page);
        if !fits {
            r.csts |= reg::CSTS_CFS;
            return;
        }
        r.queues = Queues::default();
        r.queues.sqs.insert(0, Sq::new(r.asq, sq + 1, 0));
        r.queues.cqs.insert(0, Cq::new(r.acq, cq + 1, 0, true));
        r.csts = r.csts & !reg::CSTS_CFS | reg::CSTS_RDY;
    }

    /// Queues and jobs are forgotten.
    fn stop(&self, m: &mut Locked) {
        self.loans.take_all_back();
        let r = self.regs.rw(m);
        *r = NvmeRegs { cc: r.cc, csts: r.csts, aqa: r.aqa, asq: r.asq, acq: r.acq, ..NvmeRegs::default() };
        self.held.lock().clear();
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.set_write_cache(m, None);
        self.update_line(m);
    }

    pub(super) fn fatal(&self, m: &mut Locked, what: &str) {
        tracing::warn!(target: "guest_errors", device = self.label(), "nvme: {what}");
        self.regs.rw(m).csts |= reg::CSTS_CFS;
    }

    /// Volatile write cache, of all namespaces.
    pub(super) fn set_write_cache(&self, m: &mut Locked, on: Option<bool>) {
        self.regs.rw(m).write_cache = on;
        for ns in self.namespaces.read().values().filter(|ns| ns.backend.is_attached()) {
            ns.backend.set_write_cache(on.unwrap_or(ns.write_cache));
        }
    }

    // ---- queues ----

    /// §3.1.24: doorbell `n`, even ones of submission queues.
    fn doorbell(&self, m: &mut Locked, n: u64, v: u32) {
        let qid = (n / 2) as u16;
        let r = self.regs.rw(m);
        if r.csts & reg::CSTS_RDY == 0 {
            return;
        }
        // What is wrong, as event information: no such queue, a value beyond it.
        let wrong = if n.is_multiple_of(2) {
            match r.queues.sqs.get_mut(&qid) {
                None => Some(0),
                Some(q) if v >= q.size => Some(1),
                Some(q) => {
                    q.tail = v;
                    None
                }
            }
        } else {
            match r.queues.cqs.get_mut(&qid) {
                None => Some(0),
                Some(q) if v >= q.size => Some(1),
                Some(q) => {
                    q.head = v;
                    None
                }
            }
        };
        if let Some(info) = wrong {
            return self.event(m, Event { kind: 0, info, log: 1 });
        }
        if n.is_multiple_of(2) {
            return self.fetch(m, qid);
        }
        self.post_waiting(m, qid);
        self.update_line(m);
        // There is room for completions: queues that waited go on.
        let all = self.regs.ro(m).queues.sqs.iter().filter(|(_, q)| q.cqid == qid && q.has_more());
        let all: Vec<u16> = all.map(|(n, _)| *n).collect();
        all.into_iter().for_each(|n| self.fetch(m, n));
    }

    /// Takes the commands of a queue.
    pub(super) fn fetch(&self, m: &mut Locked, sqid: u16) {
        loop {
            let r = self.regs.rw(m);
            if r.csts & (reg::CSTS_CFS | reg::CSTS_RDY) != reg::CSTS_RDY {
                return;
            }
            let Some(q) = r.queues.sqs.get_mut(&sqid).filter(|q| q.has_more()) else { return };
            let at = q.base.wrapping_add(u64::from(q.head) * SQE);
            q.head = (q.head + 1) % q.size;
            q.busy += 1;
            let mut entry = [0; SQE as usize];
            if self.dma_read(m, at, &mut entry).is_err() {
                return self.fatal(m, "a submission queue is not in memory");
            }
            let c = Command::parse(&entry);
            if sqid == 0 { self.admin(m, &c) } else { self.io(m, sqid, &c) }
        }
    }

    /// A command has ended.
    pub(super) fn complete(&self, m: &mut Locked, c: Completion) {
        let r = self.regs.rw(m);
        let Some(cqid) = r.queues.sqs.get(&c.sqid).map(|q| q.cqid) else { return };
        if let Some(q) = r.queues.cqs.get_mut(&cqid) {
            q.waiting.push_back(c);
        }
        self.post_waiting(m, cqid);
    }

    /// Puts completions into their queue as long as there is room.
    fn post_waiting(&self, m: &mut Locked, cqid: u16) {
        let mut posted = false;
        loop {
            let Queues { sqs, cqs } = &mut self.regs.rw(m).queues;
            let Some(q) = cqs.get_mut(&cqid).filter(|q| !q.is_full()) else { break };
            let Some(c) = q.waiting.pop_front() else { break };
            let head = sqs.get_mut(&c.sqid).map_or(0, |sq| {
                sq.busy = sq.busy.saturating_sub(1);
                sq.head
            });
            let (at, bytes) = (q.base.wrapping_add(u64::from(q.tail) * CQE), c.bytes(head as u16, q.phase));
            q.advance();
            posted = true;
            if self.dma_write(m, at, &bytes).is_err() {
                return self.fatal(m, "a completion queue is not in memory");
            }
        }
        if posted {
            self.interrupt(m, cqid);
        }
    }

    fn interrupt(&self, m: &mut Locked, cqid: u16) {
        let Some(q) = self.regs.ro(m).queues.cqs.get(&cqid).filter(|q| q.interrupts) else { return };
        let vector = q.vector;
        if self.msix_enabled(m) {
            self.msix_notify(m, vector.into());
        } else {
            self.update_line(m);
        }
    }

    fn update_line(&self, m: &mut Locked) {
        let r = self.regs.ro(m);
        let on = r.queues.pending_vectors() & !r.mask != 0 && !self.msix_enabled(m);
        self.set_intx(m, on);
    }

    // ---- events ----

    /// Something happened that the driver may have asked to hear of.
    pub(super) fn event(&self, m: &mut Locked, e: Event) {
        let queued = (self.aer_max_queued.get() as usize).min(MAX_EVENTS);
        let r = self.regs.rw(m);
        if r.events.len() < queued && !r.events.contains(&e) {
            r.events.push_back(e);
        }
        self.tell_events(m);
    }

    /// Answers requests for events as far as there are both.
    pub(super) fn tell_events(&self, m: &mut Locked) {
        loop {
            let r = self.regs.rw(m);
            let Some(at) = r.events.iter().position(|e| r.masked & 1 << e.kind == 0) else { return };
            if r.aers.is_empty() {
                return;
            }
            let cid = r.aers.remove(0);
            let Some(e) = r.events.remove(at) else { return };
            r.masked |= 1 << e.kind;
            let result = u32::from(e.kind) | u32::from(e.info) << 8 | u32::from(e.log) << 16;
            self.complete(m, Completion { sqid: 0, cid, status: super::spec::Status::SUCCESS, result });
        }
    }

    fn went_on(&self, m: &mut Locked, state: &VmState) {
        if !state.running {
            return;
        }
        for ns in self.namespaces.read().values() {
            ns.backend.reset_io_status();
        }
        let held = std::mem::take(&mut *self.held.lock());
        held.into_iter().for_each(|ticket| self.run(m, ticket));
    }

    /// What becomes of a job that failed on the host.
    pub(super) fn action(&self, ns: &Namespace, reads: bool, e: &std::io::Error) -> Action {
        ns.backend.failed(self.core(), reads, e)
    }

    fn check(&self) -> Result<()> {
        let asked = [
            (
                self.cmb_size_mb.get() != 0 || self.legacy_cmb.get(),
                "a controller memory buffer (cmb_size_mb, legacy-cmb)",
            ),
            (self.ocp.get(), "ocp"),
            (self.ctratt_mem.get(), "ctratt.mem"),
            (
                self.atomic_dn.get() || self.awun.get() != 0 || self.awupf.get() != 0,
                "atomic writes (atomic.dn, atomic.awun, atomic.awupf)",
            ),
            (self.zasl.get() != 0, "zoned.zasl"),
            (
                [&self.max_vfs, &self.vq_flexible, &self.vi_flexible].iter().any(|p| p.get() != 0)
                    || self.max_vi_per_vf.get() != 0
                    || self.max_vq_per_vf.get() != 0,
                "SR-IOV (sriov_*)",
            ),
            (self.spdm_port.get() != 0, "spdm_port"),
        ];
        if let Some((_, what)) = asked.iter().find(|a| a.0) {
            return Err(Error::generic(format!("nvme: {what} is not built yet")));
        }
        if self.serial.get().is_empty() {
            return Err(Error::generic("serial property not set"));
        }
        if self.num_queues.get() != 0 {
            self.max_ioqpairs.set(self.num_queues.get() - 1);
        }
        if !(1..=65535).contains(&self.max_ioqpairs.get()) {
            return Err(Error::generic("max_ioqpairs must be between 1 and 65535"));
        }
        if !(1..=2048).contains(&self.msix_qsize.get()) {
            return Err(Error::generic("msix_qsize must be between 1 and 2048"));
        }
        if self.mqes.get() < 1 {
            return Err(Error::generic("mqes property cannot be less than 1"));
        }
        if self.vsl.get() == 0 {
            return Err(Error::generic("vsl must be non-zero"));
        }
        Ok(())
    }

    /// Registers and doorbells, then the table of vectors.
    fn map(&self, m: &mut Locked) -> Result<()> {
        let ops = Ops::<Nvme> {
            read: Self::read,
            write: Self::write,
            valid: Sizes::new(1, 8).unaligned(),
            imp: Sizes::new(1, 8).unaligned(),
            ..Ops::default()
        };
        let pairs = u64::from(self.max_ioqpairs.get()) + 1;
        let len = (REGISTERS + pairs * 2 * DOORBELL).next_multiple_of(4096);
        let registers = MemoryRegion::io(self, "nvme", len, ops);
        let vectors = usize::from(self.msix_qsize.get());
        if self.msix_exclusive_bar.get() {
            let bar = MemoryRegion::container(self, "nvme-bar0", len.next_power_of_two());
            bar.add_subregion(m, 0, &registers);
            self.register_bar(m, 0, BarKind::Mem64, &bar)?;
            return self.msix_init_exclusive_bar(m, vectors, 4);
        }
        let table = (vectors as u64 * 16).next_multiple_of(4096);
        let pba = (vectors as u64).div_ceil(64) * 8;
        let bar = MemoryRegion::container(self, "nvme-bar0", (len + table + pba).next_power_of_two());
        bar.add_subregion(m, 0, &registers);
        let place = |offset: u64| MsixPlace { bar: 0, region: &bar, offset: offset as u32 };
        self.msix_init(m, vectors, &place(len), &place(len + table), Some(0x40))?;
        self.register_bar(m, 0, BarKind::Mem64, &bar)
    }
}

impl DeviceImpl for Nvme {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.check()?;
        let device: &Device = self;
        let own = self.conf.backend().is_some().then(|| open(&self.conf, device)).transpose()?;
        let done = self.parent_realize(m).and_then(|()| {
            let done = self.set_up(m);
            if done.is_err() {
                self.take_back(m);
            }
            done
        });
        if let Err(e) = done {
            if own.is_some() {
                self.conf.drive.release();
            }
            return Err(e);
        }
        if let Some(ns) = own {
            ns.backend.set_media(Arc::new(NsMedia { ctrl: self.this(), nsid: 1 }));
            self.namespaces.write().insert(1, ns);
        }
        self.core().events.vm_state.add_for(self, Nvme::went_on);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.stop(m);
        self.namespaces.write().clear();
        self.take_back(m);
        if self.conf.backend().is_some() {
            self.conf.drive.release();
        }
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            self.stop(m);
            *self.regs.rw(m) = NvmeRegs::default();
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let r = self.regs.ro(m);
        let possible = r.queues.is_possible(self.max_ioqpairs.get() as u16, self.msix_qsize.get())
            && r.aers.len() <= usize::from(self.aerl.get()) + 1
            && r.events.len() <= MAX_EVENTS
            && r.events.iter().all(|e| e.kind < 8)
            && r.pending.keys().all(|ticket| *ticket < r.next);
        if !possible {
            return Err(Error::generic("nvme: impossible state"));
        }
        self.parent_post_load(m)?;
        self.loans.take_all_back();
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let cache = self.regs.ro(m).write_cache;
        self.set_write_cache(m, cache);
        let tickets: BTreeSet<u64> = self.regs.ro(m).pending.keys().copied().collect();
        self.held.lock().clear();
        if self.core().requests.state() == RunState::IoError {
            *self.held.lock() = tickets;
        } else {
            tickets.into_iter().for_each(|ticket| self.run(m, ticket));
        }
        Ok(())
    }
}

impl Nvme {
    fn set_up(&self, m: &mut Locked) -> Result<()> {
        if self.use_intel_id.get() {
            let c = self.config().rw(m);
            c.set_word(hw_core::pci::reg::VENDOR_ID, 0x8086);
            c.set_word(hw_core::pci::reg::DEVICE_ID, 0x5845);
        }
        self.set_intx_pin(m, 1);
        Bus::create::<NvmeBus>(self, "nvme-bus", None)?;
        self.map(m)
    }

    fn take_back(&self, m: &mut Locked) {
        for bus in self.child_buses() {
            bus.unparent();
        }
        self.parent_unrealize(m);
    }
}
