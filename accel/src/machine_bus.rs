//! The machine as one vCPU's engine sees it: its address spaces in and outside of SMM, and the I/O ports.
#![expect(unsafe_code, reason = "promises about host addresses of guest RAM")]

use crate::tcg::{Bus, Group, RamPage, W, WeakKick};
use hw_core::{
    AddressSpace, Core, Cpu, Locked, MemTxError,
    memory::{Attrs, CodeWatcher, DirtyClient, FlatView, Listener, PAGE, RamBlock, RangeKind},
};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

/// The address spaces of one vCPU.
pub(crate) struct MachineBus {
    /// Outside of SMM, in SMM.
    spaces: [AddressSpace; 2],
    io: AddressSpace,
    cpu: Option<u32>,
    /// Views whose host addresses the vCPU may still use.
    retired: Mutex<Vec<Arc<FlatView>>>,
    kick: OnceLock<WeakKick>,
}

impl MachineBus {
    pub fn new(cpu: &Cpu) -> Arc<MachineBus> {
        let bus = Arc::new(MachineBus {
            spaces: [cpu.address_space(), cpu.smm_address_space()],
            io: Core::of(cpu).io.clone(),
            cpu: cpu.index(),
            retired: Mutex::default(),
            kick: OnceLock::new(),
        });
        for s in &bus.spaces {
            s.listen(Arc::new(Changes(Arc::downgrade(&bus))));
        }
        bus
    }
    /// Whom to tell about changes.
    pub fn attach(&self, kick: WeakKick) {
        _ = self.kick.set(kick);
    }
    fn space(&self, view: u8) -> &AddressSpace {
        if view == 0 { &self.spaces[0] } else { &self.spaces[1] }
    }
    fn attrs(&self, view: u8) -> Attrs {
        Attrs { cpu: self.cpu, requester: None, smm: view != 0 }
    }
}

struct Changes(std::sync::Weak<MachineBus>);
impl Listener for Changes {
    fn changed(&self, _m: &mut Locked, old: &Arc<FlatView>, _new: &Arc<FlatView>) {
        if let Some(bus) = self.0.upgrade()
            && let Some(kick) = bus.kick.get().and_then(WeakKick::upgrade)
        {
            bus.retired.lock().push(old.clone());
            kick.flush();
        }
    }
}

// SAFETY: a page belongs to a block that the view holds alive; a view that goes away is kept in `retired` until the vCPU
// has flushed all host addresses (`flushed`), which it does before it runs on.
unsafe impl Bus for MachineBus {
    fn ram(&self, view: u8, pa: u64) -> Option<RamPage> {
        let v = self.space(view).view();
        let r = v.find(pa)?;
        // Pieces of pages go through the bus.
        if r.start > pa || r.last < pa.checked_add(PAGE - 1)? {
            return None;
        }
        let (block, off) = r.readable(pa)?;
        if !off.is_multiple_of(PAGE) || off + PAGE > block.len() {
            return None;
        }
        // SAFETY: `off` is inside the block.
        let host = unsafe { block.host().as_ptr().add(off as usize) };
        host.expose_provenance();
        Some(RamPage { host, writable: matches!(r.kind, RangeKind::Ram(_)), log: true })
    }
    fn load(&self, view: u8, pa: u64, data: &mut [u8]) {
        let (s, attrs) = (self.space(view), self.attrs(view));
        match data.len() {
            n @ (1 | 2 | 4 | 8) => {
                let v = s.cpu_load(pa, n as u32, attrs).unwrap_or_else(MemTxError::read_value);
                data.copy_from_slice(&v.to_le_bytes()[..n]);
            }
            _ => {
                if s.cpu_read(pa, data, attrs).is_err() {
                    tracing::debug!(pa, "nobody answers a read");
                }
            }
        }
    }
    fn store(&self, view: u8, pa: u64, data: &[u8]) {
        let (s, attrs) = (self.space(view), self.attrs(view));
        let done = match data.len() {
            n @ (1 | 2 | 4 | 8) => {
                let mut v = [0; 8];
                v[..n].copy_from_slice(data);
                s.cpu_store(pa, n as u32, u64::from_le_bytes(v), attrs)
            }
            _ => s.cpu_write(pa, data, attrs),
        };
        if done.is_err() {
            tracing::debug!(pa, "nobody takes a write");
        }
    }
    fn io_load(&self, port: u16, w: W) -> u32 {
        let v = self.io.cpu_load(port.into(), w.bytes(), self.attrs(0)).unwrap_or_else(MemTxError::read_value);
        (v & w.mask()) as u32
    }
    fn io_store(&self, port: u16, w: W, v: u32) {
        // Nobody listens on most ports.
        _ = self.io.cpu_store(port.into(), w.bytes(), v.into(), self.attrs(0));
    }
    fn io_load_run(&self, port: u16, w: W, data: &mut [u8], go_on: &dyn Fn() -> bool) -> usize {
        self.io.cpu_load_run(port.into(), w.bytes(), data, self.attrs(0), go_on)
    }
    fn io_store_run(&self, port: u16, w: W, data: &[u8], go_on: &dyn Fn() -> bool) -> usize {
        self.io.cpu_store_run(port.into(), w.bytes(), data, self.attrs(0), go_on)
    }
    fn mark_dirty(&self, view: u8, pa: u64) {
        let v = self.space(view).view();
        if let Some((block, off)) = v.find(pa).and_then(|r| r.writable(pa)) {
            // (Code is the engine's own business.)
            for client in [DirtyClient::Vga, DirtyClient::Migration] {
                block.set_dirty(client, off, PAGE)
            }
        }
    }
    fn flushed(&self) {
        let old = std::mem::take(&mut *self.retired.lock());
        drop(old);
    }
}

/// Passes stores of devices to code pages on to the vCPUs.
pub(crate) struct CodeWrites(pub Arc<Group>);
impl CodeWatcher for CodeWrites {
    fn code_written(&self, block: &RamBlock, offset: u64, len: u64) {
        let base = block.host().as_ptr().addr();
        let mut at = offset;
        let end = offset.saturating_add(len).min(block.len());
        while at < end {
            let n = (PAGE - at % PAGE).min(end - at);
            let host = base + at as usize;
            self.0.written(host, n as usize);
            if !self.0.holds_code(host & !(PAGE as usize - 1)) {
                block.set_dirty(DirtyClient::Code, at, n);
            }
            at += n;
        }
    }
    fn made_clean(&self, block: &RamBlock, offset: u64, len: u64) {
        let base = block.host().as_ptr().addr();
        self.0.made_clean(base + offset as usize, len as usize)
    }
}
/// Makes stores of devices to `host`'s page known to [`CodeWrites`].
pub(crate) fn watch_page(ram: &hw_core::memory::RamList, host: usize) {
    for b in ram.blocks() {
        let base = b.host().as_ptr().addr();
        if let Some(off) = host.checked_sub(base)
            && (off as u64) < b.len()
        {
            b.clear_dirty(DirtyClient::Code, off as u64, PAGE);
        }
    }
}
