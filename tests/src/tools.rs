//! Programs that make disks and discs: GRUB's, xorriso, mtools, e2fsprogs. They are unpacked from packages, never installed, and run
//! with the libraries unpacked beside them on this machine's C library, whose suite they come from.

use crate::packages::{self, Needs};
use anyhow::Result;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder they are unpacked to.
#[derive(Clone, Debug)]
pub struct Tools {
    root: PathBuf,
}

/// Fetches them.
///
/// # Errors
/// The packages cannot be fetched.
pub fn tools() -> Result<Tools> {
    let names = ["grub-common", "grub-pc-bin", "xorriso", "mtools", "e2fsprogs"];
    Ok(Tools { root: packages::together("tools", &names, Needs::OnThisHost)? })
}

impl Tools {
    /// GRUB's images and modules for PCs with a BIOS.
    pub fn grub(&self) -> PathBuf {
        self.root.join("usr/lib/grub/i386-pc")
    }

    /// A command that runs one of the programs; what it starts is looked for among them first.
    pub fn command(&self, program: &str) -> Command {
        let mut cmd = Command::new(program);
        let folders = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|f| self.root.join(f));
        cmd.env("PATH", joined(&folders, std::env::var_os("PATH")));
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|f| self.root.join(f));
        cmd.env("LD_LIBRARY_PATH", joined(&libraries, None)).env("LC_ALL", "C");
        // Where mke2fs finds what its types stand for.
        cmd.env("MKE2FS_CONFIG", self.root.join("etc/mke2fs.conf"));
        cmd
    }

    /// Checks an ext4 file system that lies in `file` from byte `offset` on, and changes nothing.
    ///
    /// # Errors
    /// It is not clean; what `e2fsck` says.
    pub fn check_ext4(&self, file: &Path, offset: u64) -> Result<()> {
        let mut name = file.as_os_str().to_owned();
        name.push(format!("?offset={offset}"));
        packages::run("e2fsck", self.command("e2fsck").args(["-f", "-n"]).arg(name)).map(drop)
    }
}

fn joined(folders: &[PathBuf], more: Option<OsString>) -> OsString {
    let mut all: Vec<OsString> = folders.iter().map(|f| f.clone().into_os_string()).collect();
    all.extend(more);
    all.join(std::ffi::OsStr::new(":"))
}
