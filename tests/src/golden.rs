//! Comparing a machine with what QEMU was read out as: composition trees and flat views as text, and lists of known differences that
//! may shrink but not grow. The data and the lists are in `tests/golden`.

use crate::qmp::Qmp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The text of a file of `tests/golden`.
///
/// # Panics
/// When it cannot be read.
pub fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The arguments that a golden file says it was made with.
///
/// # Panics
/// When it does not say.
pub fn args(text: &str) -> Vec<&str> {
    let line = text.lines().find_map(|l| l.strip_prefix("# args: "));
    line.expect("the file says its arguments").split_whitespace().collect()
}

/// A property: type and value, if it has one that can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Prop {
    /// Type as `qom-list` shows it.
    pub ty: String,
    /// Value.
    pub value: Option<Value>,
}

/// An object: type and properties that are no children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Type name.
    pub ty: String,
    /// By name.
    pub props: BTreeMap<String, Prop>,
}

/// A composition tree by path.
pub type Tree = BTreeMap<String, Node>;

/// Reads a tree from the text of a golden file.
///
/// # Panics
/// When it is malformed.
pub fn parse_tree(text: &str) -> Tree {
    let mut tree = Tree::new();
    let mut at = String::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut fields = line.split('\t');
        let first = fields.next().expect("split answers at least one field");
        let mut field = || fields.next().map(str::to_owned);
        if first.is_empty() {
            let (name, ty) = (field().expect("a name"), field().expect("a type"));
            let value = field().map(|v| serde_json::from_str(&v).expect("a value is JSON"));
            tree.get_mut(&at).expect("a node above").props.insert(name, Prop { ty, value });
        } else {
            at = first.to_owned();
            tree.insert(at.clone(), Node { ty: field().expect("a type"), props: BTreeMap::new() });
        }
    }
    tree
}

/// Reads a running machine's tree.
pub fn read_tree(qmp: &mut Qmp) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![("/".to_owned(), "container".to_owned())];
    while let Some((path, ty)) = todo.pop() {
        let reply = qmp.run("qom-list-get", json!({"paths": [path]}));
        let mut node = Node { ty, props: BTreeMap::new() };
        for p in reply[0]["properties"].as_array().expect("a list of properties") {
            let text = |key: &str| p[key].as_str().expect("a text").to_owned();
            let (name, ty) = (text("name"), text("type"));
            if let Some(child) = ty.strip_prefix("child<").and_then(|t| t.strip_suffix('>')) {
                todo.push((format!("{}/{name}", path.trim_end_matches('/')), child.to_owned()));
            } else if name != "type" {
                node.props.insert(name, Prop { ty, value: p.get("value").cloned() });
            }
        }
        tree.insert(path, node);
    }
    tree
}

/// What differs, one line each: `missing|extra node PATH`, `missing|extra|different property PATH NAME`. `same` compares two properties
/// of one name.
pub fn tree_differences(golden: &Tree, ours: &Tree, same: impl Fn(&Prop, &Prop) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in golden.keys().chain(ours.keys()) {
        match (golden.get(path), ours.get(path)) {
            (Some(_), None) => _ = found.insert(format!("missing node {path}")),
            (None, Some(_)) => _ = found.insert(format!("extra node {path}")),
            (Some(g), Some(o)) => {
                if g.ty != o.ty {
                    found.insert(format!("different property {path} type"));
                }
                for name in g.props.keys().chain(o.props.keys()) {
                    let what = match (g.props.get(name), o.props.get(name)) {
                        (Some(_), None) => "missing",
                        (None, Some(_)) => "extra",
                        (Some(g), Some(o)) if !same(g, o) => "different",
                        _ => continue,
                    };
                    found.insert(format!("{what} property {path} {name}"));
                }
            }
            (None, None) => unreachable!("a key of one of them"),
        }
    }
    found
}

/// Flat views by the name of the address space: one line a range, as `info mtree -f -o` prints it.
pub type Views = BTreeMap<String, Vec<String>>;

/// Reads views from the text of a golden file.
///
/// # Panics
/// When it is malformed.
pub fn parse_views(text: &str) -> Views {
    let mut views = Views::new();
    let mut at = String::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(range) => views.get_mut(&at).expect("a name above").push(range.to_owned()),
            None => {
                at = line.to_owned();
                views.insert(at.clone(), vec![]);
            }
        }
    }
    views
}

/// Reads a running machine's flat views. Whose a range is, is shown as the path alone.
pub fn read_views(qmp: &mut Qmp) -> Views {
    let text = qmp.hmp("info mtree -f -o");
    let (mut views, mut names) = (Views::new(), vec![]);
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("FlatView") {
            names.clear();
        } else if let Some(rest) = line.strip_prefix(" AS \"") {
            let name = rest.split('"').next().expect("split answers at least one part").to_owned();
            views.insert(name.clone(), vec![]);
            names.push(name);
        } else if let Some((range, owner)) = line.strip_prefix("  ").and_then(|l| l.split_once(":{")) {
            let (range, _label) = range.rsplit_once(' ').expect("a label before the owner");
            let path = owner.trim_end_matches('}').split_once('=').expect("how it is named").1;
            for name in &names {
                views.get_mut(name).expect("inserted above").push(format!("{range} owner:{path}"));
            }
        }
    }
    views
}

