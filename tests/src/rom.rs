//! Small firmware images for tests: pieces of 16-bit code at fixed places of the 64 KiB below 1 MiB, which report on port E9H
//! (`-debugcon`) and end the machine with port 501H (`isa-debug-exit`).

use crate::process;
use iced_x86::{IcedError, code_asm::*};
use std::path::Path;

const SIZE: usize = 64 << 10;

/// Code that goes into an image.
pub type Piece<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The image of these pieces by offset; the machine enters it at offset 0 with CS F000H.
///
/// # Panics
/// When a piece cannot be assembled, or runs into the next.
pub fn image(pieces: &[(u16, Piece<'_>)]) -> Vec<u8> {
    let mut image = vec![0; SIZE];
    for (at, piece) in pieces {
        let mut a = CodeAssembler::new(16).expect("a bitness");
        piece(&mut a).expect("instructions");
        let code = a.assemble(u64::from(*at)).expect("assembles");
        let place = &mut image[usize::from(*at)..][..code.len()];
        assert!(place.iter().all(|b| *b == 0), "pieces overlap");
        place.copy_from_slice(&code);
    }
    enter_at_start(&mut image);
    image
}

/// Has the processor enter an image of 64 KiB at its first byte, with CS F000H: JMP F000:0000 at FFFF:0000.
///
/// # Panics
/// When the image is shorter than its last 16 bytes.
pub fn enter_at_start(image: &mut [u8]) {
    let vector = image.len() - 16;
    image[vector..vector + 5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
}

/// A byte on port E9H.
///
/// # Errors
/// None with this code.
pub fn say(a: &mut CodeAssembler, byte: u8) -> Result<(), IcedError> {
    a.mov(al, u32::from(byte))?;
    a.out(0xe9, al)
}

/// Ends the machine with status 1.
///
/// # Errors
/// None with this code.
pub fn end(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dx, 0x501)?;
    a.xor(ax, ax)?;
    a.out(dx, ax)?;
    // (The main loop ends the machine a moment later.)
    a.cli()?;
    a.hlt()
}

/// Runs an image on the machine of `args` until it ends itself; what it reported.
///
/// # Panics
/// When it does not end, or not by its own doing.
pub fn run(image: &[u8], args: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("rom"), image).expect("write");
    let text = |p: &Path| p.to_str().expect("UTF-8").to_owned();
    let (bios, log) = (text(&path("rom")), format!("file:{}", text(&path("log"))));
    let own = ["-display", "none", "-nodefaults", "-bios", &bios, "-debugcon", &log, "-device", "isa-debug-exit"];
    let out = process::run(&[&own, args].concat(), "");
    assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
    std::fs::read(path("log")).expect("a report")
}
