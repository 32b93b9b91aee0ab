//! `server [PORT] [ROOT]`: serves the files of a folder. All of it is in [`oneport::app::server`].

use std::process::ExitCode;

fn main() -> ExitCode {
    oneport::app::server::main(std::env::args_os())
}
