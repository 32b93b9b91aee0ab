//! How fast a server sends, with TLS and without: takes a file over version 2 and throws it away.
//!
//! ```text
//! pull ADDRESS NAME [tls]
//! ```
//! Prints seconds and bytes per second. Nothing is verified: this is the server's speed, not the client's.

#[path = "../tests/suite/tls_raw.rs"]
#[allow(clippy::unwrap_used, dead_code, reason = "the rest is for the tests")]
mod tls_raw;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use oneport::codec::v2::{ClientFrame, Get, Hello, ServerFrame};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// A window that one file does not use up.
const WIDE: u64 = 1 << 40;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (address, name, tls) = match args.as_slice() {
        [address, name] => (address, name, false),
        [address, name, word] if word == "tls" => (address, name, true),
        _ => bail!("usage: pull ADDRESS NAME [tls]"),
    };
    let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    let get = Get { name: Bytes::copy_from_slice(name.as_bytes()), ..Get::default() };
    let hello = Hello { window: WIDE, first: Some(ClientFrame::Get(1, get)), ..Hello::default() };
    let (hello, is_in) = hello.to_name();
    ensure!(is_in, "the name is too long");
    let hello = [&u32::try_from(hello.len())?.to_be_bytes()[..], &hello].concat();
    let began = Instant::now();
    let count = if tls { take(tls_raw::over(stream), &hello)? } else { take(stream, &hello)? };
    let seconds = began.elapsed().as_secs_f64();
    writeln!(io::stdout(), "{seconds:.4} s, {count} bytes, {:.0} MB/s", count as f64 / seconds / 1e6)?;
    Ok(())
}

/// The bytes of the file that came.
fn take(mut stream: impl Read + Write, hello: &[u8]) -> anyhow::Result<u64> {
    stream.write_all(hello)?;
    let (mut chunk, mut input, mut count) = (vec![0; CHUNK], BytesMut::new(), 0);
    loop {
        while let Some(frame) = ServerFrame::decode(&mut input)? {
            match frame {
                ServerFrame::Data { len, .. } => {
                    let mut left = usize::try_from(len)?;
                    count += len;
                    let here = left.min(input.len());
                    input.advance(here);
                    left -= here;
                    while left > 0 {
                        let room = left.min(CHUNK);
                        match stream.read(&mut chunk[..room])? {
                            0 => bail!("the connection ended"),
                            read => left -= read,
                        }
                    }
                }
                ServerFrame::End(..) => return Ok(count),
                ServerFrame::Error(_, code, text) => {
                    bail!("error {}: {}", code.0, String::from_utf8_lossy(&text));
                }
                _ => {}
            }
        }
        match stream.read(&mut chunk)? {
            0 => bail!("the connection ended"),
            read => input.extend_from_slice(&chunk[..read]),
        }
    }
}
