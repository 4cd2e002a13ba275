//! Plan B of tier 0: the same tests on looped vCPUs. (The oracle's single steps and sequences run on such as well.)

mod engine;
mod modes;
mod smp;
