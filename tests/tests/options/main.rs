//! Every option and every key of its lists, each given to a real process whose state then shows it: a row says how, and an
//! option or key without a row fails.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tests::process;
use tests::qmp::Qmp;

mod harness;
mod rows;

use harness::*;

/// The list in `query-command-line-options` that an option's argument belongs to, and the key of an item without one.
const LISTS: &[(&str, &str, &str)] = &[
    ("machine", "machine", "type"),
    ("M", "machine", "type"),
    ("accel", "accel", "accel"),
    ("action", "action", ""),
    ("boot", "boot-opts", "order"),
    ("chardev", "chardev", "backend"),
    ("device", "device", "driver"),
    ("drive", "drive", "file"),
    ("fsdev", "fsdev", "fsdriver"),
    ("fw_cfg", "fw_cfg", "name"),
    ("global", "global", ""),
    ("icount", "icount", "shift"),
    ("m", "memory", "size"),
    ("mon", "mon", "chardev"),
    ("msg", "msg", ""),
    ("name", "name", "guest"),
    ("object", "object", "qom-type"),
    ("rtc", "rtc", ""),
    ("run-with", "run-with", ""),
    ("smp", "smp-opts", "cpus"),
    ("trace", "trace", "enable"),
    ("virtfs", "virtfs", "fsdriver"),
];

