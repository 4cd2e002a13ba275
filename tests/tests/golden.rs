//! Types and machines against what QEMU 11.1 was read out as. See `tests::golden` for the files.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tests::golden;
use tests::qmp::Qmp;

/// Every type that both have: names, types and defaults of its properties. A type of ours that QEMU has is found by its name, so that new
/// ones are compared as they come.
#[test]
fn the_properties_of_our_types_are_the_references() {
    let text = golden::file("types.txt");
    let types = golden::parse_types(&text);
    let mut q = Qmp::start_stdio(&golden::args("# args: -machine none -S -nodefaults -display none -qmp stdio"));
    let ours = golden::read_types(&mut q, &types);
    assert!(ours.len() > 30, "only {} of our types are known to the reference", ours.len());
    let mut found = BTreeSet::new();
    for (name, our) in &ours {
        let golden = &types[name].props;
        for property in golden.keys().chain(our.props.keys()) {
            let what = match (golden.get(property), our.props.get(property)) {
                (Some(_), None) => "missing",
                (None, Some(_)) => "extra",
                (g, o) if g != o => "different",
                _ => continue,
            };
            found.insert(format!("{what} property {name} {property}"));
        }
    }
    golden::check("type-differences.txt", &found, &[("property", 12)]);
}

/// The versions of the `pc` machine: names, aliases, limits, and the compat properties that make them what they were.
#[test]
fn machines_and_their_compat_properties_are_the_references() {
    let text = golden::file("machines.txt");
    let mut q = Qmp::start_stdio(&golden::args("# args: -machine none -S -nodefaults -display none -qmp stdio"));
    let mut ours = BTreeMap::new();
    for machine in q.run("query-machines", json!({"compat-props": true})).as_array().expect("a list") {
        let mut fields = machine.as_object().expect("an object").clone();
        let name = fields.shift_remove("name").expect("a name");
        let compat = fields.shift_remove("compat-props").unwrap_or(json!([]));
        let line = |c: &Value| ["qom-type", "property", "value"].map(|k| c[k].as_str().expect("a text").to_owned());
        let compat: Vec<_> = compat.as_array().expect("a list").iter().map(line).collect();
        ours.insert(name.as_str().expect("a text").to_owned(), (Value::from(fields), compat));
    }
    let (mut golden, mut compat, mut at) = (BTreeMap::new(), vec![], String::new());
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["", driver, property, value] => compat.push([driver, property, value].map(str::to_owned)),
            [name, rest] => {
                at = name.to_owned();
                golden.insert(at.clone(), (serde_json::from_str(rest).expect("JSON"), vec![]));
            }
            _ => panic!("a line of machines: '{line}'"),
        }
        golden.get_mut(&at).expect("a machine above").1.clone_from(&compat);
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (name, golden) in &golden {
        assert_eq!(&ours[name], golden, "{name}");
    }
}