/// What differs between views, one line each: `missing|extra range VIEW RANGE`.
pub fn view_differences(golden: &Views, ours: &Views) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, ranges) in golden {
        let (ours, none) = (ours.get(name), vec![]);
        let ours = ours.unwrap_or(&none);
        let mut note = |what: &str, a: &[String], b: &[String]| {
            found.extend(a.iter().filter(|r| !b.contains(r)).map(|r| format!("{what} range {name} {r}")));
        };
        note("missing", ranges, ours);
        note("extra", ours, ranges);
    }
    found
}

/// Holds `found` against the list of known differences in `tests/golden/NAME`, lines of the form `DIFFERENCE -- REASON`. A difference that is
/// not listed fails, and so does one that is listed and gone. `limits`: how many lines of a kind there may be at most.
///
/// # Panics
/// When they disagree; the message says what to add and what to remove.
pub fn check(name: &str, found: &BTreeSet<String>, limits: &[(&str, usize)]) {
    let text = file(name);
    let mut known = BTreeSet::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (difference, reason) = line.split_once(" -- ").unwrap_or_else(|| panic!("{name}: no reason in '{line}'"));
        assert!(!reason.trim().is_empty(), "{name}: no reason in '{line}'");
        assert!(known.insert(difference.to_owned()), "{name}: '{difference}' stands there twice");
    }
    let list =
        |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).map(|l| format!("  {l}\n")).collect::<String>();
    let (new, gone) = (list(found, &known), list(&known, found));
    assert!(
        new.is_empty() && gone.is_empty(),
        "{name}: differences that are not listed:\n{new}listed but gone:\n{gone}"
    );
    for (kind, most) in limits {
        let n = known.iter().filter(|d| d.split(' ').nth(1) == Some(kind)).count();
        assert!(n <= *most, "{name}: {n} differences of kind '{kind}', at most {most} may be");
    }
}

/// A type's properties: name, type and default.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// Told by `device-list-properties` rather than `qom-list-properties`.
    pub device: bool,
    /// Type and default (as value) by name.
    pub props: BTreeMap<String, Prop>,
}

/// Reads types from the text of a golden file.
///
/// # Panics
/// When it is malformed.
pub fn parse_types(text: &str) -> BTreeMap<String, Type> {
    let mut families: BTreeMap<String, BTreeMap<String, Prop>> = BTreeMap::new();
    let mut types: BTreeMap<String, Type> = BTreeMap::new();
    let mut at = (false, String::new());
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["", name, ty, ref default @ ..] => {
                let value = default.first().map(|d| serde_json::from_str(d).expect("a default is JSON"));
                let prop = Prop { ty: ty.into(), value };
                let (family, owner) = &at;
                let props = match family {
                    true => families.get_mut(owner).expect("a family above"),
                    false => &mut types.get_mut(owner).expect("a type above").props,
                };
                props.insert(name.into(), prop);
            }
            ["family", name] => {
                at = (true, name.into());
                families.insert(name.into(), BTreeMap::new());
            }
            [kind, name, ref family @ ..] => {
                at = (false, name.into());
                let props = family.first().map(|f| families.get(*f).expect("families come first").clone());
                types.insert(name.into(), Type { device: kind == "device", props: props.unwrap_or_default() });
            }
            _ => panic!("a line of types: '{line}'"),
        }
    }
    types
}

/// Asks a running machine for the properties of each of `types` that it has.
pub fn read_types(qmp: &mut Qmp, types: &BTreeMap<String, Type>) -> BTreeMap<String, Type> {
    let known = qmp.run("qom-list-types", json!({}));
    let known: Vec<&str> = known.as_array().into_iter().flatten().filter_map(|t| t["name"].as_str()).collect();
    let mut found = BTreeMap::new();
    for (name, golden) in types.iter().filter(|(name, _)| known.contains(&name.as_str())) {
        let command = if golden.device { "device-list-properties" } else { "qom-list-properties" };
        let reply = qmp.run(command, json!({"typename": name}));
        let prop = |p: &Value| {
            let text = |key: &str| p[key].as_str().expect("a text").to_owned();
            (text("name"), Prop { ty: text("type"), value: p.get("default-value").cloned() })
        };
        let list = reply.as_array().expect("a list of properties");
        let props = list.iter().map(prop).filter(|(name, _)| name != "type").collect();
        found.insert(name.clone(), Type { device: golden.device, props });
    }
    found
}
