//! Plugging and unplugging devices.

use super::{Command, command};
use crate::monitor::schema::{Ty, opt, req};
use hw_core::DeviceAdd;
use serde_json::json;

pub(super) static COMMANDS: &[Command] = &[
    Command {
        open: true,
        features: &["json-cli", "json-cli-hotplug"],
        ..command("device_add", &[req("driver", Ty::Str), opt("bus", Ty::Str), opt("id", Ty::Str)], None, |vm, args| {
            let mut props = args.0.clone();
            for key in ["driver", "bus", "id"] {
                props.shift_remove(key);
            }
            let (id, bus) = (args.opt_str("id"), args.opt_str("bus"));
            let add = DeviceAdd { driver: args.str("driver"), id, bus, props, text: false };
            hw_core::device_add(vm.scope(), &mut vm.core().lock(), &add)?;
            Ok(json!({}))
        })
    },
    command("device_del", &[req("id", Ty::Str)], None, |vm, args| {
        hw_core::device_del(vm.scope(), &mut vm.core().lock(), args.str("id"))?;
        Ok(json!({}))
    }),
];
