//! A file server within another program: serves a folder, takes files from whoever has the key, and prints what it has
//! received.
//!
//! ```text
//! file_server [PORT [FOLDER [KEY_FILE]]]
//! ```
//! It makes a key for `file_client` and writes it to KEY_FILE, which nobody else can read. Ctrl+C stops it.

#![allow(clippy::print_stdout, reason = "that is what it is there for")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use oneport::Server;
use oneport::rights::{Grant, Right, Rights};

/// What the key is called.
const KEY: &str = "file_client";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let port = args.next().map_or(Ok(8080), |port| port.parse())?;
    let folder = args.next().unwrap_or_else(|| "server_files".to_owned());
    let key_file = args.next().unwrap_or_else(|| "file_client.key".to_owned());

    let server = Server::builder(folder)
        .bind("127.0.0.1".parse()?)
        .port(port)
        .on_file_received(|file| println!("Received {} ({} bytes), {}", file.name, file.size, file.digest))
        .start()
        .await?;

    // There is none on the first run.
    let _ = server.revoke_key(KEY);
    let rights = Rights::from_iter([Right::Read, Right::Write]);
    let key = server.issue_key(KEY, Grant { rights, ..Grant::default() })?;
    write_secret(Path::new(&key_file), key.expose())?;
    println!("listening on {}", server.address());

    tokio::signal::ctrl_c().await?;
    let stopped = server.shutdown().await?;
    println!("stopped{}", if stopped.drained { "" } else { "; some transfers were cut" });
    Ok(())
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")
}
