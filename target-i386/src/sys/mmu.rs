//! The walk as the engine calls it: paging registers and the kind of access made of the CPU's state; canonical addresses,
//! A20, watched pages. The tables themselves: `paging.rs`. Source: Intel SDM vol. 3A §4.1–4.7, vol. 1 §3.3.7.1.
use super::debug;
use super::desc::canonical;
use super::msr::efer;
use super::paging::{self, Entries, Page, Paging, PagingMode, Want};
use super::prelude::*;
use accel::tcg::{Access, Leaf, Phys};

impl Entries for Phys<'_> {
    #[inline]
    fn entry32(&mut self, pa: u64) -> u32 {
        self.load(W::B4, pa) as u32
    }
    #[inline]
    fn entry64(&mut self, pa: u64) -> u64 {
        self.load(W::B8, pa)
    }
    #[inline]
    fn swap32(&mut self, pa: u64, old: u32, new: u32) -> bool {
        self.cas(W::B4, pa, old.into(), new.into())
    }
    #[inline]
    fn swap64(&mut self, pa: u64, old: u64, new: u64) -> bool {
        self.cas(W::B8, pa, old, new)
    }
}

/// The paging registers of a state.
fn paging(s: &State) -> Paging {
    let f = &s.cpuid.features;
    let mode = if s.cr0 & cr0::PG == 0 {
        PagingMode::None
    } else if s.cr4 & cr4::PAE == 0 {
        PagingMode::Bits32
    } else if s.efer & efer::LMA == 0 {
        PagingMode::Pae
    } else {
        PagingMode::Level4
    };
    Paging {
        cr3: s.cr3,
        pdpte: s.pdpte,
        phys_mask: f.phys_mask,
        a20: s.a20_mask,
        mode,
        pse: s.cr4 & cr4::PSE != 0,
        page1g: f.page1g,
        nxe: s.efer & efer::NXE != 0,
        wp: s.cr0 & cr0::WP != 0,
        smep: s.cr4 & cr4::SMEP != 0,
        smap: s.cr4 & cr4::SMAP != 0,
        pge: s.cr4 & cr4::PGE != 0,
    }
}

/// Is `la` an address that this access can have? Comes before all that tables say, also of an operand's first page.
pub fn check_address(s: &State, la: u64, access: Access) -> Result<(), Exception> {
    // An access that goes on beyond 4 GiB is one beyond the segment's limit, whatever the limit is.
    let beyond = la >> 32 != 0 && access.who == Who::Current && !s.code64();
    if beyond || s.long() && !canonical(la) {
        return Err(if access.stack { Exception::ss(0) } else { Exception::gp(0) });
    }
    Ok(())
}

/// Translates the page of `la` for an access, setting accessed and dirty bits.
pub fn walk(s: &mut State, phys: &mut Phys<'_>, la: u64, access: Access) -> Result<Leaf, Exception> {
    check_address(s, la, access)?;
    let long = s.long();
    let la = if long { la } else { la & 0xffff_ffff };
    let user = match access.who {
        Who::Current => s.cpl == 3,
        Who::User => true,
        Who::Supervisor | Who::Implicit => false,
    };
    let want = Want {
        write: access.kind == Kind::Write,
        exec: access.kind == Kind::Exec,
        user,
        strict: access.who == Who::Implicit || u64::from(s.eflags) & eflags::AC == 0,
    };
    let page: Page = paging::walk(&paging(s), phys, la, want).map_err(|code| Exception::pf(code, la))?;
    Ok(Leaf {
        pa: page.pa & !0xfff,
        read: page.read,
        write: page.write,
        exec: page.exec,
        global: page.global,
        // Without paging nothing is ever invalidated by address.
        size: if page.shift == 32 { 4096 } else { 1 << page.shift },
        watch: debug::page_watched(s, la),
    })
}

/// Physical memory that a walk only reads.
struct ReadOnly<'a, 'b>(&'a mut Phys<'b>);
impl Entries for ReadOnly<'_, '_> {
    fn entry32(&mut self, pa: u64) -> u32 {
        self.0.entry32(pa)
    }
    fn entry64(&mut self, pa: u64) -> u64 {
        self.0.entry64(pa)
    }
    fn swap32(&mut self, _pa: u64, _old: u32, _new: u32) -> bool {
        true
    }
    fn swap64(&mut self, _pa: u64, _old: u64, _new: u64) -> bool {
        true
    }
}
/// Physical address of a linear one as a debugger sees it: with supervisor rights and without side effects.
pub fn translate(s: &State, phys: &mut Phys<'_>, la: u64) -> Option<u64> {
    let la = if s.long() { la } else { la & 0xffff_ffff };
    let want = Want { write: false, exec: false, user: false, strict: false };
    let page = paging::walk(&paging(s), &mut ReadOnly(phys), la, want).ok()?;
    Some(page.pa & !0xfff | la & 0xfff)
}

/// Full check of an access to segment `seg` outside of 64-bit mode; 14 stands for no segment.
pub fn segment(s: &State, seg: u8, offset: u64, bytes: u32, write: bool) -> Result<u64, Exception> {
    let Some(r) = s.segs.get(usize::from(seg)) else { return Ok(offset & 0xffff_ffff) };
    let fail = if usize::from(seg) == SS { Exception::ss(0) } else { Exception::gp(0) };
    let a = r.a();
    // Real and virtual-8086 mode look at limits only.
    if s.protected() && !s.vm86() && (!a.p() || if write { !a.writable() } else { !a.readable() }) {
        return Err(fail);
    }
    if offset >> 32 != 0 || !super::desc::in_limit(a, r.limit, offset as u32, bytes) {
        return Err(fail);
    }
    Ok(r.base.wrapping_add(offset) & 0xffff_ffff)
}
