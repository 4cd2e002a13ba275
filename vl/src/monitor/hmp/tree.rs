//! Trees: `info qom-tree`, `info qtree`, `info mtree`.

use super::{Call, Result};
use crate::monitor::commands::is_device_property;
use hw_core::memory::{AddressSpace, RangeKind, RegionKind};
use hw_core::{Bus, Device, MemoryRegion};
use qom::{ObjRef, Ref};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// `info qom-tree [path]`: from `/machine` by default.
pub(super) fn qom_tree(c: &mut Call<'_>) -> Result {
    let path = if c.args.is_empty() { "/machine" } else { c.args };
    let o = c.vm.scope().resolve(path).map_err(|_| format!("Path '{path}' could not be resolved."))?;
    let name = o.name().map_or_else(String::new, |n| n.to_string());
    object(c.out, &o, &name, 0);
    Ok(())
}

fn object(out: &mut String, o: &ObjRef, name: &str, indent: usize) {
    let _ = writeln!(out, "{:indent$}/{name} ({})", "", o.type_name());
    let mut children = o.children();
    children.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, child) in children {
        object(out, &child, &name, indent + 2);
    }
}

/// `info qtree`: buses and what sits on them.
pub(super) fn qtree(c: &mut Call<'_>) -> Result {
    if let Some(bus) = c.vm.core().sysbus() {
        show_bus(c.out, &Ref::into_object(bus), 0);
    }
    Ok(())
}

fn show_bus(out: &mut String, o: &ObjRef, indent: usize) {
    let Some(bus) = o.cast::<Bus>() else { return };
    let _ = writeln!(out, "{:indent$}bus: {}", "", bus.bus_name());
    let _ = writeln!(out, "{:indent$}  type {}", "", o.type_name());
    for (_, dev) in bus.devices() {
        show_device(out, &dev, indent + 2);
    }
}

fn show_device(out: &mut String, o: &ObjRef, indent: usize) {
    let Some(dev) = o.cast::<Device>() else { return };
    let _ = writeln!(out, "{:indent$}dev: {}, id \"{}\"", "", o.type_name(), dev.id().unwrap_or_default());
    let inner = indent + 2;
    for (name, lines) in dev.gpio_ins() {
        let _ = writeln!(out, "{:inner$}gpio-in \"{name}\" {}", "", lines.len());
    }
    for (name, outs) in dev.gpio_out_list() {
        let _ = writeln!(out, "{:inner$}gpio-out \"{name}\" {}", "", outs.len());
    }
    for p in o.properties().iter().filter(|p| p.of_class && p.readable && is_device_property(p)) {
        let value = o.print(&p.name).unwrap_or_else(|e| format!("<{e}>"));
        let _ = writeln!(out, "{:inner$}{} = {value}", "", p.name);
    }
    for bus in dev.child_buses() {
        show_bus(out, &bus, inner);
    }
}

/// `info mtree [-f]`.
pub(super) fn mtree(c: &mut Call<'_>) -> Result {
    let (mut flat, mut owners) = (false, false);
    for word in c.args.split_whitespace() {
        match word {
            "-f" => flat = true,
            "-o" => owners = true,
            "-d" | "-D" => {}
            _ => return Err(format!("unsupported option '{word}': expected -f or -o")),
        }
    }
    let spaces = c.vm.core().lock().all_spaces();
    if flat {
        flat_views(c.out, &spaces, owners)
    } else {
        trees(c.out, &spaces, owners)
    }
    Ok(())
}

/// QEMU's word for what a region is. One that only holds others is told apart while it is in no container itself.
fn kind(r: &MemoryRegion) -> &'static str {
    let info = r.info();
    match &info.alias {
        Some((target, _)) => kind(target),
        None => match info.kind {
            RegionKind::Container | RegionKind::Io if r.parent_region().is_none() => "container",
            kind => kind.name(),
        },
    }
}

