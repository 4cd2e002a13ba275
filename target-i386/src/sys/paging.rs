//! The page walk as a pure function of the paging registers and physical memory: no paging, 32-bit, PAE, 4-level.
//! Source: Intel SDM vol. 3A §4.3–4.8. Accessed and dirty bits are written by compare-and-swap once the access is known
//! to be allowed, never on a fault. Not modelled: protection keys, 5-level paging (CPUID reports neither).

/// Paging-structure entry bits common to all formats.
pub mod pte {
    /// Present.
    pub const P: u64 = 1;
    /// Writable.
    pub const W: u64 = 1 << 1;
    /// User.
    pub const U: u64 = 1 << 2;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// Page size: this entry maps a page.
    pub const PS: u64 = 1 << 7;
    /// Global.
    pub const G: u64 = 1 << 8;
    /// Execute-disable.
    pub const NX: u64 = 1 << 63;
}
/// Page-fault error code bits, SDM vol. 3A §4.7.
pub mod code {
    /// A protection violation or reserved bit, not a missing page.
    pub const P: u32 = 1;
    /// The access was a write.
    pub const W: u32 = 1 << 1;
    /// The access was a user-mode one.
    pub const U: u32 = 1 << 2;
    /// A reserved bit was set.
    pub const RSVD: u32 = 1 << 3;
    /// The access was an instruction fetch.
    pub const I: u32 = 1 << 4;
}

/// Physical memory as the walker sees it: naturally aligned table entries.
pub trait Entries {
    /// Reads a 4-byte entry.
    fn entry32(&mut self, pa: u64) -> u32;
    /// Reads an 8-byte entry.
    fn entry64(&mut self, pa: u64) -> u64;
    /// Replaces a 4-byte entry if it still is `old`.
    fn swap32(&mut self, pa: u64, old: u32, new: u32) -> bool;
    /// Replaces an 8-byte entry if it still is `old`.
    fn swap64(&mut self, pa: u64, old: u64, new: u64) -> bool;
}

/// Everything in registers that a walk depends on.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// CR3 as the guest wrote it.
    pub cr3: u64,
    /// PAE: the four PDPTEs loaded with CR3 (§4.4.1).
    pub pdpte: [u64; 4],
    /// Ones where a physical address may have bits: MAXPHYADDR.
    pub phys_mask: u64,
    /// Applied to every physical address: all ones, or bit 20 clear when the A20 line is masked.
    pub a20: u64,
    /// Which tables are in use.
    pub mode: PagingMode,
    /// CR4.PSE: 4 MiB pages in 32-bit paging.
    pub pse: bool,
    /// 1 GiB pages exist (CPUID).
    pub page1g: bool,
    /// EFER.NXE.
    pub nxe: bool,
    /// CR0.WP.
    pub wp: bool,
    /// CR4.SMEP.
    pub smep: bool,
    /// CR4.SMAP.
    pub smap: bool,
    /// CR4.PGE.
    pub pge: bool,
}
/// SDM vol. 3A table 4-1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagingMode {
    /// CR0.PG clear.
    None,
    /// Two levels of 4-byte entries.
    Bits32,
    /// PDPTEs in registers, two levels of 8-byte entries.
    Pae,
    /// Four levels of 8-byte entries.
    Level4,
}

/// What the access is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// Data write.
    pub write: bool,
    /// Instruction fetch.
    pub exec: bool,
    /// User-mode access.
    pub user: bool,
    /// A supervisor access that SMAP forbids on user pages: implicit, or EFLAGS.AC clear (§4.6.1).
    pub strict: bool,
}
/// A translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Physical address of the byte asked for.
    pub pa: u64,
    /// Later writes by the same kind of access need no walk: allowed, and the dirty bit is set.
    pub write: bool,
    /// Later fetches by the same kind of access need no walk.
    pub exec: bool,
    /// Later data reads need no walk (SMAP with `strict` set forbids them on a page found for a fetch).
    pub read: bool,
    /// The page is a user page.
    pub user: bool,
    /// Survives CR3 writes.
    pub global: bool,
    /// log2 of the page's size: 12, 21, 22 or 30; 32 without paging.
    pub shift: u32,
}

