//! Opening nodes again with other options: `blockdev-reopen`, and what jobs change when they end.
//!
//! A change makes a second opening of each image while nothing is under way, the nodes below first, and puts it in the place of the first. What
//! was in memory is in the image by then, and the first opening has nothing left to write. If one of them fails, all first openings are put
//! back: nothing has changed then. Whether the users of all nodes can live with the result is looked at when all of it is there.

use crate::blocks::{Blocks, check_depth, plain};
use crate::driver::ChildOf;
use crate::node::{Common, Node, Opened, Owner, Recipe};
use hw_core::opts::{Child, Opts};
use qom::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Children that options name.
const ROLES: [&str; 3] = ["file", "data-file", "backing"];

/// A node that is to be opened again.
struct Change {
    node: Arc<Node>,
    common: Common,
    /// Its driver's options, children by name.
    opts: Opts,
    recipe: Recipe,
}

/// What has been done of a [`Change`].
struct Step {
    node: Arc<Node>,
    old: Arc<Opened>,
    recipe: Recipe,
    /// Whether its users were moved to the new opening.
    swapped: bool,
}

/// What is to be different, beside what the options say.
#[derive(Clone, Default)]
pub(crate) struct Other {
    /// Read-only or not.
    pub read_only: Option<bool>,
    /// Another backing file, or none.
    pub backing: Option<Option<Arc<Node>>>,
    /// Another node below.
    pub file: Option<Arc<Node>>,
}

fn contains(top: &Arc<Node>, node: &Arc<Node>, known: &mut HashMap<*const Node, ()>) -> bool {
    if Arc::ptr_eq(top, node) {
        return true;
    }
    if known.insert(Arc::as_ptr(top), ()).is_some() {
        return false;
    }
    top.driver().children().iter().any(|(_, n)| contains(n, node, known))
}

impl Blocks {
    /// `blockdev-reopen`: each of `all` has the options of one node, as `blockdev-add` takes them. Waits for all requests; no vCPU may run.
    ///
    /// # Errors
    /// An option that is none or cannot change, an image that cannot be opened so, or a user who is in the way: nothing has changed then.
    pub fn reopen(&self, all: Vec<Opts>) -> Result<()> {
        let mut changes = vec![];
        for mut opts in all {
            let Some(name) = opts.take_str("node-name")? else { return Err(Error::generic("node-name not specified")) };
            let none = || Error::generic(format!("Failed to find node with node-name='{name}'"));
            let node = self.find_node(&name).ok_or_else(none)?;
            if changes.iter().any(|c: &Change| Arc::ptr_eq(&c.node, &node)) {
                return Err(Error::generic(format!("Node '{name}' is reopened more than once")));
            }
            let driver = opts.require_str("driver")?;
            if driver != node.driver_name() {
                return Err(Error::generic("Cannot change the option 'driver'"));
            }
            let has_backing = node.driver().children().iter().any(|(role, _)| *role == "backing");
            if has_backing && !opts.has("backing") {
                return Err(Error::generic(format!("backing is missing for '{name}'")));
            }
            let inherited = node.recipe().inherited;
            self.plan(&node, Recipe { given: opts, inherited }, &Other::default(), &mut changes)?;
        }
        self.apply(changes)
    }

    /// Opens a node again as it is but for `other`. Waits for all requests; no vCPU may run.
    ///
    /// # Errors
    /// As [`Blocks::reopen`].
    pub(crate) fn reopen_with(&self, node: &Arc<Node>, other: &Other) -> Result<()> {
        let mut changes = vec![];
        self.plan(node, node.recipe(), other, &mut changes)?;
        self.apply(changes)
    }

