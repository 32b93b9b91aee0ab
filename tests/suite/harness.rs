//! Clients under test: a working folder of their own, the real program, and what it leaves behind.
//! Every wait has a deadline; a failed test prints the command, the folder and all output; a client
//! never outlives its test.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::machine::{Share, poll};

/// How long anything that must happen may take, on a machine busy with other tests.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `look` finds something; fails with `what` when that takes too long.
pub(crate) fn await_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    poll(CLIENT_PATIENCE, look).unwrap_or_else(|| panic!("not within {CLIENT_PATIENCE:?}: {what}"))
}

/// Bytes that look like nothing, the same ones for the same seed.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    chance.fill(&mut bytes);
    bytes
}

/// Folders for clients: `work`, in which they run, and one for their output.
pub(crate) struct Place {
    _share: Option<Share>,
    dir: TempDir,
    runs: AtomicU32,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(Some(Share::shared()))
    }

    /// One for a client that does hardly anything for a long time: tests that need the machine to
    /// themselves do not wait for it.
    pub(crate) fn idle() -> Self {
        Self::with(None)
    }

    fn with(share: Option<Share>) -> Self {
        let dir = tempfile::Builder::new().prefix("oneport-client-").tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        Self { _share: share, dir, runs: AtomicU32::new(0) }
    }

    /// A path in the working folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Everything beneath the working folder except the logs; folders end with a slash.
    pub(crate) fn tree(&self) -> Vec<String> {
        let root = self.path("");
        let (mut found, mut open) = (Vec::new(), vec![root.clone()]);
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                if name == "logs" {
                    continue;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                    found.push(format!("{name}/"));
                } else {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }

    /// The client's logs, each as its text.
    pub(crate) fn logs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("logs")).into_iter().flatten();
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    /// A client with these arguments, in an empty environment.
    pub(crate) fn client<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Run<'_> {
        self.program(&[OsStr::new(env!("CARGO_BIN_EXE_client"))], arguments)
    }

    /// A client that fetches `name` from a server with short waits and these options besides.
    pub(crate) fn fetch(&self, name: &str, from: SocketAddr, options: &[&str]) -> Run<'_> {
        let (ip, port) = (from.ip().to_string(), from.port().to_string());
        let mut arguments = vec![name, &ip, &port];
        if !options.contains(&"--retries") {
            arguments.extend(["--retries", "0"]);
        }
        arguments.extend(["--retry-delay", "20ms"]);
        arguments.extend(options);
        self.client(&arguments)
    }

    /// Several files by way of `get`.
    pub(crate) fn get(&self, from: SocketAddr, arguments: &[&str]) -> Run<'_> {
        let server = from.to_string();
        let mut fixed = vec!["get", "-s", &server, "--retry-delay", "20ms"];
        if !arguments.contains(&"--retries") {
            fixed.extend(["--retries", "0"]);
        }
        self.client(&[&fixed, arguments].concat())
    }

    /// Some program that runs a client.
    pub(crate) fn program<A: AsRef<OsStr>>(&self, program: &[&OsStr], arguments: &[A]) -> Run<'_> {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(arguments).current_dir(self.path("")).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Run { place: self, command, stdout: None }
    }
}

/// A client about to be started.
pub(crate) struct Run<'a> {
    place: &'a Place,
    command: Command,
    stdout: Option<Stdio>,
}

impl Run<'_> {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdout_to(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    pub(crate) fn stderr_to(mut self, stderr: impl Into<Stdio>) -> Running {
        self.command.stderr(stderr);
        self.launch(false)
    }

    pub(crate) fn start(self) -> Running {
        self.launch(true)
    }

    /// Starts it and waits for its end.
    pub(crate) fn end(self) -> Ended {
        self.start().end()
    }

    fn launch(mut self, keep_stderr: bool) -> Running {
        let run = self.place.runs.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| self.place.dir.path().join(format!("{name}.{run}"));
        let [stdout, stderr] = ["stdout", "stderr"].map(file);
        let default = || fs::File::create(&stdout).unwrap().into();
        self.command.stdout(self.stdout.take().unwrap_or_else(default));
        if keep_stderr {
            self.command.stderr(fs::File::create(&stderr).unwrap());
        }
        let child = self.command.spawn().unwrap();
        let described = format!("{:?} in {}", self.command, self.place.path("").display());
        Running { child, stdout, stderr, described }
    }
}

/// A running client. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    described: String,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// All it has said on standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// Waits until standard error holds `text`.
    pub(crate) fn await_stderr(&self, text: &str) {
        await_for(&format!("'{text}' on standard error"), || self.stderr().contains(text).then_some(()));
    }

    /// Its command line, as everybody on the machine can read it.
    pub(crate) fn command_line(&self) -> Vec<u8> {
        fs::read(format!("/proc/{}/cmdline", self.child.id())).unwrap_or_default()
    }

    /// The most memory that it ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
    }

    pub(crate) fn end(mut self) -> Ended {
        let status = await_for("the client's end", || self.child.try_wait().unwrap());
        let stdout = fs::read(&self.stdout).unwrap_or_default();
        let described = self.described.clone();
        Ended { code: status.code(), signal: status.signal(), stdout, stderr: self.stderr(), described }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\n-- stderr\n{}", self.described, self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client left behind that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    described: String,
}

impl Ended {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Checks the exit status, and that nobody panicked and nothing steers a terminal.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        // Megabytes that came over standard output are only looked at where something is wrong.
        let told = || format!("{}\n-- stdout\n{}\n-- stderr\n{}", self.described, self.stdout(), self.stderr);
        assert_eq!(self.code, Some(code), "{}", told());
        assert!(!self.stderr.contains("panicked"), "{}", told());
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!self.stderr.contains(steers), "something steers the terminal: {:?}", told());
        self
    }

    /// Checks that standard error holds `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no '{text}' in: {}\n{}", self.stderr, self.described);
        self
    }
}
