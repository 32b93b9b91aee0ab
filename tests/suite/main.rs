//! The programs as their users meet them: real processes, real sockets, real files.
//!
//! `serving` starts servers and looks at them from outside, `raw` speaks wire format v1 by hand;
//! `harness` runs clients, `scripted` is a server that says whatever a test wants, `original` one that
//! behaves as seed 1's; `peers` runs the programs that were written from the protocol's page.
//! `v2_peer` speaks version 2 by hand, as a server and as a client; `holders` makes keys and shows them.
//! `putting` puts files by hand; `storing` has the client do it, and looks at what is on the disk.
//! `conduit_peer` speaks Conduit by hand, and `conduit_published` runs the client that others have published.
//! `tls_raw` speaks TLS by hand, around whatever is spoken inside.
//! `tls_peer` is the TLS end of a server, with whatever key a test likes, before any server in clear.
//! `fetching` calls the client's library in this process and counts what a transfer has cost.
//! `trees` makes and compares trees of files.
//! `proxy` is the network between a real client and a real server, as bad or as far as a test says, and
//! `chance` the seed of what is left to chance.
//! The other modules are the tests, one topic each.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says what it expects and ends where that does not hold"
)]

mod both;
mod both_secured;
mod chance;
mod client_fetch;
mod client_hostile;
mod client_network;
mod client_put;
mod client_retries;
mod client_staging;
mod client_views;
mod conduit_files;
mod conduit_hostile;
mod conduit_peer;
mod conduit_published;
mod conduit_pushes;
mod conduit_sessions;
mod fetching;
mod folders;
mod folders_cuts;
mod folders_failures;
mod folders_hostile;
mod harness;
mod holders;
mod layers;
mod list_races;
mod listing;
mod machine;
mod on_received;
mod original;
mod peers;
mod priorities;
mod proxy;
mod proxy_faults;
mod proxy_link;
mod push;
mod push_hostile;
mod push_idle;
mod push_kills;
mod put_cuts;
mod put_full;
mod put_kills;
mod put_server_kills;
mod putting;
mod rates;
mod raw;
mod receivers;
mod scripted;
mod server_abuse;
mod server_changes;
mod server_concurrency;
mod server_control;
mod server_cuts;
mod server_deadlines;
mod server_descriptors;
mod server_dialects;
mod server_digests;
mod server_history;
mod server_idle;
mod server_keys;
mod server_limits;
mod server_log;
mod server_log_files;
mod server_names;
mod server_naming;
mod server_rights;
mod server_robustness;
mod server_secrets;
mod server_shutdown;
mod server_start;
mod server_tls;
mod server_tls_reload;
mod server_tls_stalled;
mod server_uploads;
mod server_v1;
mod server_v2_reader;
mod server_wholes;
mod server_writers;
mod serving;
mod storing;
mod tls_client;
mod tls_keys;
mod tls_peer;
mod tls_raw;
mod trees;
mod v2_changes;
mod v2_changing_servers;
mod v2_cuts;
mod v2_fallback;
mod v2_flips;
mod v2_folder_cuts;
mod v2_hostile_clients;
mod v2_hostile_servers;
mod v2_many;
mod v2_peer;
mod v2_transfers;
