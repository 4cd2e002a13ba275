//! The guest program of the peer bench (`cargo bench-peer`): as process 1 of a guest it takes commands from the serial console, on the
//! host it runs the same workloads natively. Built static for the x86-64 baseline by `tests::peer_bench`; the digest of a workload
//! depends on nothing but its name and count.
#![deny(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod digest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod disk;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod network;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod own;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod programs;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod session;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    session::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("bench-guest is a Linux program for x86-64");
    std::process::exit(1);
}
