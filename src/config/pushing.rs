//! `server push`: what is to be sent to those who listen, checked.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::ConfigError;
use super::keys::Place;
use crate::names::{ReceiverName, ReceiverNameError};

/// Arguments of `push`.
#[derive(Clone, Debug, Args)]
pub struct Push {
    /// Who they are for: the names under which clients listen, several with commas between them
    #[arg(value_name = "RECEIVER,...")]
    receivers: Receivers,

    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Print what came of each as JSON, an object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// Names with commas between them.
#[derive(Clone, Debug)]
struct Receivers(Vec<ReceiverName>);

impl FromStr for Receivers {
    type Err = ReceiverNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// What is to be sent by the server that runs with a state folder.
#[derive(Clone, Debug)]
pub struct PushTask {
    /// Folder of the server's state.
    pub state: PathBuf,
    /// Who is to have the files.
    pub receivers: Vec<ReceiverName>,
    /// The files, on this machine.
    pub files: Vec<PathBuf>,
    /// For programs.
    pub json: bool,
}

impl Push {
    pub(super) fn task(self) -> Result<PushTask, ConfigError> {
        let Self { receivers: Receivers(receivers), files, json, place } = self;
        Ok(PushTask { state: place.folder()?, receivers, files, json })
    }
}
