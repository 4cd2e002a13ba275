//! A life of an installed system: it boots from its disk, data are written and there again after a reboot, and all is clean at the end;
//! or it fetches the lists of its packages from the mirror that the image was made from.

use super::{Bus, System, bare_machine, check, copy_as, image, usual_machine};
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::{path::Path, time::Duration};

/// Boots the Debian image, as a copy in `format`, from a disk on `bus`: writes `mebibytes` of random data, reboots, compares, powers off and
/// checks image and file system. Says how long the boots to the login prompts took.
///
/// # Errors
/// What went wrong, or is missing on this machine.
pub fn cycle(qomet: &Path, bus: Bus, format: &str, mebibytes: u32, within: Duration) -> Result<[Duration; 2]> {
    let life = || {
        let (image, tools) = (image()?, tools::tools()?);
        let folder = tempfile::tempdir_in(image.parent().context("an image lies in a folder")?)?;
        let copy = folder.path().join("disk");
        copy_as(&image, format, &copy)?;
        let args = [bare_machine()?, bus.args(&copy, format), ["-nic", "none"].map(str::to_owned).to_vec()].concat();
        let mut system = System::start(qomet, &args, within)?;
        let first = system.log_in()?;
        system.run(&format!("dd if=/dev/urandom of=data bs=1M count={mebibytes} status=none"))?;
        system.run("mkdir many; for i in $(seq 300); do echo $i > many/$i; done; rm many/1??; sync")?;
        let sums = "md5sum data; cat many/* | md5sum; ls many | wc -l";
        let before = system.run(sums)?;
        system.reboot()?;
        let second = system.log_in()?;
        let after = system.run(sums)?;
        ensure!(before == after && after.ends_with("\n200"), "written: {before}, read after the reboot: {after}");
        system.power_off()?;
        check(&tools, &copy, format)?;
        Ok([first, second])
    };
    life().with_context(|| format!("{format} on {}", bus.name))
}

/// Boots the Debian image, as a copy, with a network card, and has it read its package lists from the mirror of this host's apt, over the
/// user-mode network: what apt says it has fetched.
///
/// # Errors
/// What went wrong, or is missing on this machine.
pub fn update(qomet: &Path, within: Duration) -> Result<String> {
    let (image, tools) = (image()?, tools::tools()?);
    let folder = tempfile::tempdir_in(image.parent().context("an image lies in a folder")?)?;
    let copy = folder.path().join("disk");
    copy_as(&image, "raw", &copy)?;
    let mut system = System::start(qomet, &usual_machine(&copy)?, within)?;
    system.log_in()?;
    system.run("until ip -4 route | grep -q ^default; do sleep 1; done")?;
    // (Apt takes a mirror that it cannot reach for a warning.)
    let said = system.run("apt-get -q -o APT::Update::Error-Mode=any update")?;
    let fetched =
        said.lines().find(|l| l.starts_with("Fetched ")).with_context(|| format!("apt fetched nothing: {said}"))?;
    let kernel = system.run("apt-cache policy linux-image-amd64")?;
    ensure!(kernel.contains("Candidate: ") && !kernel.contains("Candidate: (none)"), "{kernel}");
    system.power_off()?;
    check(&tools, &copy, "raw")?;
    Ok(fetched.to_owned())
}
