//! The peer bench's plan, its workloads and their results.

use std::{collections::BTreeSet, process::Command, time::Duration};
use tests::{
    guest::Linux,
    packages,
    peer_bench::{
        BOOTS, LINKS, Options,
        devices::{self, Devices},
        image, installed,
        plan::{Machine, Plan},
        report::{Report, Row, geomean, median},
        server,
        side::{Booted, Native, Run, guest_args},
    },
    process,
};

/// Every own workload once: name, count, digest.
const DIGESTS: &str = include_str!("../testdata/bench-digests.txt");

fn digests() -> impl Iterator<Item = (&'static str, u64, &'static str)> {
    DIGESTS.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, count, digest] = words[..] else { panic!("name, count, digest: {line}") };
        (name, count.parse().expect("a count"), digest)
    })
}

fn native() -> Native {
    Native::start(&image::guest_program().expect("the guest program"), None, None).expect("it starts")
}

#[test]
fn floors_toml_names_exactly_the_workloads_there_are() {
    let plan = Plan::read().expect("floors.toml");
    let planned: BTreeSet<String> = plan.works().map(|(_, w)| w.name.clone()).collect();
    let mut there: BTreeSet<String> = native().list().expect("a list").into_iter().collect();
    there.extend(BOOTS.map(str::to_owned));
    there.insert(installed::NAME.to_owned());
    there.extend(LINKS.map(|(name, _)| name.to_owned()));
    assert_eq!(planned, there);
}

#[test]
fn own_workloads_compute_what_they_always_did() {
    let mut native = native();
    let tested: BTreeSet<&str> = digests().map(|(name, ..)| name).collect();
    let there = native.list().expect("a list");
    // the others are programs of packages: theirs are compared in the bench
    let own: BTreeSet<&str> = there.iter().take_while(|n| *n != "sha256sum").map(String::as_str).collect();
    assert_eq!(tested, own);
    for (name, count, digest) in digests() {
        assert_eq!(native.run(name, count).expect(name).digest, digest, "{name}");
    }
}

/// On our guest, with two processors, so that threads meet.
#[test]
fn own_workloads_compute_the_same_in_a_guest() {
    let limit = Duration::from_secs(120);
    let small = image::small(&image::guest_program().expect("the guest program")).expect("an image");
    let linux = Linux::amd64_from(small).expect("the packages");
    let mut command = Command::new(process::binary());
    command.args(guest_args(&linux, "", 2, "tcg"));
    let (mut guest, _) = Booted::start(command).expect("it boots");
    for (name, count, digest) in digests() {
        assert_eq!(guest.run(name, count, limit).expect(name).digest, digest, "{name}");
    }
    let refused = guest.run("nothing-of-the-kind", 1, limit).expect_err("there is none");
    assert!(refused.to_string().contains("no workload nothing-of-the-kind"), "{refused:#}");
    guest.off().expect("it powers off");
}

/// What the guest reads and writes, sends and receives is what the same workload does on the host.
#[test]
fn disks_and_the_network_give_the_same_in_a_guest() {
    let limit = Duration::from_secs(120);
    let server = server::start().expect("a server");
    let program = image::guest_program().expect("the guest program");
    let mut native = Native::start(&program, None, Some(server)).expect("it starts");
    let linux = Linux::amd64_from(devices::image().expect("an image")).expect("the packages");
    let devices = Devices::new(&packages::peer().expect("the packages"), server).expect("images");
    let mut command = Command::new(process::binary());
    command.args(guest_args(&linux, &devices.settings(), 1, "tcg")).args(devices.args());
    let (mut guest, _) = Booted::start(command).expect("it boots");
    let plan = Plan::read().expect("floors.toml");
    let mut seen = 0;
    for (_, work) in plan.works().filter(|(g, _)| g.machine == Machine::Devices) {
        let runs = [native.run(&work.name, 3).expect(&work.name), guest.run(&work.name, 3, limit).expect(&work.name)];
        assert_eq!(runs[0].digest, runs[1].digest, "{}", work.name);
        seen += 1;
    }
    assert_eq!(seen, 28 + 5 + 1);
    guest.off().expect("it powers off");
    // Everything lies where the guest has put it.
    let raw = std::fs::read(devices.folder().join("raw")).expect("the image");
    assert!(raw[..1 << 20].chunks(512).all(|sector| sector[..8] != [0; 8]));
}

const PLAN: &str = "[any]\nfloor = 0.9\n\
    [group.a]\ntitle = 'A'\nfloor = 2\ngoal = 3\nwork = { x = 10, y = 20 }\n\
    [group.s]\ntitle = 'S'\nmeasure = 'share'\nfloor = 0.85\ngoal = 0.95\n\
    work = { one = { count = 5, cpus = 2 }, two = { count = 5, cpus = 2, alone = 'one' } }\n";
