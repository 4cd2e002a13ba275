//! Several threads: the same work on one, two and four, and words that two fight for.

use super::integer::primes;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Sieves of 100,000, `n` on each of four workers, which take turns on `threads` threads.
fn sieves(n: u64, threads: u64) -> u64 {
    let work = |from: u64| {
        let mut flags = vec![0; 100_000];
        (from..4 * n).step_by(threads as usize).map(|i| primes(&mut flags) + i).sum::<u64>()
    };
    let work = &work;
    thread::scope(|s| {
        let all: Vec<_> = (0..threads).map(|t| s.spawn(move || work(t))).collect();
        all.into_iter().map(|t| t.join().expect("a worker")).sum()
    })
}

/// On one thread: what the others are compared with.
pub fn sieve_1(n: u64) -> u64 {
    sieves(n, 1)
}

/// On two threads.
pub fn sieve_2(n: u64) -> u64 {
    sieves(n, 2)
}

/// On four threads.
pub fn sieve_4(n: u64) -> u64 {
    sieves(n, 4)
}

/// Two threads add to one word and exchange another.
pub fn atomics(n: u64) -> u64 {
    let (sum, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = |t: u64| {
        for i in 0..n * 1000 {
            sum.fetch_add(i ^ t, Ordering::SeqCst);
            let new = i * 2 + t;
            let mut old = most.load(Ordering::Relaxed);
            while old < new {
                match most.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => old = now,
                }
            }
        }
    };
    let work = &work;
    thread::scope(|s| {
        s.spawn(move || work(0));
        s.spawn(move || work(1));
    });
    sum.into_inner().wrapping_mul(31).wrapping_add(most.into_inner())
}
