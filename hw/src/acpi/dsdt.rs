//! The DSDT of the `pc` machine: PCI root and routing, ISA devices, sleep states, processors, hot-plug of both.
//! Source: ACPI 6.5 §6, §8, §19; PIIX3 datasheet (290550) PIRQRC; the CPU and PCI hot-plug register blocks are those of
//! QEMU's `docs/specs/acpi_cpu_hotplug` and `acpi_pci_hotplug` interfaces.

use super::tables::Processor;
use acpi_tables::{
    Aml, AmlSink,
    aml::{
        Acquire, AddressSpace, AddressSpaceCacheable, And, Arg, BufferData, CreateDWordField, Device, EISAName, Else,
        Equal, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, LessThan, Local,
        Memory32Fixed, Method, MethodCall, Mutex, Name, Notify, OpRegion, OpRegionSpace, Or, Package, PackageBuilder,
        Path, Release, ResourceTemplate, Return, Scope, ShiftLeft, Store, While, Zero,
    },
};

/// An ISA device with its ports and interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// First I/O port.
    pub iobase: u16,
    /// ISA interrupt.
    pub irq: u8,
}

/// A floppy drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloppyDrive {
    /// 0 or 1.
    pub unit: u8,
    /// Kind, as CMOS numbers them.
    pub kind: u8,
    /// Last track.
    pub last_track: u8,
    /// Sectors per track.
    pub sectors: u8,
    /// Last side.
    pub last_head: u8,
}

/// What stands on the ISA bus and has an ACPI name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IsaDevices {
    /// MC146818 at 0x70.
    pub rtc: bool,
    /// i8042: keyboard and mouse.
    pub i8042: bool,
    /// Floppy controller at 0x3f0, with its drives.
    pub fdc: Option<Vec<FloppyDrive>>,
    /// Port of a device that a guest tells of its panics.
    pub pvpanic: Option<u16>,
    /// Parallel ports.
    pub parallel: Vec<Port>,
    /// Serial ports.
    pub serial: Vec<Port>,
}

/// What the DSDT depends on.
#[derive(Clone, Debug)]
pub struct DsdtConfig {
    /// Processors in order of their ACPI UID.
    pub processors: Vec<Processor>,
    /// The machine has an HPET.
    pub hpet: bool,
    /// ISA devices.
    pub isa: IsaDevices,
    /// First and last address of the PCI hole below 4 GiB.
    pub pci_hole: (u32, u32),
    /// First and last address of the PCI hole above RAM, if there is one.
    pub pci_hole64: Option<(u64, u64)>,
    /// Slots of bus 0 a card may be plugged into or removed from.
    pub hotplug_slots: Vec<u8>,
}

const PCI_HOTPLUG: u16 = 0xae00;
const CPU_HOTPLUG: u16 = 0xaf00;