impl Paging {
    /// Error code of a fault on this access; `bits` are P and RSVD.
    fn fault(&self, want: Want, bits: u32) -> u32 {
        let fetch = want.exec && ((self.nxe && self.mode != PagingMode::Bits32) || self.smep);
        bits | if want.write { code::W } else { 0 }
            | if want.user { code::U } else { 0 }
            | if fetch { code::I } else { 0 }
    }
    /// Reserved bits of an 8-byte entry of the level that maps `1 << shift` bytes.
    fn reserved(&self, e: u64, shift: u32) -> u64 {
        // Bits 52–62 are ignored in 4-level paging, reserved in PAE paging (tables 4-9 to 4-20).
        let high = if self.mode == PagingMode::Pae { !pte::NX } else { (1 << 52) - 1 };
        let mut r = high & !self.phys_mask;
        if !self.nxe {
            r |= pte::NX
        }
        if e & pte::PS != 0 {
            match shift {
                39 => r |= pte::PS,
                30 if !self.page1g => r |= pte::PS,
                // The page's address starts at `shift`; bit 12 is PAT.
                21 | 30 => r |= (1 << shift) - (1 << 13),
                _ => {}
            }
        }
        r
    }
    /// Rights of the walked page against the access: the fault's code, or what may be done without another walk.
    #[inline(always)]
    fn decide(&self, want: Want, rights: u64, nx: bool, dirty: bool) -> Result<(bool, bool, bool), u32> {
        let user_page = rights & pte::U != 0;
        let writable = rights & pte::W != 0;
        let (r, w, x) = if want.user {
            (user_page, user_page && writable, user_page && !nx)
        } else {
            let data = !(user_page && self.smap && want.strict);
            (data, data && (writable || !self.wp), !(nx || user_page && self.smep))
        };
        let ok = if want.exec {
            x
        } else if want.write {
            w
        } else {
            r
        };
        if ok { Ok((r, w && (dirty || want.write), x)) } else { Err(self.fault(want, code::P)) }
    }
}

/// Translates `la`. Errors with the page-fault error code. The caller has truncated `la` outside 64-bit mode and checked
/// that it is canonical inside.
pub fn walk<M: Entries>(p: &Paging, mem: &mut M, la: u64, want: Want) -> Result<Page, u32> {
    match p.mode {
        PagingMode::None => Ok(Page {
            pa: la & 0xffff_ffff & p.a20,
            write: true,
            exec: true,
            read: true,
            user: true,
            global: false,
            shift: 32,
        }),
        PagingMode::Bits32 => walk32(p, mem, la as u32, want),
        PagingMode::Pae => {
            let e = p.pdpte[(la >> 30) as usize & 3];
            if e & pte::P == 0 {
                return Err(p.fault(want, 0));
            }
            walk64(p, mem, la & 0xffff_ffff, want, e & p.phys_mask & !0xfff, 21)
        }
        PagingMode::Level4 => walk64(p, mem, la, want, p.cr3 & p.phys_mask & !0xfff, 39),
    }
}

fn walk64<M: Entries>(p: &Paging, mem: &mut M, la: u64, want: Want, root: u64, top: u32) -> Result<Page, u32> {
    'again: loop {
        let (mut table, mut shift, mut rights, mut nx) = (root, top, pte::U | pte::W, 0);
        // Entries above the leaf whose accessed bit is still clear.
        let mut trail = [(0u64, 0u64); 3];
        let mut n = 0;
        let (pa, e) = loop {
            let pa = (table + ((la >> shift) & 0x1ff) * 8) & p.a20;
            let e = mem.entry64(pa);
            if e & pte::P == 0 {
                return Err(p.fault(want, 0));
            }
            if e & p.reserved(e, shift) != 0 {
                return Err(p.fault(want, code::P | code::RSVD));
            }
            rights &= e;
            nx |= e & pte::NX;
            if shift == 12 || e & pte::PS != 0 {
                break (pa, e);
            }
            if e & pte::A == 0 {
                trail[n] = (pa, e);
                n += 1;
            }
            table = e & p.phys_mask & !0xfff;
            shift -= 9;
        };
        let (read, write, exec) = p.decide(want, rights, nx != 0, e & pte::D != 0)?;
        for &(pa, e) in &trail[..n] {
            if !mem.swap64(pa, e, e | pte::A) {
                continue 'again;
            }
        }
        let new = e | pte::A | if want.write { pte::D } else { 0 };
        if new != e && !mem.swap64(pa, e, new) {
            continue 'again;
        }
        let low = (1u64 << shift) - 1;
        let frame = e & p.phys_mask & !0xfff & !low;
        return Ok(Page {
            pa: (frame | la & low) & p.a20,
            write,
            exec,
            read,
            user: rights & pte::U != 0,
            global: p.pge && e & pte::G != 0,
            shift,
        });
    }
}

