//! Coming and going: a device that leaves a running machine leaves nothing behind, and another can take its place.

use super::board::Board;
use super::rng::Rng;
use super::traffic::{Target, Traffic};
use super::{check::ends, types};
use hw_core::{Device, DeviceAdd, DeviceClass, PciDevice, device_add, device_del};
use qom::{Class, Object, Ref};
use std::sync::{Arc, Weak};

/// Steps of traffic while a device is there.
const STEPS: usize = 100;

/// Plugs a device of the type into a running machine and out again, twice, as a user and a guest do it. False: the type or its bus
/// does not allow that.
///
/// # Errors
/// What goes wrong, or is left behind.
pub fn hotplug(class: &'static Class) -> Result<bool, String> {
    let creatable = class.get::<DeviceClass>().is_some_and(|d| d.user_creatable && d.hotpluggable);
    if !creatable || types::is_part(class.name()) {
        return Ok(false);
    }
    let (mut args, props) = types::needs(class.name());
    let model = class.name().strip_suffix("-x86_64-cpu").unwrap_or("qemu64");
    let cpus = ["-cpu", model, "-smp", "1,maxcpus=2"];
    if types::is_cpu(class) {
        args = &cpus;
    }
    let board = match Board::pc(args) {
        Err(e) if types::is_refused(class, &e) => return Ok(false),
        made => made?,
    };
    types::map_functions(&board, &Target::Devices(vec![]));
    let before = board.views();
    let place = board.vm().machine().and_then(|m| m.possible_cpus().into_iter().find(|s| s.cpu.is_none()));
    let place = place.filter(|_| types::is_cpu(class)).map_or_else(Vec::new, |s| s.props);
    let mut props: serde_json::Map<_, _> =
        props.iter().map(|(k, v)| ((*k).to_owned(), serde_json::Value::from(*v))).collect();
    props.extend(place.iter().map(|(k, v)| ((*k).to_owned(), v.to_string().into())));
    for _ in 0..2 {
        let add = DeviceAdd { driver: class.name(), id: Some("d"), bus: None, props: props.clone(), text: true };
        let dev = match board.locked(|m| device_add(board.scope(), m, &add)) {
            Err(e) if e.to_string().contains("does not support hotplugging") => return Ok(false),
            added => added.map_err(|e| format!("device_add: {e}"))?,
        };
        let parts = parts_of(&dev);
        let target = Target::Devices(vec![dev.clone()]);
        types::map_functions(&board, &target);
        Traffic::new(&board, &target, Rng::new(1)).run(STEPS)?;
        board.locked(|m| device_del(board.scope(), m, "d")).map_err(|e| format!("device_del: {e}"))?;
        if dev.is_realized() {
            let_go(&board, &dev);
        }
        if dev.is_realized() {
            return Err("the guest let it go and it is still there".into());
        }
        drop((dev, target));
        gone(&board, &parts, &before)?;
    }
    ends(board)?;
    Ok(true)
}

/// Takes a device that was there from the start out of the machine and puts another in its place. False: not for users.
///
/// # Errors
/// What goes wrong, or is left behind.
pub fn unrealize(class: &'static Class) -> Result<bool, String> {
    if types::is_cpu(class)
        || types::is_part(class.name())
        || !class.get::<DeviceClass>().is_some_and(|d| d.user_creatable)
    {
        return Ok(false);
    }
    let name = class.name();
    let plain = Board::pc(types::needs(name).0)?;
    types::map_functions(&plain, &Target::Devices(vec![]));
    let before = plain.views();
    let board = match types::with_device(name, "d") {
        Err(e) if types::is_refused(class, &e) => return Ok(false),
        made => made?,
    };
    let found = board.scope().resolve("/machine/peripheral/d").map_err(|e| e.to_string())?;
    let mut dev: Ref<Device> = Ref::new(found).ok_or("not a device")?;
    for last in [false, true] {
        let parts = parts_of(&dev);
        let target = Target::Devices(vec![dev]);
        types::map_functions(&board, &target);
        Traffic::new(&board, &target, Rng::new(1)).run(STEPS)?;
        let Target::Devices(mut devices) = target else { return Ok(false) };
        let Some(gone_one) = devices.pop() else { return Ok(false) };
        board.locked(|m| gone_one.remove(m));
        drop(gone_one);
        gone(&board, &parts, &before)?;
        if last {
            break;
        }
        dev = types::by_hand(&board, class).map_err(|e| format!("a second one: {e}"))?;
    }
    ends(board)?;
    Ok(true)
}

/// The device and everything below it.
fn parts_of(dev: &Ref<Device>) -> Vec<(String, Weak<dyn Object>)> {
    let mut all = vec![];
    dev.object().walk(&mut |o| all.push((format!("{} ({})", o.path(), o.type_name()), Arc::downgrade(o))));
    all
}

/// What a guest does that is asked for a device: it ejects it.
fn let_go(board: &Board, dev: &Ref<Device>) {
    let out = |port: u64, size: u32, v: u64| {
        board.locked(|m| _ = board.core().io.store(m, port, size, v));
    };
    if let Some(f) = dev.object().cast::<PciDevice>() {
        out(0xae10, 4, 0); // bus 0 (acpi_pci_hotplug: bus selector, eject)
        out(0xae08, 4, 1 << f.slot());
    } else {
        out(0xaf00, 4, 1); // the second processor (acpi_cpu_hotplug: selector, flags)
        out(0xaf04, 1, 8);
    }
}

/// Whether nothing of a device is left: no object, no mapping, no bug on the way.
fn gone(board: &Board, parts: &[(String, Weak<dyn Object>)], before: &[String]) -> Result<(), String> {
    board.requests()?;
    let alive: Vec<&str> = parts.iter().filter(|p| p.1.strong_count() != 0).map(|p| p.0.as_str()).collect();
    if !alive.is_empty() {
        return Err(format!("outlive the device: {}", alive.join(", ")));
    }
    let after = board.views();
    let left: Vec<&str> = after.iter().filter(|v| !before.contains(v)).map(String::as_str).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("mappings outlive the device: {}", left.join(", "))) }
}
