//! `cargo demo`: a real guest on this terminal.

use anyhow::{Context, Result};
use std::{
    path::PathBuf,
    process::{Command, exit},
};
use tests::{
    builtin_guest, debian,
    initramfs::{self, Init},
    packages,
};

/// What the demo boots, once fetched.
struct Guest {
    firmware: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Guest {
    fn fetch() -> Result<Guest> {
        Ok(Guest {
            firmware: packages::seabios()?,
            kernel: packages::kernel()?,
            initrd: initramfs::cached("demo.cpio", "amd64", Init::Shell, &[])?,
        })
    }
}

/// Builds the emulator, fetches the guest and runs it; further arguments go to the emulator.
pub fn run(extra: &[&str]) -> Result<()> {
    if let ["debian", rest @ ..] = extra {
        return run_debian(rest);
    }
    let qomet = crate::release_binary()?;
    let mut cmd = Command::new(qomet);
    match Guest::fetch() {
        Ok(guest) => {
            eprintln!("demo: booting Linux; `poweroff` in the guest ends it, Ctrl-A X ends the emulator");
            cmd.args(["-nographic", "-m", "512", "-no-reboot", "-append", "console=ttyS0 quiet"]);
            cmd.arg("-L").arg(guest.firmware).arg("-kernel").arg(guest.kernel).arg("-initrd").arg(guest.initrd);
        }
        Err(e) => {
            eprintln!("demo: no Linux guest can be fetched here ({e:#}); booting the built-in guest");
            let image = packages::target_dir().join("builtin-guest.rom");
            std::fs::write(&image, builtin_guest::rom().context("the built-in guest")?)?;
            cmd.args(["-nographic", "-nodefaults", "-serial", "mon:stdio", "-m", "64", "-no-reboot", "-bios"])
                .arg(image);
        }
    }
    let status = cmd.args(extra).status().context("cannot start qomet")?;
    exit(status.code().unwrap_or(1))
}

/// Boots Debian from a disk of its own, which keeps what is done in it.
fn run_debian(extra: &[&str]) -> Result<()> {
    let qomet = crate::release_binary()?;
    let image = debian::image()?;
    let disk = image.with_extension("demo");
    if !disk.exists() {
        let part = image.with_extension("demo-part");
        debian::sparse_copy(&image, &part)?;
        std::fs::rename(&part, &disk)?;
    }
    eprintln!("demo: booting Debian from {}, which keeps what you do in it", disk.display());
    eprintln!("demo: log in as root, no password; `poweroff` ends it, Ctrl-A X ends the emulator");
    let mut cmd = Command::new(qomet);
    cmd.arg("-nographic").args(debian::usual_machine(&disk)?);
    let status = cmd.args(extra).status().context("cannot start qomet")?;
    exit(status.code().unwrap_or(1))
}