/// Whose a region is: its owner, or the folder it is in.
fn owner(r: &MemoryRegion) -> String {
    let Some(object) = r.node().and_then(|n| n.parent()) else { return " orphan".into() };
    let label = if object.type_name() == "container" { "parent" } else { "owner" };
    let (kind, id) = match object.cast::<Device>() {
        Some(d) => ("dev", d.id()),
        None => ("obj", None),
    };
    match id {
        Some(id) => format!(" {label}:{{{kind} id={id}}}"),
        None => format!(" {label}:{{{kind} path={}}}", object.path()),
    }
}

/// The numbers of one line: a region of 2^64 bytes ends at the last address.
fn last(start: u64, size: u128) -> u64 {
    u64::try_from(u128::from(start) + size.saturating_sub(1)).unwrap_or(u64::MAX)
}

fn trees(out: &mut String, spaces: &[AddressSpace], owners: bool) {
    let mut aliased = vec![];
    for space in spaces {
        let _ = writeln!(out, "address-space: {}", space.name());
        region(out, &space.root(), 0, 2, owners, &mut aliased);
        out.push('\n');
    }
    // What aliases show is printed once, below the spaces; it may hold aliases in turn.
    let mut next = 0;
    while let Some(target) = aliased.get(next).cloned() {
        next += 1;
        let _ = writeln!(out, "memory-region: {}", target.name());
        region(out, &target, 0, 2, owners, &mut aliased);
        out.push('\n');
    }
}

fn region(out: &mut String, r: &MemoryRegion, base: u64, indent: usize, owners: bool, aliased: &mut Vec<MemoryRegion>) {
    let info = r.info();
    let start = base.wrapping_add(info.addr);
    let end = last(start, info.size);
    let prio = info.priority;
    let _ = match &info.alias {
        Some((target, offset)) => {
            if !aliased.iter().any(|a| a.is(target)) && target.parent_region().is_none() {
                aliased.push(target.clone());
            }
            let (kind, name) = (kind(target), target.name());
            let to = last(*offset, info.size);
            write!(
                out,
                "{:indent$}{start:016x}-{end:016x} (prio {prio}, {kind}): alias {} @{name} {offset:016x}-{to:016x}",
                "", info.name
            )
        }
        None => write!(out, "{:indent$}{start:016x}-{end:016x} (prio {prio}, {}): {}", "", kind(r), info.name),
    };
    if !info.enabled {
        out.push_str(" [disabled]");
    }
    if owners {
        out.push_str(&owner(r));
    }
    out.push('\n');
    if info.kind != RegionKind::Alias {
        for child in &info.children {
            region(out, child, start, indent + 2, owners, aliased);
        }
    }
}

/// Address spaces that share a view are shown together.
fn flat_views(out: &mut String, spaces: &[AddressSpace], owners: bool) {
    let mut views: BTreeMap<usize, Vec<&AddressSpace>> = BTreeMap::new();
    let mut order = vec![];
    for space in spaces {
        let view = space.view();
        let known = order.iter().position(|v: &Arc<hw_core::memory::FlatView>| v.same(&view));
        let index = known.unwrap_or_else(|| {
            order.push((*view).clone());
            order.len() - 1
        });
        views.entry(index).or_default().push(space);
    }
    for (index, view) in order.iter().enumerate() {
        let _ = writeln!(out, "FlatView #{index}");
        let sharing = views.get(&index).map_or(&[][..], |v| v);
        for s in sharing {
            let _ = writeln!(out, " AS \"{}\", root: {}", s.name(), s.root().name());
        }
        if let Some(first) = sharing.first() {
            let _ = writeln!(out, " Root memory region: {}", first.root().name());
        }
        if view.ranges().is_empty() {
            out.push_str("  No rendered FlatView\n");
        }
        for r in view.ranges() {
            let info = r.region.info();
            let kind = match r.kind {
                RangeKind::Ram(_) => "ram",
                RangeKind::Rom(_) => "rom",
                RangeKind::RomDevice(_) => "romd",
                RangeKind::Io => kind(&r.region),
            };
            let _ = write!(out, "  {:016x}-{:016x} (prio {}, {kind}): {}", r.start, r.last, info.priority, info.name);
            if r.offset != 0 {
                let _ = write!(out, " @{:016x}", r.offset);
            }
            if owners {
                out.push_str(&owner(&r.region));
            }
            out.push('\n');
        }
        out.push('\n');
    }
}
