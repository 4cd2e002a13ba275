//! Writes numbered blocks to an image until it is killed: `tests::images::kill`.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    tests::images::kill::writer(&args)
}
