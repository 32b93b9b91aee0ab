//! **oneport**: a file server and downloader over raw TCP.
//!
//! Start reading at [`codec::v1`] for the words on the wire, then follow a download: the listener
//! and the connection in `server`, the rules in `service`, the disk in `storage`; on the other side
//! `client`. `ARCHITECTURE.md` is the map.
//!
//! # A server and a client in another program
//!
//! [`Server`] and [`Client`] are what the programs are made of, without anything of a process: no signals, no
//! arguments, no log files. What is logged goes to the caller's `tracing` subscriber, if there is one.
//!
//! ```
//! use oneport::rights::{Grant, Right, Rights};
//! use oneport::{Client, Server};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (root, local) = (folder.path().join("served"), folder.path().join("note.txt"));
//! # std::fs::write(&local, "hello")?;
//! let server = Server::builder(root)
//!     .bind("127.0.0.1".parse()?)
//!     .on_file_received(|file| println!("received {} ({} bytes)", file.name, file.size))
//!     .start()
//!     .await?;
//! let all = Rights::from_iter([Right::Read, Right::Write]);
//! let key = server.issue_key("me", Grant { rights: all, ..Grant::default() })?;
//!
//! let client = Client::to(&server.address().to_string())?
//!     .key(key)
//!     .on_progress(|now| println!("{:.1} %, {:.0} B/s, {:?} left", now.percent, now.speed, now.eta))
//!     .build();
//! client.put(&local, "notes/hello.txt").await?;
//! let fetched = client.get("notes/hello.txt", folder.path().join("back.txt")).await?;
//! assert_eq!(fetched.size, 5);
//! server.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The modules
//!
//! Modules stand in layers; imports point down, never up (`tests/suite/layers.rs` checks it):
//!
//! ```text
//! L5 assembly  app, config, logging, and the binaries
//! L4 edges     server, client
//! L3 rules     service
//! L2 stores    catalog, keys, storage, staged, fileops, tls
//! L1 words     codec, control, digest, error, exchange, limits, listing, names, patterns, pin, priority, progress, rate, rights, sniff, text, token, tree, units
//! ```

pub mod app;
pub mod catalog;
pub mod client;
pub mod codec;
pub mod config;
pub mod control;
pub mod digest;
pub mod error;
pub mod exchange;
mod fileops;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod logging;
pub mod names;
pub mod patterns;
pub mod pin;
pub mod priority;
pub mod progress;
pub mod rate;
pub mod rights;
pub mod server;
pub mod service;
pub mod sniff;
pub mod staged;
pub mod storage;
pub mod text;
pub mod tls;
pub mod token;
pub mod tree;
pub mod units;

pub use app::embed::{Server, ServerBuilder};
pub use client::{Client, ClientBuilder};
