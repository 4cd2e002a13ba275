//! Every target on the inputs that are kept for it, and on changed ones: without a fuzzer, the same on every host.

use fuzz_targets::{TARGETS, Target};
use std::path::{Path, PathBuf};

/// Changed inputs for each that is kept.
const CHANGED: u64 = 12;
/// Most memory that the process may have had when all is over, KiB.
const MOST_KIB: u64 = 600 << 10;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = seeds().join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), std::fs::read(&p).expect("an input"))).collect()
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Some bytes are others, some are gone, some are there twice.
fn change(data: &mut Vec<u8>, seed: &mut u64) {
    for _ in 0..1 + random(seed) % 6 {
        if data.is_empty() {
            data.push(random(seed) as u8);
        }
        let len = data.len() as u64;
        let (at, n) = ((random(seed) % len) as usize, (random(seed) % 16) as usize);
        let end = (at + n).min(data.len());
        match random(seed) % 5 {
            0 => data[at] = random(seed) as u8,
            1 => data[at] ^= 1 << (random(seed) % 8),
            2 => data[at] = [0, 1, 0x7f, 0x80, 0xff][(random(seed) % 5) as usize],
            3 => drop(data.drain(at..end)),
            _ => {
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
        }
    }
}

fn replay((name, target): Target) {
    let inputs = inputs(name);
    assert!(inputs.len() >= 3, "{name} has inputs");
    target(&[]);
    for (path, data) in inputs {
        println!("{}", path.display()); // shown if it fails
        target(&data);
        let mut seed =
            data.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        let mut changed = data;
        for n in 0..CHANGED {
            println!("changed {n} times");
            change(&mut changed, &mut seed);
            target(&changed);
        }
    }
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(#[test] fn $name() {
            replay((stringify!($name), fuzz_targets::$name));
        })*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays!(
    ahci,
    atapi,
    formats,
    net_user,
    nvme,
    p9,
    qcow2,
    rings,
    scsi,
    virtio_9p,
    virtio_balloon,
    virtio_blk,
    virtio_net,
    virtio_rng,
    virtio_scsi,
    virtio_serial
);

#[test]
fn every_target_is_replayed_and_is_a_program() {
    let names: Vec<&str> = TARGETS.iter().map(|t| t.0).collect();
    assert_eq!(names, REPLAYED);
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut files: Vec<String> = std::fs::read_dir(programs)
        .expect("a folder")
        .filter_map(|e| e.ok()?.file_name().into_string().ok()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    files.sort();
    assert_eq!(names, files);
    let mut folders: Vec<String> =
        std::fs::read_dir(seeds()).expect("a folder").filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    folders.sort();
    assert_eq!(names, folders);
}

/// (Run alone as well: with others at work it sees their memory, too.)
#[test]
fn memory_stays_within_bounds() {
    TARGETS.iter().for_each(|t| inputs(t.0).iter().for_each(|(_, data)| (t.1)(data)));
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.expect("a peak") < MOST_KIB, "{peak:?} KiB");
}
