//! Text of `info jit` and `x-query-jit`: QEMU's lines where they mean something here, then what each vCPU and each compiler
//! counted.

use crate::vm::Vm;
use accel::TcgAccel;
use accel::tcg::{Counters, JitCounters, STOPS};
use qom::Ref;
use std::fmt::Write;

/// What the engine did so far.
///
/// # Errors
/// The accelerator is another one.
pub fn report(vm: &Vm) -> Result<String, String> {
    let tcg: Option<Ref<TcgAccel>> = vm.core().accel().and_then(Ref::new);
    let tcg = tcg.ok_or("JIT information is only available with accel=tcg")?;
    let all = vm.parked(|| tcg.counters());
    let jit = tcg.group().jit_counters();
    let mut out = String::new();
    let one = if tcg.is_one_insn_per_tb() { "on" } else { "off" };
    let _ = writeln!(out, "Accelerator settings:\none-insn-per-tb: {one}\n");
    let _ = writeln!(out, "Translation buffer state:");
    if let Some(j) = &jit {
        buffer(&mut out, j);
    }
    let total = |f: fn(&Counters) -> u64| all.iter().map(|(_, c)| f(c)).sum::<u64>();
    lines(
        &mut out,
        "\nStatistics:",
        &[
            ("TB flush count", jit.map_or(0, |j| j.evictions)),
            ("TB invalidate count", total(|c| c.dropped)),
            ("TLB full flushes", total(|c| c.flushes)),
            ("TLB partial flushes", total(|c| c.flushes_local + c.flushes_page)),
        ],
    );
    if let Some(clock) = tcg.icount() {
        let counts = [("instructions", clock.executed()), ("shift", clock.shift().into())];
        lines(&mut out, "\nInstruction counting:", &counts);
    }
    for (number, c) in &all {
        cpu(&mut out, *number, c);
    }
    if let Some(j) = &jit {
        compilers(&mut out, j);
    }
    Ok(out)
}

fn lines(out: &mut String, title: &str, counts: &[(&str, u64)]) {
    let _ = writeln!(out, "{title}");
    for (what, n) in counts {
        let _ = writeln!(out, "{what:<19} {n}");
    }
}

fn buffer(out: &mut String, j: &JitCounters) {
    let per = |n: u64| n.checked_div(j.live).unwrap_or(0);
    let ratio = if j.live_guest == 0 { 0.0 } else { j.live_host as f64 / j.live_guest as f64 };
    let _ = writeln!(out, "{:<19} {}/{}", "gen code size", j.used, j.size);
    let _ = writeln!(out, "{:<19} {}", "TB count", j.live);
    let _ = writeln!(out, "{:<19} {} bytes", "TB avg target size", per(j.live_guest));
    let _ = writeln!(out, "{:<19} {} bytes (expansion ratio: {ratio:.1})", "TB avg host size", per(j.live_host));
}

fn cpu(out: &mut String, number: u32, c: &Counters) {
    let counts = [
        ("instructions", c.instructions),
        ("decoded runs", c.decoded),
        ("dropped pages", c.dropped),
        ("evicted pages", c.evicted),
        ("decoded pages", c.decoded_pages),
        ("decoded bytes", c.decoded_bytes),
        ("dispatches", c.dispatches),
    ];
    lines(out, &format!("\nCPU #{number}"), &counts);
    lines(out, "  back to the dispatcher for", &STOPS.iter().copied().zip(c.stops).collect::<Vec<_>>());
    // (Hits of the first level are not counted: that would cost more than they do.)
    let counts = [
        ("misses", c.misses),
        ("page walks", c.walks),
        ("second-level hits", c.misses.saturating_sub(c.walks)),
        ("slow accesses", c.slow),
        ("full flushes", c.flushes),
        ("non-global flushes", c.flushes_local),
        ("page flushes", c.flushes_page),
    ];
    lines(out, "  TLB", &counts);
    let chained = c.entered.saturating_sub(c.side + c.kicked + c.out);
    let counts = [
        ("entries", c.entered),
        ("chain exits", chained),
        ("other exits", c.out),
        ("side exits", c.side),
        ("kicks", c.kicked),
    ];
    lines(out, "  regions", &counts);
}

fn compilers(out: &mut String, j: &JitCounters) {
    let counts = [
        ("pieces", j.pieces),
        ("instructions", j.quick_instructions),
        ("code bytes", j.quick_bytes),
        ("microseconds", j.quick_nanoseconds / 1000),
    ];
    lines(out, "\nquick code", &counts);
    let counts = [
        ("regions", j.regions),
        ("instructions", j.instructions),
        ("CLIF", j.clif),
        ("code bytes", j.bytes),
        ("microseconds", j.nanoseconds / 1000),
        ("cache hits", j.reused),
        ("refused", j.refused),
        ("failed", j.failed),
        ("evictions", j.evictions),
        ("evicted regions", j.evicted),
        ("metadata bytes", j.live_kept),
        ("cache used", j.used),
        ("cache size", j.size),
        ("waiting", j.waiting),
    ];
    lines(out, "\ntier 1", &counts);
}