fn walk32<M: Entries>(p: &Paging, mem: &mut M, la: u32, want: Want) -> Result<Page, u32> {
    loop {
        let dir_pa = ((p.cr3 & 0xffff_f000) + u64::from(la >> 22) * 4) & p.a20;
        let dir = mem.entry32(dir_pa);
        let d = u64::from(dir);
        if d & pte::P == 0 {
            return Err(p.fault(want, 0));
        }
        let large = p.pse && d & pte::PS != 0;
        if large && d & (1 << 21) != 0 {
            return Err(p.fault(want, code::P | code::RSVD));
        }
        let (pa, leaf, frame, shift) = if large {
            // PSE-36: bits 13–20 are address bits 32–39 (§4.3); those above MAXPHYADDR are reserved.
            let frame = d & 0xffc0_0000 | (d & 0x1f_e000) << 19;
            if frame & !p.phys_mask != 0 {
                return Err(p.fault(want, code::P | code::RSVD));
            }
            (dir_pa, dir, frame, 22)
        } else {
            let pa = ((d & 0xffff_f000) + u64::from(la >> 12 & 0x3ff) * 4) & p.a20;
            let e = mem.entry32(pa);
            if u64::from(e) & pte::P == 0 {
                return Err(p.fault(want, 0));
            }
            (pa, e, u64::from(e & 0xffff_f000), 12)
        };
        let rights = d & u64::from(leaf);
        let (read, write, exec) = p.decide(want, rights, false, u64::from(leaf) & pte::D != 0)?;
        if !large && d & pte::A == 0 && !mem.swap32(dir_pa, dir, dir | pte::A as u32) {
            continue;
        }
        let new = leaf | pte::A as u32 | if want.write { pte::D as u32 } else { 0 };
        if new != leaf && !mem.swap32(pa, leaf, new) {
            continue;
        }
        let low = (1u64 << shift) - 1;
        return Ok(Page {
            pa: (frame | u64::from(la) & low) & p.a20,
            write,
            exec,
            read,
            user: rights & pte::U != 0,
            global: p.pge && u64::from(leaf) & pte::G != 0,
            shift,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Ram(HashMap<u64, u32>);
    impl Entries for Ram {
        fn entry32(&mut self, pa: u64) -> u32 {
            self.0.get(&pa).copied().unwrap_or(0)
        }
        fn entry64(&mut self, pa: u64) -> u64 {
            u64::from(self.entry32(pa)) | u64::from(self.entry32(pa + 4)) << 32
        }
        fn swap32(&mut self, pa: u64, old: u32, new: u32) -> bool {
            let same = self.entry32(pa) == old;
            if same {
                self.0.insert(pa, new);
            }
            same
        }
        fn swap64(&mut self, pa: u64, old: u64, new: u64) -> bool {
            let same = self.entry64(pa) == old;
            if same {
                self.put64(pa, new);
            }
            same
        }
    }
    impl Ram {
        fn put64(&mut self, pa: u64, v: u64) {
            self.0.insert(pa, v as u32);
            self.0.insert(pa + 4, (v >> 32) as u32);
        }
    }
    fn paging(mode: PagingMode) -> Paging {
        Paging {
            cr3: 0x1000,
            pdpte: [0; 4],
            phys_mask: (1 << 40) - 1,
            a20: !0,
            mode,
            pse: true,
            page1g: true,
            nxe: true,
            wp: true,
            smep: false,
            smap: false,
            pge: true,
        }
    }
    const READ: Want = Want { write: false, exec: false, user: false, strict: true };
    const WRITE: Want = Want { write: true, ..READ };
    const EXEC: Want = Want { exec: true, ..READ };
    const USER: Want = Want { user: true, ..READ };
    /// Four levels to 0x5000 with these flags on the leaf and on the levels above.
    fn four(leaf: u64, upper: u64) -> Ram {
        let mut m = Ram::default();
        m.put64(0x1000, 0x2000 | upper);
        m.put64(0x2000, 0x3000 | upper);
        m.put64(0x3000, 0x4000 | upper);
        m.put64(0x4000 + 8, 0x5000 | leaf);
        m
    }

    #[test]
    fn rights_matrix_of_four_levels() {
        for leaf_w in [0, pte::W] {
            for leaf_u in [0, pte::U] {
                for up_w in [0, pte::W] {
                    for up_u in [0, pte::U] {
                        for nx in [0, pte::NX] {
                            for cfg in 0..8 {
                                for acc in 0..6 {
                                    let mut p = paging(PagingMode::Level4);
                                    (p.wp, p.smep, p.smap) = (cfg & 1 != 0, cfg & 2 != 0, cfg & 4 != 0);
                                    let (kind, user) = (acc % 3, acc >= 3);
                                    let want = Want { write: kind == 1, exec: kind == 2, user, strict: true };
                                    let (u, w) = (leaf_u != 0 && up_u != 0, leaf_w != 0 && up_w != 0);
                                    // §4.6.1, written the long way.
                                    let ok = match (kind, user) {
                                        (0, true) => u,
                                        (1, true) => u && w,
                                        (_, true) => u && nx == 0,
                                        (0, false) => !u || !p.smap,
                                        (1, false) => (w || !p.wp) && (!u || !p.smap),
                                        (_, false) => nx == 0 && !(u && p.smep),
                                    };
                                    let mut m = four(pte::P | leaf_w | leaf_u | nx, pte::P | up_w | up_u);
                                    let r = walk(&p, &mut m, 0x1abc, want);
                                    let touched = m.entry64(0x4008) & pte::A != 0 || m.entry64(0x1000) & pte::A != 0;
                                    assert_eq!(touched, ok, "accessed bits follow the outcome");
                                    match r {
                                        Ok(page) => assert!(ok && page.pa == 0x5abc && page.user == u, "{want:?}"),
                                        Err(c) => {
                                            let code = code::P
                                                | if want.write { code::W } else { 0 }
                                                | if user { code::U } else { 0 }
                                                | if want.exec { code::I } else { 0 };
                                            assert!(!ok && c == code, "{want:?} {c:#x}");
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    #[test]
    fn missing_at_every_level() {
        for (pa, level) in [(0x1000, 4), (0x2000, 3), (0x3000, 2), (0x4008, 1)] {
            let mut m = four(7, 7);
            m.put64(pa, 0x6);
            assert_eq!(walk(&paging(PagingMode::Level4), &mut m, 0x1000, WRITE), Err(code::W), "level {level}");
            assert_eq!(walk(&paging(PagingMode::Level4), &mut m, 0x1000, USER), Err(code::U));
        }
    }
    #[test]
    fn reserved_bits_of_four_levels() {
        let p = paging(PagingMode::Level4);
        for (pa, bits) in [
            (0x1000, pte::PS),
            (0x1000, 1 << 40),
            (0x2000, pte::PS | 1 << 13),
            (0x3000, pte::PS | 1 << 13),
            (0x3000, 1 << 51),
            (0x4008, 1 << 47),
        ] {
            let mut m = four(7, 7);
            let e = m.entry64(pa);
            m.put64(pa, e & !0xf000 | bits);
            assert_eq!(walk(&p, &mut m, 0x1000, READ), Err(code::P | code::RSVD), "{pa:#x} {bits:#x}");
        }
        // Bits 52–62 are software's.
        let mut m = four(7 | 0x7ff << 52, 7);
        assert!(walk(&p, &mut m, 0x1000, READ).is_ok());
        // NX is reserved without NXE, and a fetch is not told apart then.
        let off = Paging { nxe: false, ..p };
        assert_eq!(walk(&off, &mut four(7 | pte::NX, 7), 0x1000, EXEC), Err(code::P | code::RSVD));
        assert_eq!(
            walk(&Paging { page1g: false, ..p }, &mut four(7, 7 | pte::PS), 0x1000, READ),
            Err(code::P | code::RSVD)
        );
    }
    #[test]
    fn accessed_and_dirty() {
        let p = paging(PagingMode::Level4);
        let mut m = four(7 | pte::G, 7);
        let page = walk(&p, &mut m, 0x1008, READ).unwrap();
        assert!(
            !page.write && page.read && page.exec && page.global,
            "a clean page must be walked again to be written"
        );
        assert_eq!(m.entry64(0x4008), 0x5000 | 7 | pte::G | pte::A);
        assert_eq!(m.entry64(0x2000), 0x3000 | 7 | pte::A);
        let page = walk(&p, &mut m, 0x1008, WRITE).unwrap();
        assert!(page.write);
        assert_eq!(m.entry64(0x4008) & pte::D, pte::D);
        assert!(walk(&p, &mut m, 0x1008, READ).unwrap().write, "dirty already");
        assert!(!walk(&Paging { pge: false, ..p }, &mut m, 0x1008, READ).unwrap().global);
    }
    #[test]
    fn large_pages() {
        let p = paging(PagingMode::Level4);
        let mut m = Ram::default();
        m.put64(0x1000, 0x2000 | 7);
        m.put64(0x2000 + 8, 0x8000_0000 | 7 | pte::PS);
        m.put64(0x2000, 0x3000 | 7);
        m.put64(0x3000 + 8, 0x60_0000 | 7 | pte::PS | 1 << 12);
        assert_eq!(walk(&p, &mut m, 0x4123_4567, READ).unwrap().pa, 0x8123_4567);
        let page = walk(&p, &mut m, 0x23_4567, READ).unwrap();
        assert_eq!((page.pa, page.shift), (0x63_4567, 21));
    }
    #[test]
    fn pae() {
        let mut p = paging(PagingMode::Pae);
        p.pdpte = [0x2001, 0, 0, 0x3001];
        let mut m = Ram::default();
        m.put64(0x2000, 0x4000 | 7);
        m.put64(0x4000 + 0x10, 0x12_3456_7000 | 7);
        m.put64(0x3000 + 0x1ff * 8, 0xa0_0000 | 7 | pte::PS);
        assert_eq!(walk(&p, &mut m, 0x2fff, READ).unwrap().pa, 0x12_3456_7fff);
        assert_eq!(walk(&p, &mut m, 0xffff_ffff, READ).unwrap().pa, 0xbf_ffff);
        assert_eq!(walk(&p, &mut m, 0x4000_0000, READ), Err(0));
        m.put64(0x4000 + 0x10, 0x5000 | 7 | 1 << 52);
        assert_eq!(walk(&p, &mut m, 0x2000, READ), Err(code::P | code::RSVD), "bits 52-62 are reserved here");
    }
    #[test]
    fn bits32() {
        let p = paging(PagingMode::Bits32);
        let mut m = Ram::default();
        m.0.insert(0x1000, 0x2000 | 7);
        m.0.insert(0x2004, 0x5000 | 5);
        m.0.insert(0x1004, 0x0080_0000 | 0x87 | 0x12 << 13);
        m.0.insert(0x1008, 0x0080_0087 | 1 << 21);
        assert_eq!(walk(&p, &mut m, 0x1234, Want { exec: true, ..USER }).unwrap().pa, 0x5234);
        assert_eq!((m.entry32(0x1000), m.entry32(0x2004)), (0x2027, 0x5025));
        assert_eq!(walk(&p, &mut m, 0x1234, WRITE), Err(code::P | code::W));
        assert!(walk(&Paging { wp: false, ..p }, &mut m, 0x1234, WRITE).is_ok());
        let page = walk(&p, &mut m, 0x0040_1234, WRITE).unwrap();
        assert_eq!((page.pa, page.shift), (0x12_0080_1234, 22));
        assert_eq!(m.entry32(0x1004) & 0x60, 0x60);
        assert_eq!(walk(&p, &mut m, 0x0080_0000, READ), Err(code::P | code::RSVD));
        assert_eq!(walk(&p, &mut m, 0x1000_0000, EXEC), Err(0), "no I/D bit without NX or SMEP");
        assert_eq!(walk(&Paging { smep: true, ..p }, &mut m, 0x1000_0000, EXEC), Err(code::I));
    }
    #[test]
    fn masked_a20_wraps() {
        let p = Paging { a20: !(1 << 20), ..paging(PagingMode::None) };
        assert_eq!(walk(&p, &mut Ram::default(), 0x10_0010, READ).unwrap().pa, 0x10);
    }
    #[test]
    fn smap_needs_strict() {
        let p = Paging { smap: true, ..paging(PagingMode::Level4) };
        assert_eq!(walk(&p, &mut four(7, 7), 0x1000, READ), Err(code::P));
        assert!(walk(&p, &mut four(7, 7), 0x1000, Want { strict: false, ..READ }).is_ok());
    }
}
