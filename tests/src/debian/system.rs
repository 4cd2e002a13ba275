//! A Debian that runs from its disk: booted by firmware and boot loader, logged in on the serial console.

use super::image::{FILE_SYSTEM, sparse_copy};
use crate::{guest::Guest, packages, tools::Tools};
use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The prompt at which one logs in.
pub const LOGIN: &str = "debian login: ";

/// How a disk is connected.
#[derive(Clone, Copy, Debug)]
pub struct Bus {
    /// The type of what the disk is connected to, or of the disk.
    pub name: &'static str,
    /// The options that connect the drive `d`.
    devices: &'static [&'static str],
}

/// The ways in which an installed system boots.
pub const BUSES: [Bus; 5] = [
    Bus { name: "ide-hd", devices: &["ide-hd,drive=d,bus=ide.0"] },
    Bus { name: "virtio-blk-pci", devices: &["virtio-blk-pci,drive=d"] },
    Bus { name: "virtio-scsi-pci", devices: &["virtio-scsi-pci,id=s", "scsi-hd,drive=d,bus=s.0"] },
    Bus { name: "nvme", devices: &["nvme,drive=d,serial=debian"] },
    Bus { name: "ich9-ahci", devices: &["ich9-ahci,id=a", "ide-hd,drive=d,bus=a.0"] },
];

impl Bus {
    /// The bus called `name`.
    pub fn named(name: &str) -> Option<Bus> {
        BUSES.into_iter().find(|b| b.name == name)
    }

    /// The options for an image in `format` on this bus.
    pub fn args(&self, image: &Path, format: &str) -> Vec<String> {
        let drive = format!("file={},format={format},if=none,id=d", image.display());
        let devices = self.devices.iter().flat_map(|d| ["-device".to_owned(), (*d).to_owned()]);
        ["-drive".to_owned(), drive].into_iter().chain(devices).collect()
    }
}

/// The options of a machine as people have it: memory, a virtio disk (a raw image), a virtio card on the user-mode network with its ROM.
///
/// # Errors
/// Firmware or ROMs cannot be fetched.
pub fn usual_machine(disk: &Path) -> Result<Vec<String>> {
    let card = ["-nic", "user,model=virtio-net-pci", "-device", "virtio-rng-pci"].map(str::to_owned);
    let roms = ["-L".to_owned(), text(packages::network_roms()?)];
    let drive = ["-drive".to_owned(), format!("file={},format=raw,if=virtio", disk.display())];
    Ok([&bare_machine()?[..], &card, &roms, &drive].concat())
}

/// The options of a machine with SeaBIOS and a gibibyte of memory.
///
/// # Errors
/// The firmware cannot be fetched.
pub fn bare_machine() -> Result<Vec<String>> {
    Ok(["-m".to_owned(), "1G".to_owned(), "-L".to_owned(), text(packages::seabios()?)].to_vec())
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// A copy of a raw image in another format; what is zero takes no room.
///
/// # Errors
/// A file cannot be read or written, or `qemu-img` fails.
pub fn copy_as(image: &Path, format: &str, to: &Path) -> Result<()> {
    match format {
        "raw" => sparse_copy(image, to),
        _ => {
            let mut cmd = packages::peer()?.command("qemu-img");
            cmd.args(["convert", "-f", "raw", "-O", format]).arg(image).arg(to);
            packages::run("copying an image", &mut cmd).map(drop)
        }
    }
}

/// Checks the image of a system that is powered off: the image itself, and the file system in it. Changes nothing.
///
/// # Errors
/// One of them is not clean; what was found.
pub fn check(tools: &Tools, image: &Path, format: &str) -> Result<()> {
    if format == "raw" {
        return tools.check_ext4(image, FILE_SYSTEM);
    }
    let peer = packages::peer()?;
    packages::run("qemu-img check", peer.command("qemu-img").args(["check", "-f", format]).arg(image))?;
    let raw = tempfile::NamedTempFile::new_in(image.parent().context("an image lies in a folder")?)?;
    let mut cmd = peer.command("qemu-img");
    cmd.args(["convert", "-f", format, "-O", "raw"]).arg(image).arg(raw.path());
    packages::run("reading an image", &mut cmd)?;
    tools.check_ext4(raw.path(), FILE_SYSTEM)
}

/// A running system, seen from its serial console.
pub struct System {
    guest: Guest,
    within: Duration,
}

impl System {
    /// Starts `qomet` with the serial console and `args`, such as [`usual_machine`]'s. Nothing may take longer than `within`.
    ///
    /// # Errors
    /// The process does not start.
    pub fn start(qomet: &Path, args: &[String], within: Duration) -> Result<System> {
        let mut cmd = Command::new(qomet);
        cmd.args(["-display", "none", "-no-user-config", "-serial", "stdio"]).args(args);
        Ok(System { guest: Guest::start(cmd)?, within })
    }

    /// Waits for the login prompt and logs in as root: the time from now to the prompt.
    ///
    /// # Errors
    /// There is no prompt; what was said last.
    pub fn log_in(&mut self) -> Result<Duration> {
        let from = Instant::now();
        self.guest.prompt(LOGIN, self.within)?;
        let took = from.elapsed();
        self.guest.say("root")?;
        self.guest.prompt("root@debian:~# ", self.within)?;
        // A shell that neither edits lines nor says them again.
        self.guest.say("stty -echo; PS1= exec sh")?;
        // What the kernel says, such as that the host was busy elsewhere, is not what commands say. (That a processor stood still is an
        // emergency to it, which no level keeps off the console.)
        self.run("dmesg -n 1; echo 0 > /proc/sys/kernel/soft_watchdog")?;
        Ok(took)
    }

    /// Runs a command: what it said.
    ///
    /// # Errors
    /// It fails, or does not end in time.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.guest.say(&format!("{command}; echo \"ENDS\" WITH $?"))?;
        let mut said = vec![];
        let code = loop {
            let (_, line) = self
                .guest
                .find_line(self.within, |_| true)
                .with_context(|| format!("'{command}' after:\n{}", self.guest.last_lines(20)))?;
            match line.rsplit_once("ENDS WITH ") {
                Some((last, code)) => {
                    said.push(last.to_owned());
                    break code.to_owned();
                }
                None => said.push(line),
            }
        };
        let text = said.join("\n").trim_end().to_owned();
        ensure!(code == "0", "'{command}' ends with {code}: {text}");
        Ok(text)
    }

    /// Has the machine started again by the guest.
    ///
    /// # Errors
    /// The process is gone.
    pub fn reboot(&mut self) -> Result<()> {
        self.guest.say("reboot")
    }

    /// Has the guest powered off, and waits for the end.
    ///
    /// # Errors
    /// The process ends otherwise, or not in time.
    pub fn power_off(mut self) -> Result<()> {
        self.guest.say("poweroff")?;
        self.guest.finish_timed(self.within)?;
        Ok(())
    }
}
