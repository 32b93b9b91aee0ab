//! Many clients of one file at once, for `bench/run`: counts what arrives and throws it away.
//!
//! ```text
//! crowd v1|v2|http ADDRESS NAME SIZE CLIENTS TURNS [first-byte]
//! ```
//! `CLIENTS` clients start together, and each fetches the file `TURNS` times, one after the other. With
//! `first-byte` a client hangs up at the first byte of the file. All dialects take the same way
//! through this program, on one thread; of version 2 only the heads of frames are looked at besides, and
//! nothing is proven. The result is one JSON object: `seconds` for all of it, and
//! `first_bytes`, the seconds from the beginning of each connection to the first byte of the file.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use oneport::codec::v1::{RequestCodec, Response, ResponseCodec};
use oneport::codec::v2::{ClientFrame, Get, Hello, ServerFrame, WINDOW_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::codec::{Decoder, Encoder};

/// Longest time for everything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most bytes taken from a socket at a time.
const PIECE: usize = 256 << 10;
/// Longest header of an answer, in bytes.
const HEADER_MAX: usize = 8 << 10;

#[derive(Clone, Copy)]
enum Dialect {
    V1,
    V2,
    Http,
}

struct Job {
    dialect: Dialect,
    address: SocketAddr,
    name: String,
    size: u64,
    turns: usize,
    only_first_byte: bool,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dialect, address, name, size, clients, turns, rest @ ..] = args.as_slice() else {
        bail!("usage: crowd v1|v2|http ADDRESS NAME SIZE CLIENTS TURNS [first-byte]");
    };
    let job = Job {
        dialect: match dialect.as_str() {
            "v1" => Dialect::V1,
            "v2" => Dialect::V2,
            "http" => Dialect::Http,
            other => bail!("unknown dialect {other}"),
        },
        address: address.parse()?,
        name: name.clone(),
        size: size.parse()?,
        turns: turns.parse()?,
        only_first_byte: rest.iter().any(|word| word == "first-byte"),
    };
    let clients = clients.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    let all = LocalSet::new();
    let fetching = all.run_until(async { tokio::time::timeout(PATIENCE, fetch_all(job, clients)).await });
    let first_bytes = runtime.block_on(fetching).context("it takes too long")??;
    let seconds = began.elapsed().as_secs_f64();
    let first_bytes: Vec<f64> = first_bytes.iter().map(Duration::as_secs_f64).collect();
    writeln!(io::stdout(), "{}", serde_json::json!({ "seconds": seconds, "first_bytes": first_bytes }))?;
    Ok(())
}

async fn fetch_all(job: Job, clients: usize) -> anyhow::Result<Vec<Duration>> {
    let (job, bin) = (Rc::new(job), Rc::new(RefCell::new(vec![0; PIECE])));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (job, bin) = (Rc::clone(&job), Rc::clone(&bin));
        running.spawn_local(async move {
            let mut first_bytes = Vec::with_capacity(job.turns);
            for _ in 0..job.turns {
                first_bytes.push(job.fetch(&bin).await?);
            }
            anyhow::Ok(first_bytes)
        });
    }
    let mut first_bytes = Vec::new();
    while let Some(client) = running.join_next().await {
        first_bytes.extend(client??);
    }
    Ok(first_bytes)
}

