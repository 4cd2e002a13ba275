//! Which crate may depend on which: the table in `docs/architecture.md` against `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Words between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The table's rows as: crate, crates it may depend on. Crates of one row may use each other.
fn allowed(page: &str) -> Arrows {
    let mut arrows = Arrows::new();
    let rows = page.lines().skip_while(|l| !l.starts_with("| folder | crate |")).skip(2);
    for row in rows.take_while(|l| l.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, crates, _, may] = cells[..] else { panic!("four columns expected: {row}") };
        // `vl` + `qomet`: the second is a binary of the first
        let crates = quoted(crates.split('+').next().unwrap_or(crates));
        let above: BTreeSet<String> = arrows.keys().cloned().collect();
        let mut targets: BTreeSet<String> = match may {
            "–" => BTreeSet::new(),
            "all of the above" => above,
            _ if may.ends_with("and what it links") => above,
            list => quoted(list).into_iter().collect(),
        };
        for t in &targets {
            assert!(arrows.contains_key(t), "a crate depends on those of rows above it only: {row}");
        }
        targets.extend(crates.iter().cloned());
        for c in &crates {
            let twice = arrows.insert(c.clone(), targets.iter().filter(|t| *t != c).cloned().collect());
            assert!(twice.is_none(), "{c} is in two rows");
        }
    }
    arrows
}

/// Dependencies among our own crates, of every kind.
fn actual(metadata: &Value) -> Arrows {
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |v: &Value| v["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let uses = |p: &Value| {
        let deps = p["dependencies"].as_array().expect("dependencies");
        deps.iter().map(name).filter(|d| ours.contains(d)).collect()
    };
    packages.iter().map(|p| (name(p), uses(p))).collect()
}

/// Every difference, one line each.
fn differences(allowed: &Arrows, actual: &Arrows) -> Vec<String> {
    let unlisted = actual.keys().filter(|c| !allowed.contains_key(*c)).map(|c| format!("{c} is not in the table"));
    let gone = allowed.keys().filter(|c| !actual.contains_key(*c)).map(|c| format!("{c} is in the table only"));
    let wrong = actual.iter().flat_map(|(from, to)| {
        let may = allowed.get(from);
        to.iter()
            .filter(move |t| !may.is_none_or(|m| m.contains(*t)))
            .map(move |t| format!("{from} must not depend on {t}"))
    });
    unlisted.chain(gone).chain(wrong).collect()
}

#[test]
fn crates_depend_on_each_other_as_the_table_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/architecture.md")).expect("docs/architecture.md");
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(&root)
        .output()
        .expect("cargo metadata");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let differences = differences(&allowed(&page), &actual(&metadata));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_wrong_arrow_and_an_unlisted_crate_are_seen() {
    let page = "| folder | crate | owns | may depend on (ours) |\n|---|---|---|---|\n\
                | `a` | `a`, `a-derive` | x | – |\n| `b` | `b` | x | `a` |\n| `c` | `c` + `bin` | x | all of the above |\n";
    let allowed = allowed(page);
    let arrows = |edges: &[(&str, &[&str])]| -> Arrows {
        let set = |to: &[&str]| to.iter().map(|t| (*t).to_owned()).collect();
        edges.iter().map(|(from, to)| ((*from).to_owned(), set(to))).collect()
    };
    let good = arrows(&[("a", &["a-derive"]), ("a-derive", &[]), ("b", &["a"]), ("c", &["a", "b"])]);
    assert!(differences(&allowed, &good).is_empty());
    let bad = arrows(&[("a", &["b"]), ("b", &["a-derive"]), ("c", &[]), ("d", &[])]);
    assert_eq!(
        differences(&allowed, &bad),
        [
            "d is not in the table",
            "a-derive is in the table only",
            "a must not depend on b",
            "b must not depend on a-derive"
        ]
    );
}

/// Packages with the features they are built with, a line each.
fn features(of: &[&str]) -> BTreeSet<String> {
    let tree = ["tree", "--offline", "--prefix", "none", "--format", "{p} {f}"];
    let out = Command::new(env!("CARGO"))
        .args(tree)
        .args(of)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text").lines().map(|l| l.trim_end_matches(" (*)").to_owned()).collect()
}

/// `cargo test` builds `qomet` of the crates that `cargo build` makes, not all of them once more.
#[test]
fn tests_and_users_share_their_crates() {
    let (alone, tested) = (features(&["-p", "vl", "-e", "no-dev"]), features(&["--workspace", "-e", "all"]));
    let other: Vec<_> = alone.difference(&tested).collect();
    assert!(alone.len() > 50 && other.is_empty(), "built with other features by `cargo test`: {other:?}");
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).expect("it is there");
    let dev = &manifest.parse::<toml::Table>().expect("TOML")["profile"]["dev"];
    assert_eq!(dev["debug"], dev["build-override"]["debug"], "what macros and tests use is built in two ways");
}
