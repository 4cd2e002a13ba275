//! `cargo xtask isa`: writes `docs/instructions.md`. The work is the oracle's, which needs the interpreter: a program of its own, so that the other
//! tasks do without.

use anyhow::{Result, ensure};
use std::process::Command;

/// Runs the oracle's `isa` program.
pub fn run() -> Result<()> {
    let status = Command::new(env!("CARGO")).args(["run", "--quiet", "-p", "oracle", "--bin", "isa"]).status()?;
    ensure!(status.success(), "instructions are missing or unchecked");
    Ok(())
}
