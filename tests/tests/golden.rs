//! The composition of a machine against what QEMU 11.1 was read out as, under the same arguments: every node and property of its tree,
//! every range of its flat views. See `tests::golden` for the files.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::golden::{self, Prop};
use tests::packages;
use tests::qmp::Qmp;

/// Starts our binary as a golden file says. The folders of firmware and of the network card's ROM are added: they are no part of the machine.
fn start(text: &str) -> Qmp {
    let bios = packages::seabios().expect("SeaBIOS can be fetched");
    let folder = if bios.is_dir() { bios } else { bios.parent().expect("a folder").to_owned() };
    let roms = packages::network_roms().expect("iPXE's ROMs can be fetched");
    let [folder, roms] = [&folder, &roms].map(|f| f.to_str().expect("a plain path"));
    Qmp::start_stdio(&[&golden::args(text)[..], &["-L", folder, "-L", roms]].concat())
}

/// Seconds since 1970 of a `struct tm` as the monitor shows it.
fn seconds(tm: &Value) -> Option<i64> {
    let field = |name: &str| tm[name].as_i64();
    let (year, month, day) = (field("tm_year")? + 1900, field("tm_mon")? + 1, field("tm_mday")?);
    // Days since 1970 of a date in the Gregorian calendar, counted in years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 719_469;
    Some(((days * 24 + field("tm_hour")?) * 60 + field("tm_min")?) * 60 + field("tm_sec")?)
}

/// Two properties agree. Wall-clock times have no value in the golden file, for they are another at every start: they must be the host's
/// time in UTC, give or take a minute. Nothing else varies: no paths, process ids or random numbers are in the tree.
fn same(golden: &Prop, ours: &Prop) -> bool {
    if golden.ty == "struct tm" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        let shown = ours.value.as_ref().and_then(seconds);
        return ours.ty == golden.ty && shown.is_some_and(|s| (s - now).abs() <= 60);
    }
    golden == ours
}

#[test]
fn the_tree_without_defaults_is_the_references() {
    let text = golden::file("pc-nodefaults.tree");
    let ours = golden::read_tree(&mut start(&text));
    let found = golden::tree_differences(&golden::parse_tree(&text), &ours, same);
    golden::check("tree-differences.txt", &found, &[("node", 0), ("property", 4)]);
}

#[test]
fn the_flat_views_without_defaults_are_the_references() {
    let text = golden::file("pc-nodefaults.views");
    let ours = golden::read_views(&mut start(&text));
    for (name, ranges) in golden::parse_views(&text) {
        assert_eq!(ours.get(&name).unwrap_or(&vec![]), &ranges, "address space '{name}'");
    }
}

/// With the devices a user gets without asking.
#[test]
fn the_default_tree_is_the_references() {
    let text = golden::file("pc.tree");
    let ours = golden::read_tree(&mut start(&text));
    let found = golden::tree_differences(&golden::parse_tree(&text), &ours, same);
    golden::check("pc-differences.txt", &found, &[("node", 0), ("property", 4)]);
}

#[test]
fn the_default_flat_views_are_the_references() {
    let text = golden::file("pc.views");
    let ours = golden::read_views(&mut start(&text));
    let golden = golden::parse_views(&text);
    assert_eq!(golden::view_differences(&golden, &ours), BTreeSet::new());
    for (name, ranges) in &golden {
        assert_eq!(ours.get(name), Some(ranges), "the order of '{name}'");
    }
}

/// `i8042=off` takes away all that has to do with the controller, port 92H included.
#[test]
fn a_machine_without_a_keyboard_controller_has_nothing_of_it() {
    let text = golden::file("pc-nodefaults.tree");
    let with = golden::read_tree(&mut start(&text));
    let without = golden::read_tree(&mut start(&text.replacen("-machine pc", "-machine pc,i8042=off", 1)));
    let count = |tree: &golden::Tree| {
        tree.values().fold(BTreeMap::new(), |mut all: BTreeMap<String, usize>, node| {
            *all.entry(node.ty.clone()).or_default() += 1;
            all
        })
    };
    let (with, without) = (count(&with), count(&without));
    let gone: Vec<_> =
        with.iter().filter(|(ty, n)| without.get(*ty).unwrap_or(&0) < *n).map(|(ty, _)| ty.as_str()).collect();
    assert_eq!(gone, ["i8042", "irq", "memory-region", "port92", "ps2-kbd", "ps2-mouse", "vmmouse", "vmport"]);
}

/// What the firmware makes of the machine: its BARs, its shadow memory. No network card on either side, for it would move the other BARs.
#[test]
fn the_flat_views_after_the_firmware_are_the_references() {
    let text = golden::file("pc-booted.views");
    let mut machine = start(&text);
    let golden = golden::parse_views(&text);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = golden::view_differences(&golden, &golden::read_views(&mut machine));
        // The firmware takes its time, and says to nobody that it is done.
        if found.len() <= 8 || Instant::now() > deadline {
            return golden::check("pc-booted-differences.txt", &found, &[("range", 8)]);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Properties that we have beyond the reference's.
const OURS: [&str; 3] =
    ["extra property tcg-accel threshold", "extra property tcg-accel tier", "extra property tcg-accel x-torture"];

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
    for ours in OURS {
        assert!(found.remove(ours), "{ours}: not there");
    }
    golden::check("type-differences.txt", &found, &[("property", 9)]);
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
