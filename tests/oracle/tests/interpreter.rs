//! The interpreter and tier 1 against the host CPU: every form that user code may run, on random and edge states.
//!
//! `ORACLE_SEED` repeats a run, `ORACLE_TIMES` multiplies the states, `ORACLE_ONLY` keeps the forms whose name contains it, `ORACLE_REPORT` names a file
//! that gets every failure (the message shows the first few), `ORACLE_VERBOSE` names the forms as they
//! run.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use oracle::{
    Executor, Mode, forms,
    guest::{Drive, Guest},
    host::Host,
    run::{self, Plan, Report},
};
use std::{
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |s| s.parse().unwrap_or_else(|_| panic!("{name}={s}: a number was expected")))
}

/// One seed for the runs of every day, so that they do not fail by chance; soak runs choose others.
fn seed() -> u64 {
    number("ORACLE_SEED", 7)
}

/// The compiler failed at nothing. (What cannot be part of a region is refused before it.)
fn nothing_failed(guest: &Guest) {
    if let Some(c) = guest.jit_counters() {
        assert_eq!(c.failed, 0, "{c:?}");
    }
}

/// Runs all forms of all modes, half of them on each of two threads.
fn all_forms(drive: Drive, encodings: u32, states: u32) {
    let (seed, times) = (seed(), number("ORACLE_TIMES", 1) as u32);
    let only = std::env::var("ORACLE_ONLY").unwrap_or_default();
    let verbose = std::env::var_os("ORACLE_VERBOSE").is_some();
    // (Under torture a run takes long: a part of the forms, all of them in soak runs.)
    let share = if matches!(drive, Drive::Torture(_)) && times == 1 { 16 } else { 1 };
    let first = seed as usize % share;
    println!("ORACLE_SEED={seed}");
    let started = Instant::now();
    let reports: Mutex<Vec<(Mode, Report)>> = Mutex::default();
    let (entered, pieces) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|s| {
        for half in 0..2 {
            let (reports, only, entered, pieces) = (&reports, &only, &entered, &pieces);
            s.spawn(move || {
                let mut host = Host::new().expect("the host executor");
                let mut guest = Guest::new(host.layout(), drive);
                for mode in host.modes() {
                    let forms = forms::host_forms(mode).into_iter().filter(|f| f.text().contains(only.as_str()));
                    for (_, form) in forms.enumerate().filter(|(n, _)| n % 2 == half && n / 2 % share == first) {
                        if verbose {
                            println!("{mode:?} {}", form.text());
                        }
                        let plan = Plan { encodings: encodings * times, states, seed };
                        let report = run::form(&mut host, &mut guest, mode, form, plan);
                        reports.lock().expect("no panic").push((mode, report));
                    }
                }
                entered.fetch_add(guest.counters().entered, Relaxed);
                pieces.fetch_add(guest.pieces(), Relaxed);
                nothing_failed(&guest);
            });
        }
    });
    let mut reports = reports.into_inner().expect("no panic");
    reports.sort_by_key(|(mode, r)| (*mode, r.form));
    let runs: u64 = reports.iter().map(|(_, r)| u64::from(r.runs)).sum();
    let faults: u64 = reports.iter().map(|(_, r)| u64::from(r.faults)).sum();
    println!("{} forms, {runs} runs, {faults} faults, {:.1} s", reports.len(), started.elapsed().as_secs_f64());
    let entered = entered.into_inner();
    assert!(drive != Drive::Regions || entered > runs / 2, "regions were entered {entered} times in {runs} runs");
    // (Vectors, x87 and what may leave are not for it, and each encoding is run in many states.)
    let pieces = pieces.into_inner();
    assert!(drive != Drive::Quick || pieces > 2000, "{pieces} pieces of quick code in {runs} runs");
    let thin: Vec<_> = reports.iter().filter(|(_, r)| r.runs < 200).map(|(m, r)| (m, r.form.text(), r.runs)).collect();
    assert!(thin.is_empty(), "fewer than 200 states: {thin:?}");
    let wrong: Vec<_> = reports.iter().filter(|(_, r)| r.failures > 0).collect();
    let mut text = String::new();
    for (mode, r) in &wrong {
        let _ = writeln!(text, "== {mode:?} {} {:?}: {} of {}", r.form.text(), r.form.code, r.failures, r.runs);
        let _ = writeln!(text, "{}", r.first.as_deref().unwrap_or_default());
    }
    if let Ok(file) = std::env::var("ORACLE_REPORT") {
        std::fs::write(file, &text).expect("the report file");
    }
    let head: String = text.lines().take(120).fold(String::new(), |t, l| t + l + "\n");
    assert!(wrong.is_empty(), "ORACLE_SEED={seed}: {} of {} forms are wrong\n{head}", wrong.len(), reports.len());
}

#[test]
fn every_form_agrees_with_the_host() {
    all_forms(Drive::Run, 25, 8);
}

#[test]
fn every_form_agrees_when_stepped() {
    all_forms(Drive::Step, 25, 8);
}

#[test]
fn every_form_agrees_in_regions() {
    all_forms(Drive::Regions, 5, 40);
}

#[test]
fn every_form_agrees_in_quick_code() {
    all_forms(Drive::Quick, 5, 40);
}

#[test]
fn every_form_agrees_under_torture() {
    all_forms(Drive::Torture(seed() + 1), 3, 70);
}

#[test]
fn privileged_forms_raise_what_they_raise_on_the_host() {
    let mut host = Host::new().expect("the host executor");
    let mut guest = Guest::new(host.layout(), Drive::Run);
    for mode in host.modes() {
        for form in forms::forbidden_forms(mode) {
            let report = run::form(&mut host, &mut guest, mode, form, Plan { encodings: 10, states: 3, seed: 1 });
            assert_eq!(report.runs, report.faults, "{} runs in user mode", form.text());
            assert!(report.failures == 0, "{}", report.first.unwrap_or_default());
        }
    }
}

#[test]
fn sequences_agree_with_the_host() {
    sequences(Drive::Run);
}

#[test]
fn sequences_agree_when_looped() {
    sequences(Drive::Loop);
}

#[test]
fn sequences_agree_in_regions() {
    sequences(Drive::Regions);
}

#[test]
fn sequences_agree_under_torture() {
    sequences(Drive::Torture(seed() + 1));
}

fn sequences(drive: Drive) {
    let (seed, times) = (seed(), number("ORACLE_TIMES", 1));
    println!("ORACLE_SEED={seed}");
    let mut host = Host::new().expect("the host executor");
    let mut guest = Guest::new(host.layout(), drive);
    for mode in host.modes() {
        // (Each is compiled.)
        let count = if matches!(drive, Drive::Regions | Drive::Torture(_)) { 1_000 } else { 10_000 };
        let (runs, failure) = run::sequences(&mut host, &mut guest, mode, count * times, 6, seed);
        println!("{mode:?}: {runs} runs");
        assert!(failure.is_none(), "ORACLE_SEED={seed}\n{}", failure.unwrap_or_default());
    }
    nothing_failed(&guest);
}
