//! The static tables (FACS, FACP, APIC, HPET, WAET, RSDT, RSDP) and the blob they form with the DSDT.
//! Source: ACPI 1.0b §5.2, ACPI 6.5 §5.2.12 (MADT), IA-PC HPET 1.0a §3.2.4, Windows ACPI Emulated Devices Table (WAET).

use super::loader::{Loader, Zone};

/// fw_cfg file of the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// fw_cfg file of the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// fw_cfg file of the loader script.
pub const LOADER_FILE: &str = "etc/table-loader";
/// Size the tables file is padded to, so that later additions do not change the migration stream.
const TABLES_SIZE: usize = 0x20000;
const HEADER: usize = 36;

/// OEM identification every table header carries: `x-oem-id`, `x-oem-table-id` of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oem {
    /// OEMID, six bytes.
    pub id: [u8; 6],
    /// OEM table id, eight bytes.
    pub table_id: [u8; 8],
}

impl Default for Oem {
    fn default() -> Self {
        Oem { id: *b"BOCHS ", table_id: *b"BXPC    " }
    }
}

/// A processor's local APIC entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Initial local APIC id, below 255.
    pub apic_id: u8,
    /// Present at power-on; otherwise it may be plugged later.
    pub present: bool,
}

/// Fixed hardware of PIIX4 PM as the FADT describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Base of the PM1a event block; control follows at +4, the timer at +8.
    pub pm_base: u16,
    /// Base of the GPE0 block, 4 bytes.
    pub gpe0: u16,
    /// Interrupt of the SCI.
    pub sci: u16,
    /// CMOS index of the century.
    pub century: u8,
}

/// All that the tables depend on.
#[derive(Clone, Debug)]
pub struct TablesConfig {
    /// OEM identification.
    pub oem: Oem,
    /// Fixed hardware.
    pub fixed: Fixed,
    /// Processors in order of their ACPI UID.
    pub processors: Vec<Processor>,
    /// The machine has an HPET at 0xfed00000.
    pub hpet: bool,
    /// The DSDT's definition block (AML without header).
    pub dsdt: Vec<u8>,
}