    /// Finds out what is to be opened again, the nodes below first.
    fn plan(&self, node: &Arc<Node>, mut recipe: Recipe, other: &Other, out: &mut Vec<Change>) -> Result<()> {
        let (now, driver) = (node.common(), node.driver());
        let mut opts = recipe.given.clone();
        _ = opts.take_str("driver")?;
        _ = opts.take_str("node-name")?;
        let mut common = Common::take(&mut opts, recipe.inherited.as_ref())?;
        if let Some(read_only) = other.read_only {
            common.read_only = read_only;
        }
        (common.probed, common.chain, common.node_name) = (now.probed, now.chain.clone(), now.node_name.clone());
        common.owner = Owner { generation: now.owner.generation.wrapping_add(1), ..now.owner };
        if node.is_protocol() {
            opts = same_options(&node.recipe().given, &opts)?;
        }
        let children = driver.children();
        let child_of = |role: &str| children.iter().find(|(r, _)| *r == role).map(|(_, n)| n.clone());
        for role in ROLES {
            let old = child_of(role);
            let wanted = match role {
                "backing" => other.backing.clone(),
                "file" => other.file.clone().map(Some),
                _ => None,
            };
            let new = match wanted {
                Some(wanted) => {
                    _ = opts.take_null(role) || opts.take_child(role)?.is_some();
                    wanted
                }
                None if opts.take_null(role) => None,
                None => match opts.take_child(role)? {
                    None => old.clone(),
                    Some(Child::Reference(name)) if name.is_empty() && role == "backing" => None,
                    Some(Child::Reference(name)) => {
                        let none = || Error::generic(format!("Cannot find device='' nor node-name='{name}'"));
                        Some(self.find_node(&name).ok_or_else(none)?)
                    }
                    Some(Child::Inline(inner)) => {
                        let Some(child) = old.clone() else {
                            return Err(Error::generic(format!("Cannot change the option '{role}'")));
                        };
                        self.plan_child(&child, role, Some(inner), &common, out)?;
                        recipe.given.set(role, child.name());
                        Some(child)
                    }
                },
            };
            let same = match (&old, &new) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            if !same && node.is_frozen() {
                return Err(Error::generic(format!("Cannot change frozen '{role}' link from '{}'", node.name())));
            }
            if let Some(new) = new.as_ref().filter(|_| !same)
                && contains(new, node, &mut HashMap::new())
            {
                return Err(Error::generic(format!(
                    "Making '{}' a {role} child of '{}' would create a cycle",
                    new.name(),
                    node.name()
                )));
            }
            match &new {
                Some(new) => {
                    if same {
                        self.plan_child(new, role, None, &common, out)?;
                    }
                    opts.set(role, new.name());
                    if !same {
                        recipe.given.set(role, new.name());
                    }
                }
                None if role == "backing" && (old.is_some() || recipe.given.has(role)) => {
                    opts.set(role, "");
                    recipe.given.set(role, "");
                }
                None => {}
            }
        }
        out.push(Change { node: node.clone(), common, opts, recipe });
        Ok(())
    }

