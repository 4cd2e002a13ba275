//! The boot of an installed Debian from its own disk to the login prompt: firmware, boot loader, kernel, services.

use super::side::Run;
use crate::{
    debian::{self, LOGIN},
    guest::Guest,
    packages,
};
use anyhow::{Context, Result};
use std::{fs, path::Path, process::Command, time::Duration};

/// Its row in `floors.toml`.
pub const NAME: &str = "debian-login";
/// How long a boot may take.
const WITHIN: Duration = Duration::from_secs(600);

/// Boots a copy of `image`, which is thrown away afterwards: `start` gets the options and makes the command. The time from its start to
/// the prompt, elapsed and of processors.
///
/// # Errors
/// Something is missing, or there is no prompt.
pub fn boot(image: &Path, start: impl FnOnce(&[String]) -> Command) -> Result<Run> {
    let folder = packages::target_dir().join("bench-disks");
    fs::create_dir_all(&folder)?;
    let folder = tempfile::tempdir_in(folder).context("a folder for a disk")?;
    let disk = folder.path().join("debian");
    debian::sparse_copy(image, &disk)?;
    let console = ["-display", "none", "-no-user-config", "-serial", "stdio"].map(str::to_owned);
    let args = [&console[..], &debian::usual_machine(&disk)?].concat();
    let mut guest = Guest::start(start(&args))?;
    let at = guest.prompt(LOGIN, WITHIN)?;
    let cpu = guest.cpu_time()?.as_secs_f64();
    Ok(Run { cpu, wall: (at - guest.started).as_secs_f64(), inside: 0.0, digest: "login".to_owned() })
}
