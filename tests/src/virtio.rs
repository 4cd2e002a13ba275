//! A driver for virtio functions, by qtest: registers of both kinds, split and packed rings.
//! Source: virtio 1.2 §2.7, §2.8, §4.1.

use crate::qtest::Qtest;

/// Descriptor flags.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// The buffer is a table.
pub const INDIRECT: u16 = 4;
/// Feature `VERSION_1`.
pub const VIRTIO_PCI: u64 = 1 << 32;

/// Entries of the rings that are made here, where the driver may choose.
const SIZE: u16 = 16;
/// Where rings are put, and how far apart.
const RINGS: u64 = 0x80_0000;
const STEP: u64 = 0x1_0000;
/// Where base addresses are put: ports, MSI-X, modern registers.
const IO: u16 = 0xc000;
const MSIX: u64 = 0xfe00_0000;
const MODERN: u64 = 0xfe10_0000;
/// How often something is looked at that comes from another thread.
const PATIENCE: u32 = 100_000;

/// A buffer: address, length, flags.
pub type Desc = (u64, u32, u16);

/// A function on the root bus, and the machine it is in.
pub struct Virtio {
    /// The machine.
    pub q: Qtest,
    slot: u32,
    legacy: bool,
    vectors: bool,
}

impl Virtio {
    /// Maps the function in a slot and makes it a bus master.
    pub fn new(q: Qtest, slot: u32) -> Self {
        let mut v = Self { q, slot, legacy: false, vectors: false };
        v.set_config(0x10, 4, u32::from(IO));
        v.set_config(0x14, 4, MSIX as u32);
        v.set_config(0x20, 4, MODERN as u32);
        v.set_config(0x24, 4, 0);
        v.set_config(4, 2, 7);
        // Without modern registers there is no fourth base address.
        v.legacy = v.config(0x20, 4) == 0;
        v
    }

    fn select(&mut self, at: u32) {
        self.q.out(0xcf8, 4, 0x8000_0000 | self.slot << 11 | at & !3);
    }

    /// Reads configuration space.
    pub fn config(&mut self, at: u32, len: u32) -> u32 {
        self.select(at);
        self.q.inp(0xcfc + (at & 3) as u16, len)
    }

    /// Writes configuration space.
    pub fn set_config(&mut self, at: u32, len: u32, v: u32) {
        self.select(at);
        self.q.out(0xcfc + (at & 3) as u16, len, v);
    }

    /// Reads the common configuration.
    pub fn common(&mut self, at: u64, len: u32) -> u64 {
        self.q.load(MODERN + at, len)
    }

    /// Writes the common configuration.
    pub fn set_common(&mut self, at: u64, len: u32, v: u64) {
        self.q.store(MODERN + at, len, v);
    }

    /// Reads the device's configuration; eight bytes as two words.
    pub fn device(&mut self, at: u64, len: u32) -> u64 {
        if len == 8 {
            return self.device(at, 4) | self.device(at + 4, 4) << 32;
        }
        if self.legacy {
            self.q.inp(self.legacy_config(at), len).into()
        } else {
            self.q.load(MODERN + 0x2000 + at, len)
        }
    }

    /// Writes the device's configuration.
    pub fn set_device(&mut self, at: u64, len: u32, v: u64) {
        self.q.store(MODERN + 0x2000 + at, len, v);
    }

    fn legacy_config(&self, at: u64) -> u16 {
        IO + if self.vectors { 24 } else { 20 } + at as u16
    }

    /// Interrupt status, which reading clears.
    pub fn isr(&mut self) -> u64 {
        if self.legacy { self.q.inb(IO + 19).into() } else { self.q.load(MODERN + 0x1000, 1) }
    }

    /// Features that are offered.
    pub fn offered(&mut self) -> u64 {
        if self.legacy {
            return self.q.inp(IO, 4).into();
        }
        (0..2).fold(0, |all, n| {
            self.set_common(0, 4, n);
            all | self.common(4, 4) << (32 * n)
        })
    }

    /// Accepts features.
    pub fn accept(&mut self, features: u64) {
        if self.legacy {
            return self.q.out(IO + 4, 4, features as u32);
        }
        for n in 0..2 {
            self.set_common(8, 4, n);
            self.set_common(12, 4, features >> (32 * n) & 0xffff_ffff);
        }
    }

    /// What was written last, as far as it was offered: the registers keep what the driver wrote.
    pub fn accepted_by_device(&mut self) -> u64 {
        let offered = self.offered();
        let written = (0..2).fold(0, |all, n| {
            self.set_common(8, 4, n);
            all | self.common(12, 4) << (32 * n)
        });
        if self.common(0x14, 1) & 8 != 0 { offered } else { written & offered }
    }

