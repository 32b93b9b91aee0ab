//! Commands for files that go from client to client: `listen`, `push`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use oneport::client::{Existing, Listen, Protocol};
use oneport::names::{FileName, ReceiverName, ReceiverNameError};
use oneport::text;
use oneport::units::Size;

use super::storing::own_name;
use super::{
    ArgsError, Common, ExistingArg, Hook, Host, Job, Local, Moving, OverwriteArg, Task, Upload, common_job,
    moving_job, wrong,
};

/// A file, and who gets it.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) receiver: ReceiverName,
    pub(crate) upload: Upload,
}

/// How somebody listens, as it was written.
pub(in crate::args) struct Listening {
    pub(in crate::args) name: ReceiverName,
    pub(in crate::args) directory: PathBuf,
    pub(in crate::args) overwrite: ExistingArg,
    pub(in crate::args) max_size: Option<Size>,
    pub(in crate::args) once: bool,
    pub(in crate::args) connections: u64,
    pub(in crate::args) hook: Hook,
}

pub(in crate::args) fn listen(host: Host, listening: Listening, common: Common) -> Result<Job, ArgsError> {
    let Listening { name, directory, overwrite, max_size, once, connections, hook } = listening;
    let existing = match overwrite {
        ExistingArg::Rename => Existing::Rename,
        ExistingArg::Never => Existing::Never,
        ExistingArg::Always => Existing::Always,
    };
    let max_size = max_size.map(|Size(size)| size);
    let listen = Listen { name, directory, existing, max_size, once };
    let mut job = common_job(Task::Listen(host.server.unwrap_or_default(), listen), Vec::new(), common)?;
    job.settings.links = connections;
    job.settings.protocol = Protocol::V2;
    job.on_received = hook.checked()?;
    Ok(job)
}

pub(in crate::args) fn push(
    host: Host,
    receivers: &str,
    files: &[OsString],
    name: Option<OsString>,
    moving: Moving,
    common: Common,
) -> Result<Job, ArgsError> {
    if files.len() > 1 && (name.is_some() || moving.checksum.is_some()) {
        return wrong("--name and --checksum are those of one file; send the files one by one");
    }
    let receivers: BTreeSet<ReceiverName> =
        receivers.split(',').map(str::parse).collect::<Result<_, _>>().map_err(
            |error: ReceiverNameError| {
                let shown = text::shown(receivers.as_bytes());
                ArgsError::Wrong(format!(
                    "'{shown}' is not whom a file can be sent to: {error}; commas stand between several"
                ))
            },
        )?;
    if files.iter().any(|file| file == "-") {
        if common.security.takes_stdin() {
            return wrong("- and --key-file - both want standard input");
        }
        if receivers.len() > 1 {
            return wrong("standard input can be sent to one receiver only; save it in a file first");
        }
    }
    let server = host.server.unwrap_or_default();
    let mut deliveries = Vec::new();
    for word in files {
        let shown = text::shown(word.as_bytes()).to_string();
        let own = match &name {
            Some(name) => name.as_bytes().to_vec(),
            None if word == "-" => {
                return wrong("standard input has no name; say with --name what it is called");
            }
            None => own_name(word)?,
        };
        let unfit = |why: &str| {
            let name = text::shown(&own);
            ArgsError::Wrong(format!(
                "'{shown}' cannot be received as '{name}': {why}; say another name with --name"
            ))
        };
        let parsed = FileName::parse(&own).map_err(|error| unfit(&error.to_string()))?;
        if !parsed.folder().is_empty() {
            return Err(unfit("the receiver decides in which folder it lands"));
        }
        for receiver in &receivers {
            let local = if word == "-" { Local::Input } else { Local::File(word.into()) };
            let upload = Upload { server: server.clone(), name: own.clone(), local };
            deliveries.push(Delivery { receiver: receiver.clone(), upload });
        }
    }
    let mut job = moving_job(Task::Push(deliveries), Vec::new(), moving, OverwriteArg::Always, common)?;
    job.settings.protocol = Protocol::V2;
    Ok(job)
}