/// Generated AML, to be put into something larger.
struct Code(Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn code(parts: &[&dyn Aml]) -> Code {
    let mut bytes = Vec::new();
    for part in parts {
        part.to_aml_bytes(&mut bytes);
    }
    Code(bytes)
}

fn path(p: &str) -> Path {
    Path::new(p)
}

fn name(n: &str, value: &dyn Aml) -> Code {
    code(&[&Name::new(path(n), value)])
}

fn method(n: &str, args: u8, serialized: bool, body: &[&dyn Aml]) -> Code {
    code(&[&Method::new(path(n), args, serialized, body.to_vec())])
}

fn device(n: &str, body: &[&dyn Aml]) -> Code {
    code(&[&Device::new(path(n), body.to_vec())])
}

fn scope(n: &str, body: &[&dyn Aml]) -> Code {
    code(&[&Scope::new(path(n), body.to_vec())])
}

fn crs(resources: &[&dyn Aml]) -> Code {
    name("_CRS", &ResourceTemplate::new(resources.to_vec()))
}

fn field(region: &str, access: FieldAccessType, update: FieldUpdateRule, entries: Vec<FieldEntry>) -> Code {
    code(&[&Field::new(path(region), access, FieldLockRule::NoLock, update, entries)])
}

/// IRQ descriptor without flags: edge, active high, exclusive (ACPI 6.5 §6.4.2.1).
fn irq(n: u8) -> Code {
    let [lo, hi] = (1u16 << (n & 15)).to_le_bytes();
    Code(vec![0x22, lo, hi])
}

/// DMA descriptor: channel `n`, compatibility mode, 8-bit, not a bus master (§6.4.2.2).
fn dma(n: u8) -> Code {
    Code(vec![0x2a, 1 << (n & 7), 0])
}

/// Extended interrupt descriptor of a PCI link: consumer, level, active high, shared (§6.4.3.6).
fn link_interrupts(numbers: &[u32]) -> Code {
    let length = (2 + 4 * numbers.len()) as u16;
    let mut d = vec![0x89];
    d.extend(length.to_le_bytes());
    d.extend([0b1001, numbers.len() as u8]);
    d.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    Code(d)
}

/// The AML of the whole definition block.
pub fn build(c: &DsdtConfig) -> Vec<u8> {
    code(&[
        &pci_root(c),
        &isa_bridge(&c.isa),
        &links(),
        &hpet(c.hpet),
        &pci_hotplug(&c.hotplug_slots),
        &processors(&c.processors),
        &events(),
        &sleep_states(),
    ])
    .0
}

/// Device (18, pin A) of bus 0 uses link (slot + pin - 1) mod 4; the PIIX4's own pin A has the fixed SCI link.
fn routing() -> Code {
    const LINKS: [&str; 4] = ["LNKD", "LNKA", "LNKB", "LNKC"];
    let mut table = PackageBuilder::new();
    for slot in 0..32u32 {
        for pin in 0..4u32 {
            let link = LINKS.get(((slot + pin) & 3) as usize).copied().unwrap_or("LNKA");
            let link = if (slot, pin) == (1, 0) { "LNKS" } else { link };
            table.add_element(&Package::new(vec![&(slot << 16 | 0xffff), &pin, &path(link), &0u32]));
        }
    }
    name("_PRT", &table)
}

fn pci_root(c: &DsdtConfig) -> Code {
    let bus = AddressSpace::new_bus_number(0u16, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let io: [AddressSpace<u16>; 2] =
        [AddressSpace::new_io(0, 0xcf7, None), AddressSpace::new_io(0xd00, PCI_HOTPLUG - 1, None)];
    // The hot-plug and power-management blocks between are claimed by the devices below.
    let io_high: AddressSpace<u16> = AddressSpace::new_io(CPU_HOTPLUG + 0x100, 0xffff, None);
    let vga = AddressSpace::new_memory(AddressSpaceCacheable::Cacheable, true, 0xa_0000u32, 0xb_ffff, None);
    let hole = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, c.pci_hole.0, c.pci_hole.1, None);
    let hole64 = c.pci_hole64.map(|(first, last)| {
        code(&[&AddressSpace::new_memory(AddressSpaceCacheable::Cacheable, true, first, last, None)])
    });
    let mut windows: Vec<&dyn Aml> = vec![&bus, &config];
    windows.extend(io.iter().map(|w| w as &dyn Aml));
    windows.extend([&io_high as &dyn Aml, &vga, &hole]);
    windows.extend(hole64.iter().map(|w| w as &dyn Aml));
    let host = device(
        "PCI0",
        &[&name("_HID", &EISAName::new("PNP0A03")), &name("_UID", &Zero {}), &crs(&windows), &routing()],
    );
    scope("\\_SB_", &[&host])
}

fn isa_device(n: &str, hid: &str, uid: Option<u8>, resources: &[&dyn Aml]) -> Code {
    let uid = uid.map(|u| name("_UID", &u));
    let (hid, sta, crs) = (name("_HID", &EISAName::new(hid)), name("_STA", &0xfu8), crs(resources));
    let mut body: Vec<&dyn Aml> = vec![&hid];
    body.extend(uid.iter().map(|u| u as &dyn Aml));
    body.extend([&sta as &dyn Aml, &crs]);
    device(n, &body)
}

/// The drives of a controller, and which there are: `_FDI` (§9.9.2, with INT 13H's parameters of a 3.5 inch drive) and `_FDE` (§9.9.1;
/// tape: never).
fn floppy_drives(drives: &[FloppyDrive]) -> Code {
    let mut present = [0u32, 0, 0, 0, 2];
    let mut all = vec![];
    for d in drives {
        if let Some(p) = present.get_mut(usize::from(d.unit)) {
            *p = 1;
        }
        let mut info = PackageBuilder::new();
        let int13 = [0xaf, 0x02, 0x25, 0x02, 0x12, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08];
        for v in [d.unit, d.kind, d.last_track, d.sectors, d.last_head].into_iter().chain(int13) {
            info.add_element(&v);
        }
        let letter = if d.unit == 0 { "FLPA" } else { "FLPB" };
        all.push(device(letter, &[&name("_ADR", &d.unit), &name("_FDI", &info)]));
    }
    all.push(name("_FDE", &BufferData::new(present.into_iter().flat_map(u32::to_le_bytes).collect())));
    let parts: Vec<&dyn Aml> = all.iter().map(|a| a as &dyn Aml).collect();
    code(&parts)
}

/// The device of QEMU's `docs/specs/pvpanic.rst`: methods that read its port and write it.
fn pvpanic(port: u16) -> Code {
    device(
        "PEVT",
        &[
            &name("_HID", &"QEMU0001"),
            &crs(&[&IO::new(port, port, 1, 1)]),
            &OpRegion::new(path("PEOR"), OpRegionSpace::SystemIO, &port, &1u8),
            &field("PEOR", FieldAccessType::Byte, FieldUpdateRule::Preserve, vec![FieldEntry::Named(*b"PEPT", 8)]),
            &name("_STA", &0xfu8),
            &method("RDPT", 0, false, &[&Store::new(&Local(0), &path("PEPT")), &Return::new(&Local(0))]),
            &method("WRPT", 1, false, &[&Store::new(&path("PEPT"), &Arg(0))]),
        ],
    )
}

fn isa_bridge(isa: &IsaDevices) -> Code {
    let io = |base: u16, align: u8, length: u8| IO::new(base, base, align, length);
    let mut all = vec![
        name("_ADR", &0x1_0000u32),
        code(&[&OpRegion::new(path("P40C"), OpRegionSpace::PCIConfig, &0x60u8, &4u8)]),
    ];
    if isa.rtc {
        all.push(isa_device("RTC_", "PNP0B00", None, &[&io(0x70, 1, 8), &irq(8)]));
    }
    if isa.i8042 {
        all.push(isa_device("KBD_", "PNP0303", None, &[&io(0x60, 1, 1), &io(0x64, 1, 1), &irq(1)]));
        all.push(isa_device("MOU_", "PNP0F13", None, &[&irq(12)]));
    }
    if let Some(drives) = &isa.fdc {
        let (hid, crs) =
            (name("_HID", &EISAName::new("PNP0700")), crs(&[&io(0x3f2, 0, 4), &io(0x3f7, 0, 1), &irq(6), &dma(2)]));
        all.push(device("FDC0", &[&hid, &crs, &floppy_drives(drives)]));
    }
    if let Some(port) = isa.pvpanic {
        all.push(pvpanic(port));
    }
    for (i, p) in (1u8..).zip(&isa.parallel) {
        all.push(isa_device(&format!("LPT{i}"), "PNP0400", Some(i), &[&io(p.iobase, 8, 8), &irq(p.irq)]));
    }
    for (i, p) in (1u8..).zip(&isa.serial) {
        all.push(isa_device(&format!("COM{i}"), "PNP0501", Some(i), &[&io(p.iobase, 8, 8), &irq(p.irq)]));
    }
    let body: Vec<&dyn Aml> = all.iter().map(|a| a as &dyn Aml).collect();
    scope("\\_SB_.PCI0", &[&device("ISA_", &body)])
}

/// The PIIX3's four interrupt links over PIRQRC[A:D] (config 60h-63h: bit 7 = not routed, bits 3:0 = ISA interrupt).
fn links() -> Code {
    const PIRQ: [(&str, &str); 4] = [("LNKA", "PRQ0"), ("LNKB", "PRQ1"), ("LNKC", "PRQ2"), ("LNKD", "PRQ3")];
    let entries = PIRQ.iter().map(|(_, reg)| FieldEntry::Named(name4(reg), 8)).collect();
    let regs = field("PCI0.ISA_.P40C", FieldAccessType::Byte, FieldUpdateRule::Preserve, entries);
    let mut all = vec![regs];
    for (uid, (link, reg)) in (0u8..).zip(PIRQ) {
        let reg = path(reg);
        let unrouted = And::new(&Zero {}, &reg, &0x80u8);
        let current = CreateDWordField::new(&path("PRRI"), &path("PRR0"), &5u8).boxed();
        all.push(device(
            link,
            &[
                &name("_HID", &EISAName::new("PNP0C0F")),
                &name("_UID", &uid),
                &name("_PRS", &ResourceTemplate::new(vec![&link_interrupts(&[5, 10, 11])])),
                &method("_STA", 0, false, &[&If::new(&unrouted, vec![&Return::new(&9u8)]), &Return::new(&0xbu8)]),
                &method("_DIS", 0, false, &[&Or::new(&reg, &reg, &0x80u8)]),
                &method(
                    "_CRS",
                    0,
                    true,
                    &[
                        &Name::new(path("PRR0"), &ResourceTemplate::new(vec![&link_interrupts(&[0])])),
                        &current,
                        &If::new(&LessThan::new(&reg, &0x80u8), vec![&Store::new(&path("PRRI"), &reg)]),
                        &Return::new(&path("PRR0")),
                    ],
                ),
                &method(
                    "_SRS",
                    1,
                    true,
                    &[&CreateDWordField::new(&path("PRRI"), &Arg(0), &5u8), &Store::new(&reg, &path("PRRI"))],
                ),
            ],
        ));
    }
    let fixed = ResourceTemplate::new(vec![&link_interrupts(&[9])]).boxed();
    all.push(device(
        "LNKS",
        &[
            &name("_HID", &EISAName::new("PNP0C0F")),
            &name("_UID", &4u8),
            &name("_PRS", &fixed),
            &name("_CRS", &fixed),
            &name("_STA", &0xbu8),
            &method("_DIS", 0, false, &[]),
            &method("_SRS", 1, false, &[]),
        ],
    ));
    let body: Vec<&dyn Aml> = all.iter().map(|a| a as &dyn Aml).collect();
    scope("\\_SB_", &body)
}

fn name4(s: &str) -> [u8; 4] {
    let mut out = [b'_'; 4];
    for (o, b) in out.iter_mut().zip(s.bytes()) {
        *o = b;
    }
    out
}

fn hpet(present: bool) -> Code {
    if !present {
        return Code(Vec::new());
    }
    let registers = Memory32Fixed::new(false, 0xfed0_0000, 0x400);
    let hpet = device(
        "HPET",
        &[
            &name("_HID", &EISAName::new("PNP0103")),
            &name("_UID", &Zero {}),
            &name("_STA", &0xfu8),
            &crs(&[&registers]),
        ],
    );
    scope("\\_SB_", &[&hpet])
}

/// Registers at 0xae00: slots with a new card, slots asked to let go, ejection, bus selection.
fn pci_hotplug(slots: &[u8]) -> Code {
    let regions = code(&[
        &OpRegion::new(path("PCST"), OpRegionSpace::SystemIO, &PCI_HOTPLUG, &0x08u8),
        &field(
            "PCST",
            FieldAccessType::DWord,
            FieldUpdateRule::WriteAsZeroes,
            vec![FieldEntry::Named(*b"PCIU", 32), FieldEntry::Named(*b"PCID", 32)],
        ),
        &OpRegion::new(path("SEJ_"), OpRegionSpace::SystemIO, &(PCI_HOTPLUG + 8), &0x04u8),
        &field("SEJ_", FieldAccessType::DWord, FieldUpdateRule::WriteAsZeroes, vec![FieldEntry::Named(*b"B0EJ", 32)]),
        &OpRegion::new(path("BNMR"), OpRegionSpace::SystemIO, &(PCI_HOTPLUG + 0x10), &0x04u8),
        &field("BNMR", FieldAccessType::DWord, FieldUpdateRule::WriteAsZeroes, vec![FieldEntry::Named(*b"BNUM", 32)]),
        &Mutex::new(path("BLCK"), 0),
    ]);
    let claims = device(
        "PHPR",
        &[
            &name("_HID", &EISAName::new("PNP0A06")),
            &name("_UID", &"PCI Hotplug resources"),
            &name("_STA", &0xbu8),
            &crs(&[&IO::new(PCI_HOTPLUG, PCI_HOTPLUG, 1, 0x18)]),
        ],
    );
    let eject = method(
        "PCEJ",
        2,
        true,
        &[
            &Acquire::new(path("BLCK"), 0xffff),
            &Store::new(&path("BNUM"), &Arg(0)),
            &ShiftLeft::new(&path("B0EJ"), &1u8, &Arg(1)),
            &Release::new(path("BLCK")),
        ],
    );
    let mut all = vec![regions, claims, eject, name("BSEL", &Zero {})];
    let mut notify = Vec::new();
    for &slot in slots {
        let (n, mask) = (format!("S{:02X}_", slot & 31), 1u32 << (slot & 31));
        all.push(device(
            &n,
            &[
                &name("_SUN", &slot),
                &name("_ADR", &(u32::from(slot) << 16)),
                &method("_EJ0", 1, false, &[&MethodCall::new(path("PCEJ"), vec![&path("BSEL"), &path("_SUN")])]),
            ],
        ));
        let asked = And::new(&Zero {}, &Arg(0), &mask);
        notify.push(code(&[&If::new(&asked, vec![&Notify::new(&path(&n), &Arg(1))])]));
    }
    let notify: Vec<&dyn Aml> = notify.iter().map(|n| n as &dyn Aml).collect();
    all.push(method("DVNT", 2, false, &notify));
    all.push(method(
        "PCNT",
        0,
        true,
        &[
            &Acquire::new(path("BLCK"), 0xffff),
            &Store::new(&path("BNUM"), &path("BSEL")),
            &Store::new(&Local(0), &path("PCIU")),
            &Store::new(&Local(1), &path("PCID")),
            &Release::new(path("BLCK")),
            &MethodCall::new(path("DVNT"), vec![&Local(0), &1u8]),
            &MethodCall::new(path("DVNT"), vec![&Local(1), &3u8]),
        ],
    ));
    let body: Vec<&dyn Aml> = all.iter().map(|a| a as &dyn Aml).collect();
    scope("\\_SB_.PCI0", &body)
}

/// Processors, and the hot-plug registers at 0xaf00 (selector 0, flags 4, command 5, data 8).
fn processors(cpus: &[Processor]) -> Code {
    let regions = code(&[
        &OpRegion::new(path("PRST"), OpRegionSpace::SystemIO, &CPU_HOTPLUG, &0x0cu8),
        &field(
            "PRST",
            FieldAccessType::Byte,
            FieldUpdateRule::WriteAsZeroes,
            vec![
                FieldEntry::Reserved(32),
                FieldEntry::Named(*b"CPEN", 1),
                FieldEntry::Named(*b"CINS", 1),
                FieldEntry::Named(*b"CRMV", 1),
                FieldEntry::Named(*b"CEJ0", 1),
                FieldEntry::Reserved(4),
                FieldEntry::Named(*b"CCMD", 8),
            ],
        ),
        &field(
            "PRST",
            FieldAccessType::DWord,
            FieldUpdateRule::Preserve,
            vec![FieldEntry::Named(*b"CSEL", 32), FieldEntry::Reserved(32), FieldEntry::Named(*b"CDAT", 32)],
        ),
        &Mutex::new(path("CPLK"), 0),
    ]);
    let lock = Acquire::new(path("CPLK"), 0xffff);
    let unlock = Release::new(path("CPLK"));
    let select = Store::new(&path("CSEL"), &Arg(0)).boxed();
    let status = method(
        "CSTA",
        1,
        true,
        &[
            &lock,
            &select,
            &Store::new(&Local(0), &Zero {}),
            &If::new(&Equal::new(&path("CPEN"), &1u8), vec![&Store::new(&Local(0), &0xfu8)]),
            &unlock,
            &Return::new(&Local(0)),
        ],
    );
    let eject = method("CEJE", 1, true, &[&lock, &select, &Store::new(&path("CEJ0"), &1u8), &unlock]);
    let ost = method(
        "COST",
        3,
        true,
        &[
            &lock,
            &select,
            &Store::new(&path("CCMD"), &1u8),
            &Store::new(&path("CDAT"), &Arg(1)),
            &Store::new(&path("CCMD"), &2u8),
            &Store::new(&path("CDAT"), &Arg(2)),
            &unlock,
        ],
    );
    let handled = |flag: &str, event: u8| {
        let (flag, data) = (path(flag), path("CDAT"));
        code(&[
            &MethodCall::new(path("CTFY"), vec![&data, &event]),
            &Store::new(&flag, &1u8),
            &Store::new(&Local(0), &1u8),
        ])
    };
    let (inserted, removed) = (handled("CINS", 1), handled("CRMV", 3));
    let remove = If::new(&Equal::new(&path("CRMV"), &1u8), vec![&removed]).boxed();
    let scan = method(
        "CSCN",
        0,
        true,
        &[
            &lock,
            &Store::new(&Local(0), &1u8),
            &While::new(
                &Equal::new(&Local(0), &1u8),
                vec![
                    &Store::new(&Local(0), &Zero {}),
                    &Store::new(&path("CCMD"), &Zero {}),
                    &If::new(&Equal::new(&path("CINS"), &1u8), vec![&inserted]),
                    &Else::new(vec![&remove]),
                ],
            ),
            &unlock,
        ],
    );
    let claims = device(
        "PRES",
        &[
            &name("_HID", &EISAName::new("PNP0A06")),
            &name("_UID", &"CPU Hotplug resources"),
            &name("_STA", &0xbu8),
            &crs(&[&IO::new(CPU_HOTPLUG, CPU_HOTPLUG, 1, 0x0c)]),
        ],
    );
    let mut all = vec![name("_HID", &"ACPI0010"), name("_CID", &EISAName::new("PNP0A05")), status, eject, ost];
    let mut notify = Vec::new();
    for (i, cpu) in (0u32..).zip(cpus) {
        let n = format!("C{i:03X}");
        let mat = BufferData::new([&[0, 8, i as u8, cpu.apic_id][..], &[1, 0, 0, 0]].concat());
        let parts = code(&[
            &name("_HID", &"ACPI0007"),
            &name("_UID", &i),
            &method("_STA", 0, true, &[&Return::new(&MethodCall::new(path("CSTA"), vec![&i]))]),
            &name("_MAT", &mat),
        ]);
        // The boot processor cannot leave.
        let leave = code(&[
            &method("_EJ0", 1, false, &[&MethodCall::new(path("CEJE"), vec![&i])]),
            &method("_OST", 3, true, &[&MethodCall::new(path("COST"), vec![&i, &Arg(0), &Arg(1)])]),
        ]);
        let body: &[&dyn Aml] = if i == 0 { &[&parts] } else { &[&parts, &leave] };
        all.push(device(&n, body));
        notify.push(code(&[&If::new(&Equal::new(&Arg(0), &i), vec![&Notify::new(&path(&n), &Arg(1))])]));
    }
    let notify: Vec<&dyn Aml> = notify.iter().map(|n| n as &dyn Aml).collect();
    all.push(method("CTFY", 2, false, &notify));
    all.push(scan);
    let body: Vec<&dyn Aml> = all.iter().map(|a| a as &dyn Aml).collect();
    scope("\\_SB_", &[&regions, &claims, &device("CPUS", &body)])
}

/// General-purpose events of GPE0: 1 = PCI hot-plug, 2 = CPU hot-plug.
fn events() -> Code {
    let pci = method("_E01", 0, false, &[&MethodCall::new(path("\\_SB_.PCI0.PCNT"), vec![])]);
    let cpu = method("_E02", 0, false, &[&MethodCall::new(path("\\_SB_.CPUS.CSCN"), vec![])]);
    scope("\\_GPE", &[&name("_HID", &"ACPI0006"), &pci, &cpu])
}

/// SLP_TYP values of PIIX4 PM: S3 = 1, S4 = 2, S5 = 0 (soft-off).
fn sleep_states() -> Code {
    let state = |n: &str, typ: u8| name(n, &Package::new(vec![&typ, &typ, &Zero {}, &Zero {}]));
    code(&[&state("_S3_", 1), &state("_S4_", 2), &state("_S5_", 0)])
}

/// Lets a short-lived AML object be built once and placed several times.
trait Boxed: Aml {
    fn boxed(&self) -> Code {
        let mut bytes = Vec::new();
        self.to_aml_bytes(&mut bytes);
        Code(bytes)
    }
}
impl<T: Aml> Boxed for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_name() {
        let config = DsdtConfig {
            processors: vec![Processor { apic_id: 0, present: true }, Processor { apic_id: 1, present: false }],
            hpet: true,
            isa: IsaDevices { rtc: true, serial: vec![Port { iobase: 0x3f8, irq: 4 }], ..IsaDevices::default() },
            pci_hole: (0xe000_0000, 0xfebf_ffff),
            pci_hole64: None,
            hotplug_slots: vec![3, 4],
        };
        let aml = build(&config);
        let has = |n: &[u8]| aml.windows(n.len()).any(|w| w == n);
        for n in ["PCI0", "LNKD", "LNKS", "COM1", "RTC_", "HPET", "S03_", "C001", "_E02", "_S5_"] {
            assert!(has(n.as_bytes()), "{n}");
        }
        assert!(!has(b"COM2") && !has(b"LPT1"));
        let none = build(&DsdtConfig { hpet: false, ..config });
        assert!(!none.windows(4).any(|w| w == b"HPET"));
    }
}