    /// Writes the device status.
    pub fn set_status(&mut self, s: u8) {
        if self.legacy { self.q.outb(IO + 18, s) } else { self.set_common(0x14, 1, s.into()) }
    }

    /// Resets the device.
    pub fn reset(&mut self) {
        self.set_status(0);
    }

    /// Resets the device and negotiates.
    ///
    /// # Panics
    /// The device does not accept it.
    pub fn start(&mut self, features: u64) {
        self.reset();
        self.set_status(1);
        self.set_status(3);
        self.accept(features);
        if !self.legacy {
            self.set_status(11);
            assert_eq!(self.common(0x14, 1), 11, "the features are accepted");
        }
    }

    /// The driver is ready.
    pub fn driver_ok(&mut self) {
        self.set_status(if self.legacy { 7 } else { 15 });
    }

    /// Makes queue `n`, with empty rings.
    pub fn queue(&mut self, n: u16, packed: bool) -> Ring {
        let base = RINGS + u64::from(n) * STEP;
        self.q.write(base, &[0; STEP as usize]);
        if self.legacy {
            self.q.out(IO + 14, 2, n.into());
            let size = self.q.inp(IO + 12, 2) as u16;
            self.q.out(IO + 8, 4, (base >> 12) as u32);
            let driver = base + 16 * u64::from(size);
            let device = (driver + 4 + 2 * u64::from(size)).next_multiple_of(4096);
            return Ring::new(n, size, base, driver, device, false);
        }
        self.set_common(0x16, 2, n.into());
        self.set_common(0x18, 2, SIZE.into());
        let (driver, device) = (base + 0x1000, base + 0x2000);
        for (at, v) in [(0x20, base), (0x28, driver), (0x30, device)] {
            self.set_common(at, 4, v);
            self.set_common(at + 4, 4, 0);
        }
        self.set_common(0x1c, 2, 1);
        Ring::new(n, SIZE, base, driver, device, packed)
    }

    fn notify(&mut self, n: u16) {
        if self.legacy {
            self.q.out(IO + 16, 2, n.into());
        } else {
            self.q.store(MODERN + 0x3000 + 4 * u64::from(n), 2, n.into());
        }
    }

    /// Switches MSI-X on.
    pub fn enable_msix(&mut self) {
        self.set_config(0x9a, 2, 0x8000);
        self.vectors = true;
    }

    /// Sets a vector.
    pub fn set_vector(&mut self, n: u64, addr: u64, data: u32, masked: bool) {
        let at = MSIX + 16 * n;
        self.q.store(at, 8, addr);
        self.q.store(at + 8, 4, data.into());
        self.q.store(at + 12, 4, masked.into());
    }

    /// The pending bits.
    pub fn pending(&mut self) -> u64 {
        self.q.load(MSIX + 0x800, 8)
    }

    /// Looks until something is so.
    ///
    /// # Panics
    /// It does not become so.
    pub fn until(&mut self, what: &str, mut is: impl FnMut(&mut Self) -> bool) {
        assert!((0..PATIENCE).any(|_| is(self)), "{what} does not come");
    }

    /// A descriptor of a table.
    pub fn desc_bytes(&self, (addr, len, flags): Desc, next: u16) -> Vec<u8> {
        let mut b = addr.to_le_bytes().to_vec();
        b.extend(len.to_le_bytes());
        b.extend(flags.to_le_bytes());
        b.extend(next.to_le_bytes());
        b
    }
}

/// A queue as its driver sees it: one chain at a time.
pub struct Ring {
    n: u16,
    size: u16,
    table: u64,
    /// Available ring, or wishes for interrupts.
    pub driver: u64,
    device: u64,
    packed: bool,
    /// Chains are put into tables.
    pub indirect: bool,
    /// Chains are offered without a notification.
    pub quiet: bool,
    next: u16,
    wrap: bool,
    avail: u16,
    /// Where the used entry of the last chain is, and what its flags will be.
    expected: (u64, bool),
}

impl Ring {
    fn new(n: u16, size: u16, table: u64, driver: u64, device: u64, packed: bool) -> Self {
        Self {
            n,
            size,
            table,
            driver,
            device,
            packed,
            indirect: false,
            quiet: false,
            next: 0,
            wrap: true,
            avail: 0,
            expected: (0, true),
        }
    }

    /// Writes a descriptor of a split ring.
    pub fn desc(&mut self, v: &mut Virtio, at: u16, d: Desc, next: u16) {
        let bytes = v.desc_bytes(d, next);
        v.q.write(self.table + 16 * u64::from(at), &bytes);
    }

