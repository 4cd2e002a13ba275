//! The DSDT, checked by the ACPI compiler: it must disassemble, and compile again without a warning.

use hw::acpi::{
    dsdt::{self, DsdtConfig, FloppyDrive, IsaDevices, Port},
    tables::{self, Fixed, Oem, Processor, TablesConfig},
};
use std::{fs, process::Command};

fn iasl(args: &[&str], dir: &std::path::Path) -> String {
    let out = Command::new(tests::packages::iasl().expect("iasl")).args(args).current_dir(dir).output().expect("iasl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "iasl {args:?}: {text}");
    text
}

#[test]
fn the_dsdt_is_clean_under_iasl() {
    let processors = vec![Processor { apic_id: 0, present: true }, Processor { apic_id: 1, present: false }];
    let port = |iobase, irq| Port { iobase, irq };
    let aml = dsdt::build(&DsdtConfig {
        processors: processors.clone(),
        hpet: true,
        isa: IsaDevices {
            rtc: true,
            i8042: true,
            fdc: Some(vec![FloppyDrive { unit: 0, kind: 5, last_track: 79, sectors: 48, last_head: 1 }]),
            pvpanic: Some(0x505),
            parallel: vec![port(0x378, 7)],
            serial: vec![port(0x3f8, 4), port(0x2f8, 3)],
        },
        pci_hole: (0xe000_0000, 0xfebf_ffff),
        pci_hole64: Some((0x1_8000_0000, 0x1_ffff_ffff)),
        hotplug_slots: (2..32).collect(),
    });
    let fixed = Fixed { pm_base: 0x600, gpe0: 0xafe0, sci: 9, century: 0x32 };
    let files = tables::build(&TablesConfig { oem: Oem::default(), fixed, processors, hpet: true, dsdt: aml });
    let length = u32::from_le_bytes(files.tables[68..72].try_into().expect("four bytes")) as usize;
    let mut table = files.tables[64..64 + length].to_vec();
    table[9] = table.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("dsdt.aml"), &table).expect("write");
    iasl(&["-d", "dsdt.aml"], dir.path());
    let report = iasl(&["-we", "-p", "again", "dsdt.dsl"], dir.path());
    assert!(report.contains("0 Errors, 0 Warnings"), "{report}");
}
