//! Writes numbered blocks to an image until it is killed: `tests::images::kill`, and below `job`: `tests::images::kill_job`.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((first, rest)) if first == "job" => tests::images::kill_job::writer(rest),
        _ => tests::images::kill::writer(&args),
    }
}
