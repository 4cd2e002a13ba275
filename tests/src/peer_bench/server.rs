//! The host's end of the network workloads. A connection begins with three words of eight bytes, little-endian: what is asked for, how
//! much, and one more.
//!
//! `u`: so many MiB come, a word that sums them goes. `d`: so many MiB go. `f`: they go over a new connection to the port that is the third
//! word. `r`: so many requests of 64 bytes come, each is answered by 256 before the next. `c`: so many connections are made to that port,
//! one after the other, each with such a request, and a word that sums the answers goes.

use anyhow::{Context, Result};
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

/// Bytes sent or received at a time.
const PIECE: usize = 64 << 10;

/// Starts the server, which runs as long as this process; its port on 127.0.0.1.
///
/// # Errors
/// The host gives no port.
pub fn start() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port for the network workloads")?;
    // (The standard library's queue has room for 128: of thousands at once most would try again a second later.)
    rustix::net::listen(&listener, 4096)?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            // A client that goes away is its own affair: the workload fails.
            // (The stack is small, since there may be thousands.)
            let builder = thread::Builder::new().stack_size(256 << 10);
            _ = builder.spawn(move || _ = serve(stream));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut words = [0; 24];
    stream.read_exact(&mut words)?;
    let word = |i: usize| words[i * 8..][..8].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let pieces = word(1) << 20 >> PIECE.ilog2();
    match u8::try_from(word(0)) {
        Ok(b'u') => sum(&mut stream, pieces),
        Ok(b'd') => send(&mut stream, pieces),
        Ok(b'f') => {
            let port = u16::try_from(word(2)).map_err(io::Error::other)?;
            send(&mut TcpStream::connect(("127.0.0.1", port))?, pieces)
        }
        Ok(b'r') => answer(&mut stream, word(1)),
        Ok(b'c') => {
            let port = u16::try_from(word(2)).map_err(io::Error::other)?;
            stream.write_all(&ask(port, word(1))?.to_le_bytes())
        }
        _ => Err(io::Error::other("not a request")),
    }
}

fn sum(stream: &mut TcpStream, pieces: u64) -> io::Result<()> {
    let mut buf = vec![0; PIECE];
    let mut sum = 0u64;
    for _ in 0..pieces {
        stream.read_exact(&mut buf)?;
        // (A word of each 512 bytes: this must not be what is measured.)
        for words in buf.chunks(512) {
            let word = words.iter().take(8).rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
            sum = sum.rotate_left(1) ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    stream.write_all(&sum.to_le_bytes())
}

fn send(stream: &mut TcpStream, pieces: u64) -> io::Result<()> {
    let mut buf: Vec<u8> = (0..PIECE).map(|i| (i * 5 / 3) as u8).collect();
    for i in 0..pieces {
        for (at, byte) in (i * 0x0101_0101).to_le_bytes().iter().enumerate() {
            buf[at] = *byte;
        }
        stream.write_all(&buf)?;
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, requests: u64) -> io::Result<()> {
    let mut request = [0; 64];
    for _ in 0..requests {
        stream.read_exact(&mut request)?;
        let mut answer = [request[0] ^ 0x5a; 256];
        for (to, from) in answer.iter_mut().zip(request) {
            *to = from.wrapping_mul(3);
        }
        stream.write_all(&answer)?;
    }
    Ok(())
}

/// Connections one after the other, each with one request; the sum of the answers. A wrong one is an error.
fn ask(port: u16, connections: u64) -> io::Result<u64> {
    let mut sum = 0u64;
    for n in 0..connections {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let (mut request, mut answer) = ([0; 64], [0; 256]);
        request[..8].copy_from_slice(&n.to_le_bytes());
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        if answer.iter().zip(request).any(|(a, r)| *a != r.wrapping_mul(3)) {
            return Err(io::Error::other(format!("connection {n}: a wrong answer")));
        }
        sum = answer.iter().fold(sum, |sum, b| sum.rotate_left(1) ^ u64::from(*b).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    Ok(sum)
}
