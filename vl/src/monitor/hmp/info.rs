//! `info ITEM`.

use super::commands::run as qmp;
use super::{Call, HmpCommand, Result, block_info, command, help, pci, tree};
use crate::nearest::did_you_mean;
use crate::options::QEMU_VERSION;
use hw::intc::stats::InterruptStats;
use hw_core::loader::RomPlace;
use hw_core::{Locked, RunState};
use serde_json::json;
use std::fmt::Write;

pub(super) static ITEMS: &[HmpCommand] = &[
    command(&["balloon"], "", "show balloon information", |c| {
        let bytes =
            qmp(c, "query-balloon", json!({}))?.get("actual").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let _ = writeln!(c.out, "balloon: actual={}", bytes >> 20);
        Ok(())
    }),
    command(
        &["block"],
        "[-n] [-v] [device]",
        "show info of one block device or all block devices (-n: show named nodes; -v: show details)",
        block_info::block,
    ),
    command(&["block-jobs"], "", "show progress of ongoing block device operations", super::blocks::jobs),
    command(&["blockstats"], "", "show block device statistics", block_info::stats),
    command(&["chardev"], "", "show the character devices", |c| {
        for ch in c.vm.chardevs.all() {
            let _ = writeln!(c.out, "{}: filename={}", ch.label(), ch.filename());
        }
        Ok(())
    }),
    command(&["cpus"], "", "show infos for each CPU", |c| {
        for cpu in c.vm.core().cpus.list() {
            let (index, mark) = (cpu.index().unwrap_or(0), if cpu.index() == Some(c.cpu) { '*' } else { ' ' });
            let _ = writeln!(c.out, "{mark} CPU #{index}: thread_id={}", cpu.thread_id());
        }
        Ok(())
    }),
    command(&["iothreads"], "", "show iothreads", |c| {
        let all = qmp(c, "query-iothreads", json!({}))?;
        for t in all.as_array().into_iter().flatten() {
            let _ = writeln!(c.out, "{}:", t["id"].as_str().unwrap_or_default());
            let _ = writeln!(c.out, "  thread_id={}", t["thread-id"]);
            for name in ["poll-max-ns", "poll-grow", "poll-shrink", "poll-weight", "aio-max-batch"] {
                let _ = writeln!(c.out, "  {name}={}", t[name]);
            }
        }
        Ok(())
    }),
    command(&["jit"], "", "show what the TCG engine of each CPU counted", jit),
    command(&["kvm"], "", "show KVM information", |c| {
        let _ = writeln!(c.out, "kvm support: not compiled");
        Ok(())
    }),
    command(
        &["lapic"],
        "[apic-id]",
        "show local apic state (apic-id: local apic to read, default is which of current CPU)",
        lapic,
    ),
    command(&["mice"], "", "show which guest mouse is receiving events", |c| {
        let all = qmp(c, "query-mice", json!({}))?;
        let all = all.as_array().map_or(&[][..], |l| l);
        if all.is_empty() {
            let _ = writeln!(c.out, "No mouse devices connected");
        }
        for mouse in all {
            let flag = |key: &str, yes: &'static str, no: &'static str| if mouse[key] == true { yes } else { no };
            let (current, absolute) = (flag("current", "*", " "), flag("absolute", " (absolute)", ""));
            let name = mouse["name"].as_str().unwrap_or_default();
            let _ = writeln!(c.out, "{current} Mouse #{}: {name}{absolute}", mouse["index"]);
        }
        Ok(())
    }),
    command(&["mtree"], "[-f]", "show memory tree (-f: flat views)", tree::mtree),
    command(&["name"], "", "show the current VM name", |c| {
        if let Some(name) = c.vm.name() {
            let _ = writeln!(c.out, "{name}");
        }
        Ok(())
    }),
    command(&["network"], "", "show the network state", |c| {
        c.out.push_str(&c.vm.nets.describe());
        Ok(())
    }),
    command(&["pci"], "", "show PCI info", pci::info),
    command(&["pic"], "", "show PIC state", |c| controllers(c, |i, m| i.print_info(m))),
    command(&["irq"], "", "show the interrupts statistics (if available)", |c| {
        controllers(c, |i, m| {
            let counts = i.statistics(m).into_iter().enumerate().filter(|(_, n)| *n > 0);
            counts.fold(String::new(), |t, (i, n)| t + &format!("{i:2}: {n}\n"))
        })
    }),
    command(&["qom-tree"], "[path]", "show QOM composition tree", tree::qom_tree),
    command(&["qtree"], "", "show device tree", tree::qtree),
    command(&["registers"], "[-a]", "show the cpu registers (-a: of all CPUs)", registers),
    command(&["roms"], "", "show roms", roms),
    command(&["status"], "", "show the current VM status (running|paused)", |c| {
        let state = c.vm.state();
        let what = if state == RunState::Running { "running" } else { "paused" };
        let why = if matches!(state, RunState::Running | RunState::Paused) {
            String::new()
        } else {
            format!(" ({})", state.name())
        };
        let _ = writeln!(c.out, "VM status: {what}{why}");
        Ok(())
    }),
    command(&["uuid"], "", "show the current VM UUID", |c| {
        let v = qmp(c, "query-uuid", json!({}))?;
        let _ = writeln!(c.out, "{}", v.get("UUID").and_then(|u| u.as_str()).unwrap_or_default());
        Ok(())
    }),
    command(&["version"], "", "show the version of QEMU", |c| {
        let (major, minor, micro) = QEMU_VERSION;
        let _ = writeln!(c.out, "{major}.{minor}.{micro}Qomet {}", env!("CARGO_PKG_VERSION"));
        Ok(())
    }),
    command(&["usernet"], "", "show user network stack connection states", |c| {
        c.out.push_str(&c.vm.nets.describe_user());
        Ok(())
    }),
];

