//! `server [PORT] [ROOT]`: serves the files of a folder. All of it is in [`oneport::app::server`].

use std::process::ExitCode;

/// What a crowd of connections took is given back to the system within seconds of its end, by a thread
/// of the allocator's own. The allocator of glibc gives back only what happens to lie at the end of
/// its heaps, and takes longer where one thread gives back what another took.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    oneport::app::server::main(std::env::args_os())
}