impl Job {
    /// One connection, to its end; the time to the first byte of the file.
    async fn fetch(&self, bin: &RefCell<Vec<u8>>) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.request()?).await?;
        let mut answer = Answer::new(self.dialect);
        let mut head = BytesMut::with_capacity(HEADER_MAX);
        let size = loop {
            ensure!(head.len() < HEADER_MAX, "the header is too long");
            ensure!(stream.read_buf(&mut head).await? > 0, "the connection ended before the file");
            if let Some(size) = answer.size(&mut head)? {
                break size;
            }
        };
        ensure!(size == self.size, "{size} bytes were announced instead of {}", self.size);
        if let Dialect::V2 = self.dialect {
            return self.take_frames(&mut stream, head, bin, began).await;
        }
        // What is left of the head is the file's.
        let mut arrived = head.len() as u64;
        let mut first_byte = (arrived > 0).then(|| began.elapsed());
        while !(self.only_first_byte && first_byte.is_some()) {
            stream.readable().await?;
            match stream.try_read(&mut bin.borrow_mut()) {
                Ok(0) => break,
                Ok(count) => {
                    first_byte.get_or_insert_with(|| began.elapsed());
                    arrived += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(self.only_first_byte || arrived == size, "{arrived} bytes came instead of {size}");
        first_byte.context("no byte came")
    }

    /// Takes what follows the description of the file in version 2, until its END.
    async fn take_frames(
        &self,
        stream: &mut TcpStream,
        mut heads: BytesMut,
        bin: &RefCell<Vec<u8>>,
        began: Instant,
    ) -> anyhow::Result<Duration> {
        let (mut arrived, mut first_byte) = (0, None);
        loop {
            let mut missing = match ServerFrame::decode(&mut heads)? {
                Some(ServerFrame::Data { len, .. }) => len,
                Some(ServerFrame::End(..)) => break,
                Some(ServerFrame::Error(_, _, text)) => bail!("cut off: {}", String::from_utf8_lossy(&text)),
                Some(_) => continue,
                None => {
                    ensure!(stream.read_buf(&mut heads).await? > 0, "the connection ended before the file");
                    continue;
                }
            };
            arrived += missing;
            let early = heads.len().min(usize::try_from(missing)?);
            missing -= heads.split_to(early).len() as u64;
            if early > 0 {
                first_byte.get_or_insert_with(|| began.elapsed());
            }
            while missing > 0 && !(self.only_first_byte && first_byte.is_some()) {
                stream.readable().await?;
                let (mut bin, mut behind) = (bin.borrow_mut(), [0; HEADER_MAX]);
                let room = bin.len().min(usize::try_from(missing)?);
                // The next head comes in the same read, as far as it is there.
                let behind = if room as u64 == missing { &mut behind[..] } else { &mut [] };
                let mut parts = [io::IoSliceMut::new(&mut bin[..room]), io::IoSliceMut::new(behind)];
                match stream.try_read_vectored(&mut parts) {
                    Ok(0) => bail!("the connection ended within the file"),
                    Ok(count) => {
                        first_byte.get_or_insert_with(|| began.elapsed());
                        let wanted = count.min(room);
                        missing -= wanted as u64;
                        heads.extend_from_slice(&behind[..count - wanted]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if let Some(first_byte) = first_byte.filter(|_| self.only_first_byte) {
                return Ok(first_byte);
            }
        }
        ensure!(arrived == self.size, "{arrived} bytes came instead of {}", self.size);
        first_byte.context("no byte came")
    }

    fn request(&self) -> anyhow::Result<BytesMut> {
        let mut request = BytesMut::new();
        match self.dialect {
            Dialect::V2 => {
                let get = Get { name: self.name.clone().into(), ..Get::default() };
                let first = Some(ClientFrame::Get(1, get));
                let (name, _) = Hello { window: WINDOW_MAX, first, ..Hello::default() }.to_name();
                RequestCodec::default().encode(&name, &mut request)?;
            }
            Dialect::V1 => RequestCodec::default().encode(self.name.as_bytes(), &mut request)?,
            Dialect::Http => {
                request.extend_from_slice(format!("GET /{} HTTP/1.0\r\n\r\n", self.name).as_bytes());
            }
        }
        Ok(request)
    }
}

/// Reads the header of an answer.
enum Answer {
    V1(ResponseCodec),
    V2,
    Http,
}

impl Answer {
    fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::V1 => Self::V1(ResponseCodec::default()),
            Dialect::V2 => Self::V2,
            Dialect::Http => Self::Http,
        }
    }

    /// The size of the file once the whole header is there, which is then taken out of `head`.
    fn size(&mut self, head: &mut BytesMut) -> anyhow::Result<Option<u64>> {
        match self {
            Self::V1(codec) => loop {
                match codec.decode(head)? {
                    Some(Response::Header(header)) => return Ok(Some(header.size)),
                    Some(Response::Ok) => {}
                    Some(Response::Refused(_)) => bail!("the file was refused"),
                    None => return Ok(None),
                }
            },
            Self::V2 => loop {
                match ServerFrame::decode(head)? {
                    Some(ServerFrame::File(_, file)) => return Ok(Some(file.size)),
                    Some(ServerFrame::Welcome(_)) => {}
                    Some(frame) => bail!("{frame:?} came instead of the file"),
                    None => return Ok(None),
                }
            },
            Self::Http => {
                let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
                let lines = head.split_to(end + 4);
                let lines = std::str::from_utf8(&lines)?;
                ensure!(lines.split(' ').nth(1) == Some("200"), "the file was refused: {lines}");
                let size =
                    lines.lines().filter_map(|line| line.split_once(": ")).find_map(|(name, value)| {
                        name.eq_ignore_ascii_case("content-length").then(|| value.parse())
                    });
                Ok(Some(size.context("the answer has no length")??))
            }
        }
    }
}
