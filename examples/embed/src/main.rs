//! Two machines in one process: each has its own world, thread and main loop; they share nothing but the types.
//!
//! `cargo run -p embed` builds both, writes into the memory of one, shows that the other did not notice, and ends them.
#![forbid(unsafe_code)]

use anyhow::{Result, bail, ensure};
use std::sync::Arc;
use vl::{Env, Started, Vm};

/// Builds the machine of a command line.
fn machine(name: &str, args: &[&str]) -> Result<Arc<Vm>> {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    match Vm::start(&args, Env::plain(name))? {
        Started::Vm(vm) => Ok(vm),
        Started::Text(_) => bail!("{name}: the arguments ask for help, not for a machine"),
    }
}

fn main() -> Result<()> {
    let common = ["-display", "none", "-nodefaults"];
    let none = |name| machine(name, &[&["-machine", "none", "-name", name, "-S"][..], &common].concat());
    let (left, right) = (none("left")?, none("right")?);

    // An object of one machine is not in the other's tree.
    left.scope().object_add(
        "memory-backend-ram",
        "m",
        &[("size".to_owned(), 4096.into())].into_iter().collect(),
        false,
    )?;
    ensure!(left.scope().resolve("/objects/m").is_ok() && right.scope().resolve("/objects/m").is_err());

    // Each runs in its own thread until it is told to quit.
    let run = |vm: &Arc<Vm>| {
        let vm = vm.clone();
        std::thread::spawn(move || vm.run())
    };
    let (l, r) = (run(&left), run(&right));
    for (vm, thread) in [(&left, l), (&right, r)] {
        vm.quit(vl::ShutdownCause::HostUi);
        let status = thread.join().unwrap_or(1);
        println!("{} ended with status {status}", vm.name().unwrap_or("?"));
        ensure!(status == 0);
    }
    Ok(())
}
