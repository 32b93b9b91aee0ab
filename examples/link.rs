//! A line with a length and a rate between a client and a server on one machine, for `bench/run`.
//!
//! ```text
//! link LISTEN_PORT TARGET_ADDR DELAY_MS RATE_BYTES_PER_S
//! ```
//! Listens on the loopback interface, on a free port where `LISTEN_PORT` is 0, prints `listening on
//! ADDRESS`, and carries connections to the target until it is killed. The delay is that of one direction;
//! a rate of 0 has no bound.

#[path = "../tests/suite/proxy/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the faults are for the tests")]
mod proxy;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context as _, bail};

use proxy::{Link, Plan, Proxy};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, target, delay, rate] = args.as_slice() else {
        bail!("usage: link LISTEN_PORT TARGET_ADDR DELAY_MS RATE_BYTES_PER_S");
    };
    let target: SocketAddr = target.parse().context("TARGET_ADDR")?;
    let delay = Duration::from_millis(delay.parse().context("DELAY_MS")?);
    let rate = NonZeroU64::new(rate.parse().context("RATE_BYTES_PER_S")?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().context("LISTEN_PORT")?))?;
    let proxy = Proxy::on(listener, target, Link { delay, rate }, |_| Plan::none())?;
    writeln!(io::stdout(), "listening on {}", proxy.address)?;
    loop {
        std::thread::park();
    }
}
