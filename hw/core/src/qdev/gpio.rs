//! Named input and output lines of a device. Unnamed ones (name `""`) are called `unnamed-gpio-in` and `-out` in the tree.

use qom::{Error, Handle, Level, Property, Result};

use super::device::Device;
use crate::irq::{IrqNode, IrqOut, Line};
use crate::locked::Locked;

/// The lines of a device.
#[derive(Default)]
pub(super) struct Gpios {
    ins: Vec<(String, Vec<Line>)>,
    outs: Vec<(String, Vec<IrqOut>)>,
}

fn shown<'a>(name: &'a str, unnamed: &'a str) -> &'a str {
    if name.is_empty() { unnamed } else { name }
}

fn named<'a, T>(list: &'a mut Vec<(String, Vec<T>)>, name: &str) -> &'a mut Vec<T> {
    let at = list.iter().position(|e| e.0 == name).unwrap_or_else(|| {
        list.push((name.to_owned(), vec![]));
        list.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
    &mut list[at].1
}

impl Device {
    /// Adds `n` inputs; `f` gets the number of the input within the name.
    pub fn gpio_in<T: Level>(&self, name: &str, n: usize, f: fn(&T, &mut Locked, usize, bool)) {
        let Some(handle) = Handle::<T>::new(&self.object()) else {
            tracing::error!(device = self.type_name(), "inputs of another type's device");
            return;
        };
        let first = named(&mut self.gpios().write().ins, name).len();
        for i in first..first + n {
            let handle = handle.clone();
            let line = Line::new(move |m, level| _ = handle.with(|o| f(o, m, i, level)));
            if let Err(e) = line.publish(self, &format!("{}[*]", shown(name, "unnamed-gpio-in"))) {
                tracing::error!(device = self.type_name(), "cannot add an input to the tree: {e}");
            }
            named(&mut self.gpios().write().ins, name).push(line);
        }
    }

    /// Adds an output.
    pub fn gpio_out(&self, name: &str, out: &IrqOut) {
        let (set, get) = (out.clone(), out.clone());
        let property = Property::new(format!("{}[*]", shown(name, "unnamed-gpio-out")), "link<irq>")
            .reader(move |_| {
                let node = get.line().and_then(|l| l.node());
                Ok(node.map_or_else(String::new, |n| n.path()).into())
            })
            .writer(move |o, input| {
                let path = input.string()?;
                if path.is_empty() {
                    set.connect(None);
                    return Ok(());
                }
                let target = o.scope().resolve_kind::<IrqNode>(path)?;
                set.connect(target.line());
                Ok(())
            });
        if let Err(e) = self.add_property(property) {
            tracing::error!(device = self.type_name(), "cannot add an output to the tree: {e}");
        }
        named(&mut self.gpios().write().outs, name).push(out.clone());
    }

    /// Adds several outputs under one name.
    pub fn gpio_outs<'a>(&self, name: &str, outs: impl IntoIterator<Item = &'a IrqOut>) {
        outs.into_iter().for_each(|o| self.gpio_out(name, o));
    }

    /// Input `n` of `name`.
    pub fn gpio_in_line(&self, name: &str, n: usize) -> Option<Line> {
        self.gpios().read().ins.iter().find(|e| e.0 == name)?.1.get(n).cloned()
    }

    /// Output `n` of `name`.
    pub fn gpio_out_line(&self, name: &str, n: usize) -> Option<IrqOut> {
        self.gpios().read().outs.iter().find(|e| e.0 == name)?.1.get(n).cloned()
    }

    /// Connects output `n` of `name`, replacing an earlier connection. A line that is not in the tree yet appears as
    /// `/machine/unattached/non-qdev-gpio[*]`.
    ///
    /// # Errors
    /// There is no such output.
    pub fn connect(&self, name: &str, n: usize, line: Line) -> Result<()> {
        let out = self.gpio_out_line(name, n).ok_or_else(|| {
            let name = shown(name, "unnamed-gpio-out");
            Error::generic(format!("Device '{}' has no output '{name}[{n}]'", self.label()))
        })?;
        if line.node().is_none() {
            line.publish(&*self.scope().container("/machine/unattached")?, "non-qdev-gpio[*]")?;
        }
        out.connect(Some(line));
        Ok(())
    }

    /// Shows the outputs of `from` called `name` as this device's own.
    pub fn pass_gpio_outs(&self, from: &Device, name: &str) {
        let outs = from.gpios().read().outs.iter().find(|e| e.0 == name).map(|e| e.1.clone());
        outs.iter().flatten().for_each(|o| self.gpio_out(name, o));
    }

    /// Shows the inputs of `from` called `name` as this device's own.
    pub fn pass_gpio_ins(&self, from: &Device, name: &str) {
        let ins = from.gpios().read().ins.iter().find(|e| e.0 == name).map(|e| e.1.clone());
        named(&mut self.gpios().write().ins, name).extend(ins.into_iter().flatten());
    }

    /// All inputs, by name.
    pub fn gpio_ins(&self) -> Vec<(String, Vec<Line>)> {
        self.gpios().read().ins.clone()
    }

    /// All outputs, by name.
    pub fn gpio_out_list(&self) -> Vec<(String, Vec<IrqOut>)> {
        self.gpios().read().outs.clone()
    }
}
