//! Drives on an IDE bus.

use hw::ide::bus::{IdeBus, IdeDevice};
use hw_core::{SysBusDevice, Vm};
use qom::{Object, Ref};

#[derive(Object)]
#[qom(name = "test-drive", parent = IdeDevice)]
struct Drive {
    parent: IdeDevice,
}

#[test]
fn ide_units_are_taken_once() {
    let vm = Vm::with_machine("none", &[]).unwrap();
    let bridge: Ref<SysBusDevice> = vm.world().object_new_as("isabus-bridge").unwrap();
    bridge.realize_sysbus(&mut vm.core().lock()).unwrap();
    IdeBus::create(&bridge, None, 0).unwrap();
    let add = |props: &[(&str, &str)]| vm.device_add("test-drive", None, props);
    assert_eq!(add(&[("unit", "1")]).unwrap().get("unit").unwrap(), 1);
    assert_eq!(add(&[("unit", "1")]).unwrap_err().to_string(), "IDE unit 1 is in use");
    assert_eq!(add(&[("unit", "2")]).unwrap_err().to_string(), "Can't create IDE unit 2, bus supports only 2 units");
    assert_eq!(add(&[]).unwrap().get("unit").unwrap(), 0);
    assert_eq!(add(&[]).unwrap_err().to_string(), "No 'IDE' bus found for device 'test-drive'");
    assert_eq!(add(&[("bus", "ide.0")]).unwrap_err().to_string(), "Bus 'ide.0' is full");
}