    /// A child that was opened together with its parent has options of its parent's: opens it again if they change.
    fn plan_child(
        &self,
        child: &Arc<Node>,
        role: &str,
        given: Option<Opts>,
        parent: &Common,
        out: &mut Vec<Change>,
    ) -> Result<()> {
        let mut recipe = child.recipe();
        if out.iter().any(|c| Arc::ptr_eq(&c.node, child)) {
            return Ok(());
        }
        let Some(inherited) = &recipe.inherited else {
            let cannot = || Error::generic(format!("Cannot change the option '{role}'"));
            return if given.is_some() { Err(cannot()) } else { Ok(()) };
        };
        if let Some(mut given) = given {
            if given.take_str("driver")?.is_some_and(|d| d != child.driver_name()) {
                return Err(Error::generic(format!("Cannot change the option '{role}.driver'")));
            }
            if given.take_str("node-name")?.is_some_and(|n| n != child.name()) {
                return Err(Error::generic(format!("Cannot change the option '{role}.node-name'")));
            }
            recipe.given = given;
        }
        let chain = inherited.chain.clone();
        let mut from = Common { chain, probed: false, ..parent.clone() };
        if role == "backing" {
            (from.read_only, from.auto_read_only) = (inherited.read_only, inherited.auto_read_only);
            from.detect_zeroes = inherited.detect_zeroes;
        }
        let (wanted, now) = (Common::take(&mut recipe.given.clone(), Some(&from))?, child.common());
        let same = |a: &Common, b: &Common| {
            (a.cache, a.unmap, a.detect_zeroes, a.force_share) == (b.cache, b.unmap, b.detect_zeroes, b.force_share)
        };
        // (What became read-only by itself may have become writable.)
        if same(&wanted, &now) && wanted.read_only == now.read_only {
            return Ok(());
        }
        recipe.inherited = Some(from);
        self.plan(child, recipe, &Other::default(), out)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<()> {
        self.drain();
        // Formats first: what they keep in memory goes to the nodes below.
        for change in changes.iter().rev() {
            let node = &change.node;
            if !node.is_read_only() {
                let failed =
                    |e: std::io::Error| Error::generic(format!("Could not flush '{}': {}", node.name(), plain(&e)));
                node.driver().settle().map_err(failed)?;
            }
        }
        let mut done: Vec<Step> = vec![];
        let result =
            changes.into_iter().try_for_each(|c| self.open_again(c, &mut done)).and_then(|()| self.check_all());
        if result.is_err() {
            for step in done.into_iter().rev() {
                undo(step);
            }
            return result;
        }
        drop(done);
        // What became writable is written by whoever wanted to.
        self.backends().iter().for_each(|b| b.renew_perms());
        Ok(())
    }

    fn open_again(&self, mut change: Change, done: &mut Vec<Step>) -> Result<()> {
        let node = &change.node;
        let old = node.opened();
        let driver = (node.def().open)(self, &mut change.common, &mut change.opts)?;
        change.opts.finish_driver(node.driver_name())?;
        check_depth(&driver.children())?;
        let below: Vec<ChildOf> = old.driver.children();
        let new = Arc::new(Opened { common: change.common, driver: driver.into() });
        done.push(Step { node: node.clone(), old: old.clone(), recipe: node.recipe(), swapped: false });
        node.swap(new)?;
        if let Some(step) = done.last_mut() {
            step.swapped = true;
        }
        node.set_recipe(change.recipe);
        below.iter().try_for_each(|(_, n)| n.retire(old.common.owner, true))
    }

    /// Whether everybody can live with everybody.
    fn check_all(&self) -> Result<()> {
        let nodes = self.nodes();
        nodes.iter().try_for_each(|n| n.check_users())?;
        nodes.iter().try_for_each(|n| check_depth(&n.driver().children()))
    }
}

/// Puts the first opening back. What it asks of the nodes below was granted before.
fn undo(step: Step) {
    if !step.swapped {
        return;
    }
    for (_, child) in step.old.driver.children() {
        _ = child.retire(step.old.common.owner, false);
    }
    let owner = step.node.common().owner;
    let below = step.node.driver().children();
    if step.node.swap(step.old).is_ok() {
        step.node.set_recipe(step.recipe);
        for (_, child) in below {
            _ = child.retire(owner, true);
        }
    }
}

/// Options that every node has.
const COMMON: [&str; 8] =
    ["driver", "node-name", "cache", "discard", "read-only", "auto-read-only", "detect-zeroes", "force-share"];

/// The options of a protocol, which stay what they were: those that are given again must be the same.
fn same_options(old: &Opts, new: &Opts) -> Result<Opts> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut own = old.empty();
    for (key, value) in old.clone().into_map() {
        if !COMMON.contains(&key.as_str()) {
            own.or_insert(&key, value);
        }
    }
    let had = own.clone().into_map();
    match new.clone().into_map().iter().find(|(key, value)| had.get(*key).map(text) != Some(text(value))) {
        Some((key, _)) => Err(Error::generic(format!("Cannot change the option '{key}'"))),
        None => Ok(own),
    }
}
