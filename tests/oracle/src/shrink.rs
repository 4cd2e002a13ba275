//! Makes a failing case small: tries plainer values one place at a time and keeps what still fails.

use crate::state::{Case, Fx};

/// The smallest case found for which `fails` still says true.
pub fn shrink(case: &Case, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut try_it = |best: &mut Case, change: &dyn Fn(&mut Case)| {
        let mut c = best.clone();
        change(&mut c);
        if fails(&c) {
            *best = c;
        }
    };
    for n in 0..16 {
        for v in [0, 1] {
            if best.state.gpr[n] > v {
                try_it(&mut best, &|c| c.state.gpr[n] = v);
            }
        }
    }
    for bit in [0, 2, 4, 6, 7, 10, 11] {
        if best.state.rflags >> bit & 1 != 0 {
            try_it(&mut best, &|c| c.state.rflags &= !(1 << bit));
        }
    }
    try_it(&mut best, &|c| c.state.fx = Fx::default());
    for n in 0..16 {
        if best.state.fx.xmm(n) != 0 {
            try_it(&mut best, &|c| c.state.fx.set_xmm(n, 0));
        }
    }
    for n in 0..8 {
        if best.state.fx.st(n) != 0 {
            try_it(&mut best, &|c| c.state.fx.set_st(n, 0));
        }
    }
    try_it(&mut best, &|c| c.state.fx.set_mxcsr(0x1f80));
    try_it(&mut best, &|c| c.state.fx.set_fcw(0x37f));
    try_it(&mut best, &|c| c.state.fx.set_fsw(0));
    for n in (0..best.memory.len()).rev() {
        try_it(&mut best, &|c| {
            c.memory.remove(n);
        });
    }
    best
}
