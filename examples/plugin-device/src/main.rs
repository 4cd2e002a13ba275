//! Qomet with one more device: naming the crate is all it takes.

use plugin_device as _;

fn main() -> std::process::ExitCode {
    vl::main()
}
