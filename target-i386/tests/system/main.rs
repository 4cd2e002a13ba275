//! System instructions, run as guest programs on the engine with flat RAM.
mod debug;
mod events;
mod exceptions;
mod io_msr;
mod loads;
mod machine;
mod modes;
mod paging;
mod segments;
mod smm;
mod syscalls;
mod tasks;
mod transfers;
mod vm86;
