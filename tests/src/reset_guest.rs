//! A Linux guest that resets the machine in the way it is told on its console, again and again.

use crate::{
    guest::{Guest, Linux},
    guest_programs::set_port_bits,
};
use anyhow::Result;
use serde_json::json;
use std::{process::Command, time::Duration};

/// The ways: keyboard controller (0x64), port 0x92, the PIIX3's reset control register (0xcf9), a triple fault, the monitor.
pub const RESETS: [&str; 5] = ["kbd", "port92", "pci", "triple", "qmp"];

const READY: &str = "WHICH RESET";

/// Boots it in `emulator` and waits until it can be told.
///
/// # Errors
/// The packages cannot be fetched.
///
/// # Panics
/// When user space does not come up `within` this time.
pub fn boot(mut emulator: Command, within: Duration) -> Result<Guest> {
    let script = format!(
        "while :; do\n echo {READY}\n read how\n if [ $how = port92 ]; then port92; \
         else echo $how > /sys/kernel/reboot/type; reboot -f; fi\ndone"
    );
    let linux = Linux::amd64_with("reset.cpio", &script, &[("port92", &set_port_bits(0x92, 1)?)])?;
    emulator.args(linux.args("")).args(["-m", "512"]);
    let mut guest = Guest::start(emulator)?;
    guest.line(READY, within);
    Ok(guest)
}

/// Resets the machine in the way `how` and waits for user space.
///
/// # Panics
/// When it does not come up `within` this time.
pub fn reset(guest: &mut Guest, how: &str, within: Duration) {
    match how {
        "qmp" => drop(guest.qmp().run("system_reset", json!({}))),
        _ => guest.say(how).expect("the guest reads"),
    }
    guest.line(READY, within);
}
