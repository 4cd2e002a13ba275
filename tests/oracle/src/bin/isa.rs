//! `cargo xtask isa`: writes `docs/instructions.md`; fails when an instruction is missing or unchecked.

use oracle::isa;
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = isa::rows();
    let path = isa::path(&root);
    if let Err(e) = std::fs::write(&path, isa::page(&rows)) {
        eprintln!("writing {}: {e}", path.display());
        return ExitCode::FAILURE;
    }
    let problems = isa::problems(&rows, &root);
    for p in &problems {
        eprintln!("{p}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
