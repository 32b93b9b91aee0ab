//! Many small files over few connections of version 2, for `bench/run`: counts what arrives and throws it
//! away.
//!
//! ```text
//! many ADDRESS CONNECTIONS DEPTH COUNT PATTERN
//! many ADDRESS CONNECTIONS DEPTH - FILE
//! ```
//! Asks for `COUNT` names, made of `PATTERN` by putting numbers from 0 on for `{}`, or for the names in
//! `FILE`, one in each line. Each connection takes its share of them, and keeps `DEPTH` requests in
//! flight. Nothing is proven: only that each answer is FILE, DATA and END, in this order, is looked at.
//! The result is one JSON object: `seconds` for all of it, `files`, `bytes`, and `failed`, the requests
//! that ended in an error.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use oneport::codec::v1::RequestCodec;
use oneport::codec::v2::{ClientFrame, Get, Hello, RequestId, ServerFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::codec::Encoder;

/// Longest time for everything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Room that is made for what comes in, in bytes.
const PIECE: usize = 256 << 10;

/// What has come.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    failed: u64,
}

/// What has come of one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Described { missing: u64 },
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, depth, count, pattern] = args.as_slice() else {
        bail!("usage: many ADDRESS CONNECTIONS DEPTH COUNT|- PATTERN|FILE");
    };
    let address: SocketAddr = address.parse().context("ADDRESS")?;
    let connections: usize = connections.parse().context("CONNECTIONS")?;
    let depth: usize = depth.parse().context("DEPTH")?;
    ensure!(connections > 0 && depth > 0, "nothing would be asked for");
    let names: Vec<String> = match count.as_str() {
        "-" => std::fs::read_to_string(pattern)?.lines().map(str::to_owned).collect(),
        count => (0..count.parse::<u64>().context("COUNT")?)
            .map(|at| pattern.replace("{}", &at.to_string()))
            .collect(),
    };
    let names = Rc::new(names);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    let all = LocalSet::new();
    let fetching = all.run_until(async {
        let mut running = JoinSet::new();
        for first in 0..connections {
            let names = Rc::clone(&names);
            running.spawn_local(async move { fetch(address, &names, first, connections, depth).await });
        }
        let mut all = Tally::default();
        while let Some(one) = running.join_next().await {
            let one = one??;
            all.files += one.files;
            all.bytes += one.bytes;
            all.failed += one.failed;
        }
        anyhow::Ok(all)
    });
    let told = runtime.block_on(async { tokio::time::timeout(PATIENCE, fetching).await });
    let Tally { files, bytes, failed } = told.context("it takes too long")??;
    let seconds = began.elapsed().as_secs_f64();
    let told = serde_json::json!({ "seconds": seconds, "files": files, "bytes": bytes, "failed": failed });
    writeln!(io::stdout(), "{told}")?;
    Ok(())
}

/// One connection: every `step`th name from `first` on.
async fn fetch(
    address: SocketAddr,
    names: &[String],
    first: usize,
    step: usize,
    depth: usize,
) -> anyhow::Result<Tally> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut output = BytesMut::new();
    let (hello, _) = Hello::default().to_name();
    RequestCodec::default().encode(&hello, &mut output)?;
    stream.write_all(&output).await?;
    output.clear();
    let mut wanted = names.iter().skip(first).step_by(step);
    let (mut number, mut in_flight, mut tally) = (0, HashMap::new(), Tally::default());
    let mut input = BytesMut::new();
    // What is still to be passed over of the DATA frame that has begun.
    let mut passing = 0;
    loop {
        while in_flight.len() < depth {
            let Some(name) = wanted.next() else { break };
            number += 1;
            let get = Get { name: name.clone().into(), ..Get::default() };
            ClientFrame::Get(number, get).encode(&mut output)?;
            in_flight.insert(number, Stage::Asked);
        }
        if in_flight.is_empty() {
            return Ok(tally);
        }
        // The server reads on while it is read from, so both have to go on at once.
        input.reserve(PIECE);
        let (mut reading, mut writing) = stream.split();
        tokio::select! {
            count = reading.read_buf(&mut input) => ensure!(count? > 0, "the connection ended too early"),
            count = writing.write(&output), if !output.is_empty() => output.advance(count?),
        }
        loop {
            let passed = passing.min(input.len());
            input.advance(passed);
            passing -= passed;
            if passing > 0 {
                break;
            }
            let Some(frame) = ServerFrame::decode(&mut input)? else { break };
            if let ServerFrame::Data { len, .. } = frame {
                passing = usize::try_from(len)?;
            }
            take(&frame, &mut in_flight, &mut tally)?;
        }
    }
}

/// Looks at one frame, of DATA at its head.
fn take(
    frame: &ServerFrame,
    in_flight: &mut HashMap<RequestId, Stage>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    match frame {
        ServerFrame::File(request, file) => {
            let before = in_flight.insert(*request, Stage::Described { missing: file.size });
            ensure!(before == Some(Stage::Asked), "request {request} is described out of order");
        }
        ServerFrame::Data { request, len, .. } => {
            let Some(Stage::Described { missing }) = in_flight.get_mut(request) else {
                bail!("data of request {request} comes out of order");
            };
            *missing = missing.checked_sub(*len).context("more data than the file has")?;
            tally.bytes += len;
        }
        ServerFrame::End(request, _) => {
            let before = in_flight.remove(request);
            ensure!(before == Some(Stage::Described { missing: 0 }), "request {request} ends too early");
            tally.files += 1;
        }
        ServerFrame::Error(request, _, text) => {
            let text = String::from_utf8_lossy(text);
            ensure!(in_flight.remove(request).is_some(), "the connection failed: {text}");
            tally.failed += 1;
        }
        _ => {}
    }
    Ok(())
}