/// `info`, `info ITEM …`.
pub(super) fn run(c: &mut Call<'_>) -> Result {
    let args = c.args;
    let (item, rest) = args.split_once(char::is_whitespace).unwrap_or((args, ""));
    if item.is_empty() {
        help(c.out, ITEMS, "info ", None);
        return Ok(());
    }
    let Some(found) = ITEMS.iter().find(|i| i.names.contains(&item)) else {
        let hint = did_you_mean(item, ITEMS.iter().flat_map(|i| i.names.iter().copied()));
        let _ = writeln!(c.out, "unknown command: 'info {item}'{hint}");
        return Ok(());
    };
    c.args = rest.trim();
    (found.run)(c)
}

/// What each interrupt controller of the machine has to say.
fn controllers(c: &mut Call<'_>, tell: fn(&dyn InterruptStats, &mut Locked) -> String) -> Result {
    let vm = c.vm.clone();
    let mut found = vec![];
    vm.scope().root().walk(&mut |o| {
        if o.interface::<dyn InterruptStats>().is_some() {
            found.push(o.clone());
        }
    });
    for o in found {
        if let Some(i) = o.interface::<dyn InterruptStats>() {
            let text = tell(i, &mut vm.core().lock());
            c.out.push_str(&text);
        }
    }
    Ok(())
}

fn lapic(c: &mut Call<'_>) -> Result {
    let id = if c.args.is_empty() { None } else { Some(super::x::number(c.args)?) };
    let cpus = c.vm.core().cpus.list();
    let wanted = |p: &&qom::Ref<hw_core::Cpu>| match id {
        Some(id) => (p.cpu_class().arch_id)(p) == id,
        None => p.index() == Some(c.cpu),
    };
    let cpu = cpus.iter().find(wanted).ok_or("No CPU available")?;
    let apic = cpu.object().child("lapic").and_then(qom::Ref::<hw::intc::apic::Apic>::new);
    let apic = apic.ok_or("the CPU has no local APIC")?;
    let _ = writeln!(c.out, "{}", apic.print_info(&c.vm.core().lock()));
    Ok(())
}

fn jit(c: &mut Call<'_>) -> Result {
    let text = crate::monitor::jit::report(c.vm)?;
    c.out.push_str(&text);
    Ok(())
}

fn registers(c: &mut Call<'_>) -> Result {
    let all = c.args == "-a";
    let cpus = c.vm.core().cpus.list();
    if cpus.is_empty() {
        return Err("No CPU available".into());
    }
    let vm = c.vm.clone();
    vm.parked(|| {
        for cpu in cpus.iter().filter(|p| all || p.index() == Some(c.cpu)) {
            let _ =
                writeln!(c.out, "\nCPU#{}\n{}", cpu.index().unwrap_or(0), (cpu.cpu_class().dump_state)(cpu).trim_end());
        }
    });
    Ok(())
}

fn roms(c: &mut Call<'_>) -> Result {
    for rom in c.vm.core().roms.list() {
        let (size, name) = (rom.size, &rom.name);
        let _ = match &rom.place {
            RomPlace::Address(addr) => writeln!(c.out, "addr={addr:016x} size={size:#08x} mem=ram name=\"{name}\""),
            RomPlace::Region(r) => writeln!(c.out, "{} size={size:#08x} name=\"{name}\"", r.name()),
            RomPlace::FwCfg(file) => writeln!(c.out, "{file} size={size:#08x} name=\"{name}\""),
        };
    }
    Ok(())
}
