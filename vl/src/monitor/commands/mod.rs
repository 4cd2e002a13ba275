//! The QMP commands: a table of name, arguments, reply and handler. `query-commands` and `query-qmp-schema` are made from it.

mod blocks;
mod chardevs;
mod devices;
mod input;
mod iothreads;
mod jit;
pub(crate) mod jobs;
mod machine;
mod memory;
mod meta;
pub(crate) mod networks;
pub(crate) mod pointer;
mod qom;
pub(crate) mod run;

use super::error::{QmpError, QmpResult};
use super::schema::{self, Entity, Member, Ty, Union, opt};
use crate::nearest::did_you_mean;
use crate::vm::Vm;
use serde_json::{Map, Value};
use std::sync::Arc;

pub(crate) use self::qom::{is_device_property, properties_of};

/// What a command does. Called on the event loop's thread with no lock held; the arguments have been checked.
pub type Run = fn(&Arc<Vm>, Args<'_>) -> QmpResult;

/// One command.
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// Arguments.
    pub args: &'static [Member],
    /// A tagged union of arguments instead.
    pub union: Option<&'static Union>,
    /// Takes more arguments than it names (`device_add`: the device's properties); of a union, with a tag without a variant.
    pub open: bool,
    /// Reply; `None`: an empty object.
    pub ret: Option<Ty>,
    /// QAPI features.
    pub features: &'static [&'static str],
    /// What it does.
    pub run: Run,
}

/// A command without features.
pub(crate) const fn command(name: &'static str, args: &'static [Member], ret: Option<Ty>, run: Run) -> Command {
    Command { name, args, union: None, open: false, ret, features: &[], run }
}

/// Arguments of `qmp_capabilities`.
pub(crate) const CAPABILITIES: &[Member] = &[opt("enable", Ty::List(&Ty::Enum(&["oob"])))];

/// All commands, by area.
static COMMANDS: &[&[Command]] = &[
    meta::COMMANDS,
    run::COMMANDS,
    qom::COMMANDS,
    devices::COMMANDS,
    machine::COMMANDS,
    chardevs::COMMANDS,
    blocks::COMMANDS,
    jobs::COMMANDS,
    networks::COMMANDS,
    iothreads::COMMANDS,
    memory::COMMANDS,
    input::COMMANDS,
    pointer::COMMANDS,
    jit::COMMANDS,
];

/// All commands.
pub fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().copied().flatten()
}

/// Commands as introspection shows them.
pub fn entities() -> impl Iterator<Item = Entity> {
    all().map(|c| Entity {
        meta: "command",
        name: c.name,
        args: c.args,
        union: c.union,
        ret: c.ret,
        features: c.features,
        oob: false,
    })
}

/// Checks the arguments and runs a command.
///
/// # Errors
/// Unknown command, wrong arguments, or what the command says.
pub fn run(vm: &Arc<Vm>, name: &str, args: &Map<String, Value>, oob: bool) -> QmpResult {
    let Some(c) = all().find(|c| c.name == name) else {
        let hint = did_you_mean(name, all().map(|c| c.name));
        return Err(QmpError::not_found(format!("The command {name} has not been found{hint}")));
    };
    if oob {
        return Err(QmpError::generic(format!("The command {name} does not support OOB")));
    }
    match c.union {
        Some(u) => schema::check_union(u, args, c.open)?,
        None => schema::check(c.args, args, c.open)?,
    }
    (c.run)(vm, Args(args))
}

/// Checked arguments.
#[derive(Clone, Copy)]
pub struct Args<'a>(pub &'a Map<String, Value>);

impl<'a> Args<'a> {
    /// A string that must be there; empty if it is not, which the check excludes.
    pub fn str(&self, key: &str) -> &'a str {
        self.opt_str(key).unwrap_or_default()
    }
    /// A string.
    pub fn opt_str(&self, key: &str) -> Option<&'a str> {
        self.0.get(key)?.as_str()
    }
    /// A switch; false if it is not there.
    pub fn bool(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
    /// A non-negative number.
    ///
    /// # Errors
    /// When it is negative.
    pub fn uint(&self, key: &str) -> QmpResult<u64> {
        let v = self.0.get(key).unwrap_or(&Value::Null);
        v.as_u64().ok_or_else(|| QmpError::generic(format!("Parameter '{key}' expects a non-negative number")))
    }
    /// A list; empty if it is not there.
    pub fn list(&self, key: &str) -> &'a [Value] {
        self.0.get(key).and_then(Value::as_array).map_or(&[], |l| l)
    }
}
