//! Guest memory: into files, and how much of it the guest has.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Ty, opt, req};
use crate::vm::Vm;
use hw::virtio::balloon::VirtioBalloon;
use hw_core::Cpu;
use qom::Ref;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

pub(super) static COMMANDS: &[Command] = &[
    command("pmemsave", &[req("val", Ty::Int), req("size", Ty::Int), req("filename", Ty::Str)], None, |vm, args| {
        save(vm, args, |addr| Some((addr, 4096)))
    }),
    command(
        "memsave",
        &[req("val", Ty::Int), req("size", Ty::Int), req("filename", Ty::Str), opt("cpu-index", Ty::Int)],
        None,
        memsave,
    ),
    command("balloon", &[req("value", Ty::Int)], None, |vm, args| {
        let balloon = balloon(vm)?;
        let target = args.uint("value").ok().filter(|v| *v > 0 && *v <= i64::MAX as u64);
        let target = target.ok_or_else(|| QmpError::generic("Parameter 'target' expects a size"))?;
        balloon.set_target(&mut vm.core().lock(), target);
        Ok(json!({}))
    }),
    command("query-balloon", &[], Some(Ty::Object(&[req("actual", Ty::Int)])), |vm, _| {
        let actual = balloon(vm)?.actual(&vm.core().lock());
        Ok(json!({"actual": actual}))
    }),
];

/// The machine's balloon.
fn balloon(vm: &Vm) -> QmpResult<Ref<VirtioBalloon>> {
    let desc = "No balloon device has been activated".to_owned();
    VirtioBalloon::of(vm.core()).ok_or(QmpError { class: "DeviceNotActive", desc })
}

/// The CPU of argument `cpu-index`, or the first.
fn cpu(vm: &Vm, args: Args<'_>) -> QmpResult<Ref<Cpu>> {
    let index = if args.0.contains_key("cpu-index") { args.uint("cpu-index")? } else { 0 };
    let found = u32::try_from(index).ok().and_then(|i| vm.core().cpus.get(i));
    found.ok_or_else(|| QmpError::generic("Invalid parameter 'cpu-index': expected a CPU number"))
}

fn memsave(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let cpu = cpu(vm, args)?;
    vm.parked(|| {
        save(vm, args, |addr| {
            let room = 4096 - (addr & 4095);
            Some(((cpu.cpu_class().translate)(&cpu, addr)?, room))
        })
    })
}

/// Writes `size` bytes from `val` on; `place` says where an address is in physical memory and how far that holds.
fn save(vm: &Vm, args: Args<'_>, place: impl Fn(u64) -> Option<(u64, u64)>) -> QmpResult {
    let (mut addr, mut left, path) = (args.uint("val")?, args.uint("size")?, args.str("filename"));
    let fail = |e: std::io::Error| QmpError::generic(format!("Could not open '{path}': {e}"));
    let mut file = File::create(path).map_err(fail)?;
    while left > 0 {
        let (at, room) =
            place(addr).ok_or_else(|| QmpError::generic(format!("Invalid addr {addr:#018x}/size {left} specified")))?;
        let mut bytes = vec![0; left.min(room) as usize];
        let _ = vm.core().memory.read(&mut vm.core().lock(), at, &mut bytes);
        file.write_all(&bytes).map_err(|e| QmpError::generic(format!("writing memory to '{path}': {e}")))?;
        addr = addr.wrapping_add(bytes.len() as u64);
        left -= bytes.len() as u64;
    }
    Ok(json!({}))
}
