//! What a guest with devices has: a disk of each kind and a network card, the same on both sides.

use super::image::{Setup, guest_program, with_modules};
use crate::packages::{self, Peer};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

/// Bytes of a disk.
const DISK: u64 = 256 << 20;
/// Drivers that the guest loads.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_net", "ata_piix", "sd_mod"];
/// What the guest does before the first command, besides loading them: it waits for what drivers find later.
const SETUP: &str = "\
    for i in $(seq 200); do\n\
    [ -b /dev/vda ] && [ -b /dev/vdb ] && [ -b /dev/vdc ] && [ -b /dev/sda ] && break; sleep 0.05\ndone\n\
    [ -b /dev/vdc ] && [ -b /dev/sda ] || { echo NO disks; exit 1; }\n\
    ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2";

/// One side's devices. Its images go with the value.
#[derive(Debug)]
pub struct Devices {
    dir: tempfile::TempDir,
    /// Port of the host that leads into the guest.
    forward: u16,
    server: u16,
}

/// An image with the guest program and the drivers.
///
/// # Errors
/// A package cannot be fetched, or the file cannot be written.
pub fn image() -> Result<PathBuf> {
    with_modules(&guest_program()?, &Setup { name: "bench-devices.cpio", modules: &MODULES, script: SETUP })
}

impl Devices {
    /// Makes images in a folder below `target`, so that they are on the disk the project is on. `server`: see [`super::server`].
    ///
    /// # Errors
    /// They cannot be made.
    pub fn new(peer: &Peer, server: u16) -> Result<Self> {
        let folder = packages::target_dir().join("bench-disks");
        fs::create_dir_all(&folder)?;
        let dir = tempfile::tempdir_in(folder).context("a folder for disks")?;
        for name in ["raw", "ide"] {
            fs::File::create(dir.path().join(name))?.set_len(DISK)?;
        }
        let mut command = peer.command("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).arg(dir.path().join("qcow2")).arg(DISK.to_string());
        ensure!(command.status().context("qemu-img")?.success(), "qemu-img makes no image");
        let forward = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Ok(Self { dir, forward, server })
    }

    /// Where its images are.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// What the kernel's command line says to the guest program.
    pub fn settings(&self) -> String {
        format!("BENCH_SERVER=10.0.2.2:{} BENCH_FORWARD={}", self.server, self.forward)
    }

    /// The options.
    pub fn args(&self) -> Vec<String> {
        let file = |name: &str, format: &str| {
            format!("file={},format={format},cache=none,if=none,id={name}", self.dir.path().join(name).display())
        };
        let null = format!("driver=null-co,node-name=null,size={DISK},read-zeroes=on");
        let net = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:7000", self.forward);
        let pairs = [
            ("-drive", file("raw", "raw").as_str()),
            ("-device", "virtio-blk-pci,drive=raw"),
            ("-drive", file("qcow2", "qcow2").as_str()),
            ("-device", "virtio-blk-pci,drive=qcow2"),
            ("-blockdev", null.as_str()),
            ("-device", "virtio-blk-pci,drive=null"),
            ("-drive", file("ide", "raw").as_str()),
            ("-device", "ide-hd,drive=ide"),
            ("-netdev", net.as_str()),
            ("-device", "virtio-net-pci,netdev=net,romfile="),
        ]
        .map(|(option, value)| [option.to_owned(), value.to_owned()]);
        pairs.into_iter().flatten().collect()
    }
}
