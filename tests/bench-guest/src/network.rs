//! Workloads on the network: `BENCH_SERVER` in the environment (a guest's kernel puts it there from its command line) says where the
//! host's server is, `BENCH_FORWARD` which port of the host's leads to [`PORT`] here. Its protocol: `tests::peer_bench::server`.

use crate::digest::{Digest, of_words};
use std::{
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
};

/// Where a guest waits for connections.
const PORT: u16 = 7000;
/// Bytes sent or received at a time.
const PIECE: usize = 64 << 10;

/// What a workload does `n` times; the digest of what came.
pub type Run = fn(n: u64) -> io::Result<u64>;

/// Workloads of `cargo xtask soak network`, which nothing measures.
const SOAK: [(&str, Run); 2] = [("net-accept", accept), ("net-many", many)];
/// All others, by name.
pub const ALL: [(&str, Run); 5] =
    [("net-up", up), ("net-down", down), ("net-forward", forward), ("net-request", request), ("net-connect", connect)];

/// The workload of this name.
pub fn find(name: &str) -> Option<Run> {
    ALL.iter().chain(&SOAK).find(|(n, _)| *n == name).map(|(_, f)| *f)
}

fn setting(name: &str) -> io::Result<String> {
    env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")))
}

/// A connection on which the server was asked for something.
fn ask(what: u8, n: u64, more: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(setting("BENCH_SERVER")?)?;
    stream.set_nodelay(true)?;
    let words = [u64::from(what), n, more].map(u64::to_le_bytes);
    stream.write_all(words.as_flattened())?;
    Ok(stream)
}

fn word(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Receives `n` MiB; the digest of a word in every 512 bytes.
fn receive(stream: &mut TcpStream, n: u64) -> io::Result<u64> {
    let mut buf = vec![0; PIECE];
    let mut digest = Digest::new();
    for _ in 0..n << 20 >> PIECE.ilog2() {
        stream.read_exact(&mut buf)?;
        let words = buf.chunks(512).map(|c| u64::from_le_bytes(c[..8].try_into().expect("eight bytes")));
        digest.word(words.fold(0, |sum, w| sum.wrapping_mul(31).wrapping_add(w)));
    }
    Ok(digest.end())
}

/// `n` MiB to the server, which says what it got.
fn up(n: u64) -> io::Result<u64> {
    let mut stream = ask(b'u', n, 0)?;
    let mut buf: Vec<u8> = (0..PIECE).map(|i| (i * 7 / 5) as u8).collect();
    for i in 0..n << 20 >> PIECE.ilog2() {
        buf[..8].copy_from_slice(&i.to_le_bytes());
        stream.write_all(&buf)?;
    }
    word(&mut stream)
}

/// `n` MiB from the server.
fn down(n: u64) -> io::Result<u64> {
    receive(&mut ask(b'd', n, 0)?, n)
}

/// Where the server's connections come, and the host's port that leads there.
fn listen() -> io::Result<(TcpListener, u64)> {
    match env::var("BENCH_FORWARD") {
        Ok(port) => Ok((TcpListener::bind(("0.0.0.0", PORT))?, port.parse().map_err(io::Error::other)?)),
        Err(_) => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            let port = listener.local_addr()?.port();
            Ok((listener, u64::from(port)))
        }
    }
}

/// `n` MiB from the server, which makes the connection.
fn forward(n: u64) -> io::Result<u64> {
    let (listener, port) = listen()?;
    let _asked = ask(b'f', n, port)?;
    receive(&mut listener.accept()?.0, n)
}

/// 10 times `n` requests of 64 bytes with answers of 256, one after the other on one connection.
fn request(n: u64) -> io::Result<u64> {
    let mut stream = ask(b'r', n * 10, 0)?;
    let (mut request, mut answer) = ([0; 64], [0; 256]);
    let mut digest = Digest::new();
    for i in 0..n * 10 {
        request[..8].copy_from_slice(&i.to_le_bytes());
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        digest.bytes(&answer[..8]).bytes(&answer[248..]);
    }
    Ok(digest.end())
}

/// `n` connections, with one such request each.
fn connect(n: u64) -> io::Result<u64> {
    let mut answers = vec![];
    for i in 0..n {
        let mut stream = ask(b'r', 1, 0)?;
        let mut request = [0; 64];
        request[..8].copy_from_slice(&i.to_le_bytes());
        stream.write_all(&request)?;
        let mut answer = [0; 256];
        stream.read_exact(&mut answer)?;
        answers.push(u64::from_le_bytes(answer[..8].try_into().expect("eight bytes")));
    }
    Ok(of_words(answers))
}

/// `n` connections that the server makes one after the other, each with a request that is answered here; the server's digest of the answers.
fn accept(n: u64) -> io::Result<u64> {
    let (listener, port) = listen()?;
    let mut asked = ask(b'c', n, port)?;
    for _ in 0..n {
        let mut stream = listener.accept()?.0;
        let mut request = [0; 64];
        stream.read_exact(&mut request)?;
        let mut answer = [request[0] ^ 0x5a; 256];
        for (to, from) in answer.iter_mut().zip(request) {
            *to = from.wrapping_mul(3);
        }
        stream.write_all(&answer)?;
    }
    word(&mut asked)
}

/// `n` connections that are all there before the first has its request.
fn many(n: u64) -> io::Result<u64> {
    crate::sys::allow_files(n + 100)?;
    let mut all = (0..n).map(|_| ask(b'r', 1, 0)).collect::<io::Result<Vec<_>>>()?;
    let mut digest = Digest::new();
    for (i, stream) in all.iter_mut().enumerate() {
        let (mut request, mut answer) = ([0; 64], [0; 256]);
        request[..8].copy_from_slice(&i.to_le_bytes());
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        digest.bytes(&answer);
    }
    Ok(digest.end())
}
