//! Our own workloads: each repeats a fixed piece of work `n` times and returns the digest of what it computed.

mod code;
mod float;
mod integer;
mod memory;
mod packed;
mod smp;
mod system;
mod x87;

pub use system::NOTHING;

/// A workload: its name, and what it does `n` times.
pub type Workload = (&'static str, fn(n: u64) -> u64);

/// All of them.
pub const ALL: &[Workload] = &[
    ("bytecode", integer::bytecode),
    ("sieve", integer::sieve),
    ("qsort", integer::qsort),
    ("fib", integer::fib),
    ("virtual", integer::virtual_calls),
    ("bignum", integer::bignum),
    ("crc32", integer::crc32),
    ("list", integer::list),
    ("nbody", float::nbody),
    ("lu", float::lu),
    ("matmul", float::matmul),
    ("spectral", float::spectral),
    ("mandelbrot", packed::mandelbrot),
    ("fir", float::fir),
    ("packed-sad", packed::sad),
    ("packed-saturate", packed::saturate),
    ("packed-shuffle", packed::shuffle),
    ("whetstone", x87::whetstone),
    ("x87-mandelbrot", x87::mandelbrot),
    ("x87-dot", x87::dot),
    ("x87-convert", x87::convert),
    ("chase-256k", memory::chase_256k),
    ("chase-64m", memory::chase_64m),
    ("memcpy", memory::copy),
    ("memset", memory::set),
    ("rep-movs", memory::rep_movs),
    ("rep-stos", memory::rep_stos),
    ("rep-scas", memory::rep_scas),
    ("rep-cmps", memory::rep_cmps),
    ("syscall", system::syscall),
    ("page-fault", system::page_fault),
    ("mprotect", system::mprotect),
    ("pipe", system::pipe),
    ("fork", system::fork),
    ("exec", system::exec),
    ("signal", system::signal),
    ("code-fresh", code::fresh),
    ("code-rewrite", code::rewrite),
    ("code-patch", code::patch),
    ("code-beside", code::beside),
    ("smp-sieve-1", smp::sieve_1),
    ("smp-sieve-2", smp::sieve_2),
    ("smp-sieve-4", smp::sieve_4),
    ("smp-atomics", smp::atomics),
];