#[test]
fn every_option_and_key_is_in_a_row() {
    let (mut options, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for args in rows::all() {
        let mut args = args.iter().peekable();
        while let Some(option) = args.next() {
            let name = option.trim_start_matches('-');
            options.insert(name.to_owned());
            let Some((_, list, first)) = LISTS.iter().find(|l| l.0 == name) else {
                args.next_if(|a| !a.starts_with('-'));
                continue;
            };
            for (i, item) in args.next().expect("an argument").split(',').enumerate() {
                let key = item.split_once('=').map_or(if i == 0 { *first } else { "" }, |(k, _)| k);
                keys.insert((*list, key.to_owned()));
                keys.insert((*list, key.split('.').next().unwrap_or_default().to_owned()));
            }
        }
    }
    let help = process::run(&["-help"], "").stdout;
    let listed: BTreeSet<String> = help
        .lines()
        .filter_map(|l| l.strip_prefix('-'))
        .map(|l| l.split_whitespace().next().unwrap_or_default().to_owned())
        .collect();
    let missing: Vec<_> = listed.difference(&options).collect();
    assert!(missing.is_empty(), "options without a row: {missing:?}");
    let gone: Vec<_> = options.difference(&listed).collect();
    assert!(gone.is_empty(), "rows for options that are not in the help: {gone:?}");

    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let mut missing = vec![];
    for list in q.run("query-command-line-options", json!({})).as_array().expect("a list") {
        let name = list["option"].as_str().expect("a name");
        // The machine's switches are tried one by one below.
        for p in list["parameters"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|p| name != "machine" || p["type"] != "boolean")
        {
            let key = p["name"].as_str().expect("a name");
            if !keys.contains(&(name, key.to_owned())) {
                missing.push(format!("{name}.{key}"));
            }
        }
    }
    assert!(missing.is_empty(), "keys without a row: {missing:?}");
}

#[test]
fn lists_keys_and_kinds_are_qemus() {
    let file: Value = serde_json::from_str(include_str!("../../testdata/cli-options.json")).expect("JSON");
    let mut theirs = BTreeMap::new();
    for list in file["params"].as_array().expect("a list") {
        for p in list["params"].as_array().expect("a list") {
            theirs.insert((list["option"].as_str(), p[0].as_str()), p[1].as_str());
        }
    }
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let mut wrong = vec![];
    for list in q.run("query-command-line-options", json!({})).as_array().expect("a list") {
        for p in list["parameters"].as_array().expect("a list") {
            let kind = theirs.get(&(list["option"].as_str(), p["name"].as_str()));
            // The machine has more properties than QEMU lists.
            let more = list["option"] == "machine" && kind.is_none();
            if kind != Some(&p["type"].as_str()) && !more {
                wrong.push(format!("{}.{}: {} instead of {kind:?}", list["option"], p["name"], p["type"]));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    // The options, and whether they take an argument: `-first` is one, or an option that there is not.
    let help = process::run(&["-help"], "").stdout;
    for option in file["options"].as_array().expect("a list") {
        let name = option["name"].as_str().expect("a name").trim_start_matches('-');
        let listed = help.lines().any(|l| l.strip_prefix('-').and_then(|l| l.split_whitespace().next()) == Some(name));
        if ["h", "help", "version"].contains(&name) {
            assert!(listed);
            continue;
        }
        let out = process::run(&[&format!("-{name}"), "-first", "-second"], "");
        assert_eq!(out.code, Some(1), "-{name}");
        if listed {
            assert_eq!(
                out.stderr.contains("-first: invalid option"),
                option["arg"] == false,
                "-{name}: {}",
                out.stderr
            );
        } else {
            assert!(out.stderr.contains("is not built yet"), "-{name}: {}", out.stderr);
        }
    }
}

#[test]
fn every_switch_of_the_machine_is_set_and_read_back() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let properties = q.run("qom-list-properties", json!({"typename": "pc-i440fx-11.1-machine"}));
    let switches: Vec<&str> = properties
        .as_array()
        .expect("a list")
        .iter()
        .filter(|p| p["type"] == "bool" || p["type"] == "OnOffAuto")
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert!(switches.contains(&"graphics") && switches.contains(&"hpet"), "{switches:?}");
    for value in [true, false] {
        let word = if value { "on" } else { "off" };
        let mut args = vec!["pc".to_owned()];
        let mut tried = vec![];
        for s in &switches {
            // What is not built says so; everything else holds its value.
            let machine = format!("pc,{s}={word}");
            let one = ["-machine", &machine, "-display", "none", "-accel", "qtest", "-L", firmware(), "-qmp", "stdio"];
            let one = process::run(&one, "{'execute':'qmp_capabilities'}{'execute':'quit'}");
            if one.code == Some(0) {
                args.push(format!("{s}={word}"));
                tried.push(*s);
            } else {
                assert!(one.code == Some(1) && one.stderr.lines().count() == 1, "{one:?}");
                assert!(one.stderr.to_lowercase().contains(s), "{}", one.stderr);
            }
        }
        let mut q = Qmp::start(&["-machine", &args.join(","), "-accel", "qtest", "-L", firmware()]);
        for s in tried {
            let got = get(&mut q, "/machine", s);
            assert!(got == value || got == word, "{s}: {got}");
        }
    }
}

#[test]
fn every_backend_is_listed_and_every_listed_backend_is_in_a_row() {
    let listed = process::run(&["-chardev", "help"], "").stdout;
    let listed: BTreeSet<&str> = listed.lines().skip(1).map(str::trim).collect();
    let tried: BTreeSet<&str> = rows::all()
        .flat_map(|args| args.windows(2).filter(|w| w[0] == "-chardev"))
        .map(|w| w[1].split(',').next().unwrap_or_default().trim_start_matches("backend="))
        .collect();
    assert_eq!(listed, tried);
}

#[test]
fn short_forms_lead_where_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(at("p")).status().unwrap().success());
    let (file, pipe, unix) =
        (format!("file:{}", at("f")), format!("pipe:{}", at("p")), format!("unix:{},server=on,wait=off", at("u")));
    for (short, shown) in [
        ("null", "null".to_owned()),
        ("vc", "vc".to_owned()),
        ("vc:80Cx24C", "vc".to_owned()),
        ("vc:640x480", "vc".to_owned()),
        ("ringbuf", "ringbuf".to_owned()),
        ("pty", "pty:/dev/pts/".to_owned()),
        ("stdio", "stdio".to_owned()),
        ("mon:stdio", "mux".to_owned()),
        ("mon:null", "mux".to_owned()),
        (&file, "file".to_owned()),
        (&pipe, "pipe".to_owned()),
        (&unix, format!("disconnected:unix:{},server=on", at("u"))),
        ("tcp:127.0.0.1:0,server=on,wait=off", "disconnected:tcp:127.0.0.1:".to_owned()),
        ("tcp::0,server=on,wait=off", "disconnected:tcp:0.0.0.0:".to_owned()),
        ("telnet:127.0.0.1:0,server=on,wait=off", "disconnected:telnet:127.0.0.1:".to_owned()),
        ("chardev:own", "null".to_owned()),
    ] {
        let mut q = Qmp::start(&["-machine", "none", "-chardev", "null,id=own", "-serial", short]);
        let label = if short.starts_with("chardev:") { "own" } else { "serial0" };
        let name = filename(&mut q, label);
        assert!(name.starts_with(&shown), "{short}: {name}");
    }
    let mut q = Qmp::start(&["-machine", "none", "-serial", "none"]);
    assert_eq!(
        q.run("query-chardev", json!({})).as_array().unwrap().iter().filter(|c| c["label"] == "serial0").count(),
        0
    );
}
