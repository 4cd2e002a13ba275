//! The `qomet` binary.

fn main() -> std::process::ExitCode {
    vl::main()
}