    /// Makes a chain available and notifies.
    ///
    /// # Panics
    /// The chain is longer than a ring that is used directly.
    pub fn offer(&mut self, v: &mut Virtio, parts: &[Desc]) {
        let table = self.table + 0x8000;
        let long = parts.len() > usize::from(self.size);
        let parts = if self.indirect || long {
            for (i, (addr, len, flags)) in parts.iter().enumerate() {
                let more = if self.packed || i + 1 == parts.len() { 0 } else { NEXT };
                let bytes = v.desc_bytes((*addr, *len, flags | more), i as u16 + 1);
                // The last two words of a packed descriptor change places.
                let bytes = if self.packed { [&bytes[..12], &bytes[14..], &bytes[12..14]].concat() } else { bytes };
                v.q.write(table + 16 * i as u64, &bytes);
            }
            vec![(table, 16 * parts.len() as u32, INDIRECT)]
        } else {
            parts.to_vec()
        };
        if self.packed { self.offer_packed(v, &parts) } else { self.offer_split(v, &parts) }
    }

    fn offer_split(&mut self, v: &mut Virtio, parts: &[Desc]) {
        let head = self.next;
        for (i, (addr, len, flags)) in parts.iter().enumerate() {
            let (at, next) = ((head + i as u16) % self.size, (head + i as u16 + 1) % self.size);
            let more = if i + 1 == parts.len() { 0 } else { NEXT };
            self.desc(v, at, (*addr, *len, flags | more), next);
        }
        self.next = (head + parts.len() as u16) % self.size;
        let index = self.avail.wrapping_add(1);
        self.publish(v, head, index);
    }

    /// Puts a head into the available ring, moves its index, and notifies.
    pub fn publish(&mut self, v: &mut Virtio, head: u16, index: u16) {
        v.q.store(self.driver + 4 + 2 * u64::from(self.avail % self.size), 2, head.into());
        v.q.store(self.driver + 2, 2, index.into());
        self.avail = index;
        // Interrupts are wanted for this one.
        let event = self.driver + 4 + 2 * u64::from(self.size);
        v.q.store(event, 2, index.wrapping_sub(1).into());
        self.kick(v);
    }

    fn offer_packed(&mut self, v: &mut Virtio, parts: &[Desc]) {
        self.expected = (self.table + 16 * u64::from(self.next), self.wrap);
        let mut entries = vec![];
        for (i, (addr, len, flags)) in parts.iter().enumerate() {
            let more = if i + 1 == parts.len() { 0 } else { NEXT };
            let state = if self.wrap { 1 << 7 } else { 1 << 15 };
            let mut b = addr.to_le_bytes().to_vec();
            b.extend(len.to_le_bytes());
            b.extend(7u16.to_le_bytes());
            b.extend((flags | more | state).to_le_bytes());
            entries.push((self.table + 16 * u64::from(self.next), b));
            self.next += 1;
            if self.next == self.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
        }
        // The first one last: it makes the chain available.
        entries.into_iter().rev().for_each(|(at, b)| v.q.write(at, &b));
        self.kick(v);
    }

    /// Notifies.
    pub fn kick(&mut self, v: &mut Virtio) {
        if !self.quiet {
            v.notify(self.n);
        }
    }

    /// Whether the chain that was offered last is used; a split ring.
    pub fn is_used(&self, v: &mut Virtio) -> bool {
        v.q.load(self.device + 2, 2) == u64::from(self.avail)
    }

    /// Bytes that the device says it wrote into the chain that was offered last; a split ring.
    pub fn used_len(&self, v: &mut Virtio) -> u64 {
        let slot = u64::from(self.avail.wrapping_sub(1) % self.size);
        v.q.load(self.device + 4 + 8 * slot + 4, 4)
    }

    /// How many chains were used so far; a split ring.
    pub fn used_count(&self, v: &mut Virtio) -> u64 {
        v.q.load(self.device + 2, 2)
    }

    /// Bytes that the device says it wrote into the `n`-th chain it used; a split ring.
    pub fn used_len_of(&self, v: &mut Virtio, n: u64) -> u64 {
        v.q.load(self.device + 4 + 8 * (n % u64::from(self.size)) + 4, 4)
    }

    /// Waits until the chain that was offered last is used.
    pub fn wait(&mut self, v: &mut Virtio) {
        let (device, avail, (at, wrap)) = (self.device, self.avail, self.expected);
        if self.packed {
            v.until("the used descriptor", |v| {
                let flags = v.q.load(at + 14, 2);
                (flags >> 7 & 1 != 0) == wrap && (flags >> 15 & 1 != 0) == wrap
            });
        } else {
            v.until("the used index", |v| v.q.load(device + 2, 2) == u64::from(avail));
        }
    }
}
