//! Firmware boots from the network, by the boot ROM of each card that SeaBIOS runs one of.

use iced_x86::code_asm::CodeAssembler;
use tests::{packages, process, rom};

/// The boot program: it says its letter on port E9H and ends the machine.
fn program(letter: u8) -> Vec<u8> {
    let assemble = || {
        let mut a = CodeAssembler::new(16)?;
        rom::say(&mut a, letter)?;
        rom::end(&mut a)?;
        a.assemble(0x7c00)
    };
    assemble().expect("it assembles")
}

#[test]
fn each_card_boots_a_program_by_tftp() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
    let (bios, roms) = (packages::seabios().expect("SeaBIOS"), packages::network_roms().expect("boot ROMs"));
    let tftp = path("tftp");
    std::fs::create_dir(&tftp).unwrap();
    let cards = [("e1000", b'e'), ("rtl8139", b'r'), ("ne2k_pci", b'n'), ("virtio-net-pci", b'v')];
    let start = |(card, letter): (&str, u8)| {
        std::fs::write(format!("{tftp}/{card}.0"), program(letter)).unwrap();
        let debugcon = format!("file:{}", path(card));
        let nic = format!("user,model={card},tftp={tftp},bootfile=/{card}.0");
        let [bios, roms] = [&bios, &roms].map(|folder| folder.to_str().expect("a plain path"));
        let own = ["-display", "none", "-nodefaults", "-L", bios, "-L", roms, "-device", "isa-debug-exit"];
        process::start(&[&own[..], &["-boot", "n", "-debugcon", &debugcon, "-nic", &nic]].concat(), &[])
    };
    for (child, (card, letter)) in cards.map(start).into_iter().zip(cards) {
        let out = process::finish(child);
        assert_eq!(out.code, Some(1), "{card}: {}{}", out.stdout, out.stderr);
        assert_eq!(std::fs::read(path(card)).unwrap(), [letter], "{card}");
    }
}