/// The three fw_cfg files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiFiles {
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/table-loader`.
    pub loader: Vec<u8>,
}

struct Blob<'a> {
    bytes: Vec<u8>,
    oem: &'a Oem,
    loader: Loader,
}

impl Blob<'_> {
    fn here(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Appends a table with a standard header and has firmware fill in its checksum; returns its offset.
    fn table(&mut self, signature: [u8; 4], revision: u8, body: &[u8], pointers: &[u32]) -> u32 {
        let start = self.here();
        let length = (HEADER + body.len()) as u32;
        self.bytes.extend_from_slice(&signature);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&[revision, 0]);
        self.bytes.extend_from_slice(&self.oem.id);
        self.bytes.extend_from_slice(&self.oem.table_id);
        self.bytes.extend_from_slice(&1u32.to_le_bytes());
        self.bytes.extend_from_slice(b"BXPC");
        self.bytes.extend_from_slice(&1u32.to_le_bytes());
        self.bytes.extend_from_slice(body);
        for offset in pointers {
            self.loader.add_pointer(TABLES_FILE, TABLES_FILE, start + offset, 4);
        }
        self.loader.add_checksum(TABLES_FILE, start + 9, start, length);
        start
    }
}

fn facs() -> [u8; 64] {
    let mut t = [0; 64];
    t[..4].copy_from_slice(b"FACS");
    t[4..8].copy_from_slice(&64u32.to_le_bytes());
    t
}

/// FADT of ACPI 1.0 (revision 1), §5.2.5.
fn fadt(f: &Fixed, facs: u32, dsdt: u32) -> Vec<u8> {
    const WBINVD: u32 = 1 << 0;
    const PROC_C1: u32 = 1 << 2;
    const SLP_BUTTON: u32 = 1 << 5;
    const RTC_S4: u32 = 1 << 7;
    const USE_PLATFORM_CLOCK: u32 = 1 << 15;
    let pm = u32::from(f.pm_base);
    let mut t = Vec::with_capacity(80);
    t.extend([facs, dsdt].iter().flat_map(|v| v.to_le_bytes()));
    t.extend([1, 0]); // INT_MODEL: dual PIC and I/O APIC
    t.extend(f.sci.to_le_bytes());
    t.extend(0xb2u32.to_le_bytes()); // SMI_CMD
    t.extend([0xf1, 0xf0, 0, 0]); // ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT
    let blocks = [pm, 0, pm + 4, 0, 0, pm + 8, f.gpe0.into(), 0];
    t.extend(blocks.iter().flat_map(|v| v.to_le_bytes()));
    t.extend([4, 2, 0, 4, 4, 0, 0, 0]); // lengths of PM1_EVT, PM1_CNT, PM2_CNT, PM_TMR, GPE0, GPE1; GPE1_BASE, CST_CNT
    t.extend([0x0fffu16, 0x0fff, 0, 0].iter().flat_map(|v| v.to_le_bytes())); // no C2, no C3; flush size and stride
    t.extend([0, 0, 0, 0, f.century, 0, 0, 0]); // duty cycle, alarm days and months, century
    t.extend((WBINVD | PROC_C1 | SLP_BUTTON | RTC_S4 | USE_PLATFORM_CLOCK).to_le_bytes());
    t
}

/// MADT, ACPI 6.5 §5.2.12: local APICs, one I/O APIC, the ISA overrides, LINT1 = NMI.
fn madt(processors: &[Processor]) -> Vec<u8> {
    /// ISA interrupts that are not edge, active high on the pin of their own number: (source, GSI, flags).
    const OVERRIDES: [(u8, u32, u16); 5] = [(0, 2, 0), (5, 5, 0xd), (9, 9, 0xd), (10, 10, 0xd), (11, 11, 0xd)];
    let mut t = Vec::new();
    t.extend(0xfee0_0000u32.to_le_bytes());
    t.extend(1u32.to_le_bytes()); // PCAT_COMPAT
    for (uid, p) in processors.iter().enumerate() {
        t.extend([0, 8, uid as u8, p.apic_id]);
        t.extend(u32::from(p.present).to_le_bytes());
    }
    t.extend([1, 12, 0, 0]);
    t.extend(0xfec0_0000u32.to_le_bytes());
    t.extend(0u32.to_le_bytes());
    for (source, gsi, flags) in OVERRIDES {
        t.extend([2, 10, 0, source]);
        t.extend(gsi.to_le_bytes());
        t.extend(flags.to_le_bytes());
    }
    t.extend([4, 6, 0xff, 0, 0, 1]);
    t
}

/// HPET description table, IA-PC HPET 1.0a §3.2.4.
fn hpet() -> Vec<u8> {
    let mut t = Vec::new();
    t.extend(0x8086_a201u32.to_le_bytes()); // general capabilities: Intel, legacy capable, 64-bit, 3 timers, revision 1
    t.extend([0, 0, 0, 0]);
    t.extend(0xfed0_0000u64.to_le_bytes());
    t.extend([0, 0, 0, 0]);
    t
}

/// Builds the tables, the root pointer and the script that links them.
pub fn build(config: &TablesConfig) -> AcpiFiles {
    let mut loader = Loader::default();
    loader.allocate(RSDP_FILE, 16, Zone::Fseg);
    loader.allocate(TABLES_FILE, 64, Zone::High);
    let mut blob = Blob { bytes: facs().to_vec(), oem: &config.oem, loader };
    let dsdt = blob.table(*b"DSDT", 1, &config.dsdt, &[]);
    let mut all = vec![blob.table(*b"FACP", 1, &fadt(&config.fixed, 0, dsdt), &[36, 40])];
    all.push(blob.table(*b"APIC", 3, &madt(&config.processors), &[]));
    if config.hpet {
        all.push(blob.table(*b"HPET", 1, &hpet(), &[]));
    }
    // The RTC's and the PM timer's flaws are absent: ACPI PM timer good (bit 1).
    all.push(blob.table(*b"WAET", 1, &2u32.to_le_bytes(), &[]));
    let entries: Vec<u8> = all.iter().flat_map(|t| t.to_le_bytes()).collect();
    let pointers: Vec<u32> = (0..all.len() as u32).map(|i| HEADER as u32 + 4 * i).collect();
    let rsdt = blob.table(*b"RSDT", 1, &entries, &pointers);

    let mut rsdp = Vec::with_capacity(20);
    rsdp.extend(b"RSD PTR \0");
    rsdp.extend(config.oem.id);
    rsdp.push(0); // revision: ACPI 1.0
    rsdp.extend(rsdt.to_le_bytes());
    blob.loader.add_pointer(RSDP_FILE, TABLES_FILE, 16, 4);
    blob.loader.add_checksum(RSDP_FILE, 8, 0, 20);
    let mut tables = blob.bytes;
    tables.resize(tables.len().next_multiple_of(TABLES_SIZE), 0);
    AcpiFiles { tables, rsdp, loader: blob.loader.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../testdata/acpi-pc.json");

    fn config(dsdt: usize) -> TablesConfig {
        TablesConfig {
            oem: Oem::default(),
            fixed: Fixed { pm_base: 0x600, gpe0: 0xafe0, sci: 9, century: 0x32 },
            processors: vec![Processor { apic_id: 0, present: true }],
            hpet: true,
            dsdt: vec![0; dsdt - HEADER],
        }
    }

    fn table(files: &AcpiFiles, signature: &[u8; 4]) -> Vec<u8> {
        let at = files.tables.windows(4).position(|w| w == signature).unwrap();
        let length = u32::from_le_bytes(files.tables[at + 4..at + 8].try_into().unwrap()) as usize;
        let mut t = files.tables[at..at + length].to_vec();
        if signature != b"FACS" {
            t[9] = t.iter().fold(0u8, |s, b| s.wrapping_sub(*b)); // what the firmware does on ADD_CHECKSUM
        }
        t
    }

    #[test]
    fn static_tables_equal_the_reference() {
        let reference: serde_json::Value = serde_json::from_str(REFERENCE).unwrap();
        let files = build(&config(8500));
        for (name, hex) in reference["tables"].as_object().unwrap() {
            let mut ours = table(&files, name.as_bytes().try_into().unwrap());
            let hex = hex.as_str().unwrap();
            let mut theirs: Vec<u8> =
                (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            if name == "FACP" {
                for t in [&mut ours, &mut theirs] {
                    t[9] = 0;
                    t[36..44].fill(0); // pointers differ with the place
                }
            }
            assert_eq!(ours, theirs, "{name}");
        }
    }

    #[test]
    fn loader_script_equals_the_reference_for_the_same_dsdt_length() {
        let reference: serde_json::Value = serde_json::from_str(REFERENCE).unwrap();
        let mut expected = Loader::default();
        for e in reference["loader"].as_array().unwrap() {
            let text = |k: &str| e[k].as_str().unwrap();
            let num = |k: &str| e[k].as_u64().unwrap() as u32;
            match text("cmd") {
                "ALLOCATE" => {
                    let zone = if num("zone") == 1 { Zone::High } else { Zone::Fseg };
                    expected.allocate(text("file"), num("align"), zone)
                }
                "ADD_POINTER" => expected.add_pointer(text("file"), text("pointee"), num("offset"), num("size") as u8),
                "ADD_CHECKSUM" => expected.add_checksum(text("file"), num("offset"), num("start"), num("length")),
                other => panic!("{other}"),
            }
        }
        let files = build(&config(8500));
        assert_eq!(files.loader, expected.finish());
        assert_eq!(files.tables.len(), 131072);
        assert_eq!(files.rsdp, b"RSD PTR \0BOCHS \0\xc0\x22\0\0"); // the RSDT at 8896
    }
}