const DEVICES: &str = "[any]\nfloor = 0.9\n\
    [group.d]\ntitle = 'D'\nmachine = 'devices'\nmeasure = 'wall'\nmost = 3\nfloor = 1\ngoal = 2\nwork = { x = 10 }\n";

#[test]
fn plans_are_checked() {
    let plan = Plan::parse(PLAN).expect("a plan");
    assert_eq!(plan.works().map(|(_, w)| (w.name.as_str(), w.count, w.cpus)).nth(3), Some(("two", 5, 2)));
    for (from, to, why) in [
        ("y = 20", "y = 0", "not a count"),
        ("y = 20", "one = 20", "twice"),
        ("floor = 2", "flor = 2", "floor"),
        ("goal = 3", "goal = 3\nextra = 1", "unknown key extra"),
        ("alone = 'one'", "alone = 'three'", "no workload three"),
        ("one = { count = 5", "one = { count = 6", "the same count and cpus"),
        ("'share'", "'sum'", "measure"),
        ("goal = 3", "goal = 3\nmachine = 'car'", "machine"),
        ("goal = 3", "goal = 3\nmost = 'all'", "no number most"),
        ("[any]", "[some]", "no table any"),
    ] {
        let error = Plan::parse(&PLAN.replacen(from, to, 1)).expect_err(why);
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
}

fn run(cpu: f64, wall: f64) -> Run {
    Run { cpu, wall, inside: 0.0, digest: "d".to_owned() }
}

#[test]
fn floors_hold_for_groups_and_for_each_workload() {
    let plan = Plan::parse(PLAN).expect("a plan");
    let row = |native: f64, ours: [f64; 3], peer: f64| Row {
        native: vec![run(native, native)],
        guest: [ours.map(|t| run(t, t)).to_vec(), vec![run(peer, peer)]],
        failures: vec![],
    };
    let report =
        |rows: Vec<Row>| Report::new(&plan, plan.works().zip(rows).map(|((g, w), r)| (g, w, r)).collect()).below();
    // medians 2 and 4: ratios 4 and 1, mean 2; gains 2 of 2 natively
    let good = || {
        vec![
            row(1.0, [2.0, 1.0, 9.0], 8.0),
            row(1.0, [4.0, 4.0, 4.0], 4.0),
            row(2.0, [8.0; 3], 8.0),
            row(1.0, [4.2; 3], 4.2),
        ]
    };
    assert_eq!(report(good()), Vec::<String>::new());
    let mut slow = good();
    slow[1] = row(1.0, [8.0; 3], 4.0);
    assert_eq!(report(slow), ["y: 0.50 is below the floor of any workload, 0.9", "A: 1.41 is below the floor, 2"]);
    let mut no_gain = good();
    no_gain[3] = row(1.0, [6.0; 3], 6.0);
    assert_eq!(report(no_gain), ["S: 0.67 is below the floor, 0.85"]);
}

#[test]
fn elapsed_time_counts_where_the_plan_says_so_and_shares_of_a_core_are_bounded() {
    let plan = Plan::parse(DEVICES).expect("a plan");
    let below = |ours: Run, peer: Run| {
        let row = Row { native: vec![], guest: [vec![ours], vec![peer]], failures: vec![] };
        Report::new(&plan, plan.works().map(|(g, w)| (g, w, row.clone())).collect()).below()
    };
    assert_eq!(below(run(0.2, 10.0), run(0.1, 10.0)), Vec::<String>::new());
    assert_eq!(below(run(0.31, 10.0), run(9.0, 10.0)), ["x: 3.1 % of a host core, at most 3 are allowed"]);
    let slow = below(run(0.1, 20.0), run(1.0, 10.0));
    assert_eq!(slow, ["x: 0.50 is below the floor of any workload, 0.9", "D: 0.50 is below the floor, 1"]);
}

#[test]
fn means() {
    assert_eq!((median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    assert!((geomean(&[1.0, 4.0, 16.0]) - 4.0).abs() < 1e-12);
}

#[test]
fn options_are_checked() {
    assert!(
        Options::parse(&["--runs", "5", "--only", "sieve", "--tier", "jit", "--check"]).expect("options").is_some()
    );
    assert!(Options::parse(&["--help"]).expect("help").is_none());
    for (args, why) in [
        (&["--runs"][..], "needs a value"),
        (&["--runs", "0"], "at least one"),
        (&["--tier", "fast"], "no tier fast"),
        (&["--side", "left"], "no side left"),
        (&["--check", "--side", "ours"], "needs both sides"),
        (&["--fast"], "unknown option"),
    ] {
        let error = Options::parse(args).expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
    }
}
