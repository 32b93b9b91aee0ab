//! **oneport**: a file server and downloader over raw TCP.
//!
//! Start reading at [`codec::v1`] for the words on the wire, then follow a download: the listener
//! and the connection in `server`, the rules in `service`, the disk in `storage`; on the other side
//! `client`. `ARCHITECTURE.md` is the map.
//!
//! Modules stand in layers; imports point down, never up (`tests/suite/layers.rs` checks it):
//!
//! ```text
//! L5 assembly  app, config, logging, and the binaries
//! L4 edges     server, client
//! L3 rules     service
//! L2 stores    catalog, keys, storage, staged, fileops, tls
//! L1 words     codec, control, digest, error, exchange, limits, listing, names, patterns, pin, progress, rate, rights, sniff, text, token, tree, units
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
