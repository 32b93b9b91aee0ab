//! Servers under test: a folder of their own, the real program on a free port, and what can be seen
//! of it from outside. Every wait has a deadline; a failed test prints the command, the folder and
//! all output; a server never outlives its test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::machine::Share;
pub(crate) use crate::machine::{PATIENCE, poll, skipped, wait_for};

/// Descriptors that the catalog opens for good once it has something to note.
pub(crate) const CATALOG_DESCRIPTORS: usize = 4;
/// Most lines of each output that a failed test prints.
const OUTPUT_SHOWN: usize = 40;

/// Waits until a file's times are so old that its digest may be remembered (2 s).
pub(crate) fn wait_settled(path: &Path) {
    const SETTLED: Duration = Duration::from_millis(2100);
    let data = fs::metadata(path).unwrap();
    let changed = Duration::new(data.ctime().cast_unsigned(), data.ctime_nsec() as u32);
    wait_for("times that are old enough", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        (changed + SETTLED <= now).then_some(())
    });
}

/// A temporary folder in which servers run: `root` is served, `logs` and `state` are theirs.
pub(crate) struct Site {
    dir: TempDir,
    runs: AtomicU32,
    /// Given back last: the folder's removal is work too.
    _share: Share,
}

impl Site {
    /// An empty one, on a machine that other tests use too.
    pub(crate) fn new() -> Self {
        Self::with(Share::shared())
    }

    /// An empty one, and no other test runs as long as it is there: for what measures time.
    pub(crate) fn alone() -> Self {
        Self::with(Share::alone())
    }

    fn with(share: Share) -> Self {
        let dir = tempfile::Builder::new().prefix("oneport-test-").tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir, runs: AtomicU32::new(0), _share: share }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path within the served folder.
    pub(crate) fn root(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path().join("root").join(name.as_ref())
    }

    /// Puts a file into the served folder.
    pub(crate) fn file(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> PathBuf {
        let path = self.root(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A server that is yet to be started, with this site's folders and a free port.
    pub(crate) fn launch(&self, options: &[&str]) -> Launch<'_> {
        let mut launch = self.launch_bare(&["0", "root", "--state", "state", "--log-dir", "logs"]);
        launch.arguments.extend(options.iter().map(OsString::from));
        launch
    }

    /// A server that is yet to be started, with these arguments and no others.
    pub(crate) fn launch_bare(&self, arguments: &[&str]) -> Launch<'_> {
        Launch {
            site: self,
            wrapper: Vec::new(),
            arguments: arguments.iter().map(OsString::from).collect(),
            variables: Vec::new(),
        }
    }

    /// A running server with this site's folders, a free port, and these options besides.
    pub(crate) fn serve(&self, options: &[&str]) -> Server {
        self.launch(options).serve()
    }
}

/// A server about to be started, in the site's folder and with an empty environment.
pub(crate) struct Launch<'a> {
    site: &'a Site,
    wrapper: Vec<String>,
    arguments: Vec<OsString>,
    variables: Vec<(String, String)>,
}

impl Launch<'_> {
    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it by way of another program, which must become the server by `exec`.
    pub(crate) fn by_way_of(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts it, whether it will serve or end.
    pub(crate) fn start(self) -> Server {
        let site = self.site;
        let run = site.runs.fetch_add(1, Ordering::Relaxed);
        let program = OsString::from(env!("CARGO_BIN_EXE_server"));
        let mut words = self.wrapper.into_iter().map(OsString::from).collect::<Vec<_>>();
        words.push(program);
        words.extend(self.arguments);
        let output = ["stdout", "stderr"].map(|name| site.path().join(format!("{name}.{run}")));
        let [stdout, stderr] = output.each_ref().map(|path| fs::File::create(path).unwrap());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir(site.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let command = format!("{:?} {words:?}", self.variables);
        let [stdout, stderr] = output;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let dir = site.path().to_owned();
        Server { child, command, dir, stdout, stderr, sockets_at_first: 0, announced: address, address }
    }

    /// Starts it and waits until it says that it listens.
    pub(crate) fn serve(self) -> Server {
        self.try_serve().unwrap_or_else(|server| {
            panic!("the server does not listen:\n{}", server.describe());
        })
    }

    /// As [`Self::serve`], for wrappers that a machine may not allow; what ended, if it ended.
    pub(crate) fn try_serve(self) -> Result<Server, Box<Server>> {
        let mut server = self.start();
        let announced = poll(PATIENCE, || {
            let said = server.stdout();
            let line = said.lines().next().filter(|_| said.ends_with('\n')).map(str::to_owned);
            (line.is_some() || server.has_ended()).then_some(line)
        });
        let address = announced.flatten().and_then(|line| line.strip_prefix("listening on ")?.parse().ok());
        let Some(address) = address else { return Err(Box::new(server)) };
        server.announced = address;
        server.address.set_port(address.port());
        if !server.announced.ip().is_unspecified() {
            server.address = server.announced;
        }
        server.sockets_at_first = server.sockets();
        Ok(server)
    }

    /// Starts it and waits for its end.
    pub(crate) fn run(self) -> Ended {
        let mut server = self.start();
        let code = server.wait_exit();
        Ended { code, stdout: server.stdout(), stderr: server.stderr() }
    }
}

/// What a server left behind that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A server process. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    command: String,
    dir: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Sockets that it had when it began to listen.
    sockets_at_first: usize,
    /// The address as it was printed.
    pub(crate) announced: SocketAddr,
    /// Where to connect.
    pub(crate) address: SocketAddr,
}

/// For so long the number of descriptors has to stay what it is.
const SETTLED: Duration = Duration::from_millis(100);

impl Server {
    /// A new connection.
    pub(crate) fn connect(&self) -> TcpStream {
        crate::raw::connect(self.address).unwrap()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has said on standard output so far.
    pub(crate) fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// All it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// Its log files, the oldest first, as the server itself sees its log folder (which may lie on
    /// a disk that was mounted for it alone).
    pub(crate) fn log_files(&self) -> Vec<PathBuf> {
        let folder = self.dir.join("logs");
        let seen = PathBuf::from(format!("/proc/{}/root", self.id())).join(folder.strip_prefix("/").unwrap());
        let entries = fs::read_dir(&seen).or_else(|_| fs::read_dir(&folder));
        let mut files: Vec<_> = entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        // `…_10.log` comes after `…_9.log`.
        files.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_owned();
            (fs::metadata(path).and_then(|data| data.modified()).ok(), name.len(), name)
        });
        files
    }

    /// All it has logged so far. The one place that knows where the log is.
    pub(crate) fn log(&self) -> String {
        self.log_files().iter().map(|path| read_lossy(path)).collect()
    }

    /// Waits until the log holds `text`; all of the log as it is then.
    pub(crate) fn wait_log(&self, text: &str) -> String {
        self.wait_log_count(text, 1)
    }

    /// Waits until at least `count` lines of the log hold `text`; all of the log as it is then.
    pub(crate) fn wait_log_count(&self, text: &str, count: usize) -> String {
        wait_for(&format!("{count} × '{text}' in the log"), || {
            let log = self.log();
            (log.lines().filter(|line| line.contains(text)).count() >= count).then_some(log)
        })
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; its exit status, or `None` if a signal ended it.
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        wait_for("the server's end", || self.child.try_wait().unwrap()).code()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The processor time that its threads have used, those that have ended left out.
    pub(crate) fn busy(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let of = |path: PathBuf| {
            let stat = fs::read_to_string(path.join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(|task| of(task.ok()?.path())).sum())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// How many descriptors it has open once every connection is gone.
    pub(crate) fn descriptors_at_rest(&self) -> usize {
        // Where something begins or ends, files are opened and closed again.
        let mut settled = (0, Instant::now());
        wait_for("the end of all connections, and of opening and closing", || {
            let now = if self.sockets() == self.sockets_at_first { self.descriptors() } else { 0 };
            if now != settled.0 {
                settled = (now, Instant::now());
            }
            (now > 0 && settled.1.elapsed() >= SETTLED).then_some(now)
        })
    }

    /// As [`Self::descriptors_at_rest`], behind a first transfer: to note that, the catalog is opened once more.
    pub(crate) fn descriptors_behind_a_transfer(&self) -> usize {
        let logs = || {
            let entries = fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
            let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            links.filter(|link| link.ends_with("catalog.db-wal")).count()
        };
        wait_for("both connections to the catalog", || (logs() == 2).then_some(()));
        self.descriptors_at_rest()
    }

    /// How many of its descriptors are sockets.
    fn sockets(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        let is_socket =
            |path| fs::read_link::<PathBuf>(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_socket(entry.path()))).count()
    }

    /// The processor time that it has used, in clock ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // proc_pid_stat(5): utime and stime are fields 14 and 15, the state is field 3.
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// The most memory that it ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM") << 10
    }

    /// The memory that it has resident, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS") << 10
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u64 {
        self.status("Threads")
    }

    /// A number of proc_pid_status(5); those of memory are in KiB.
    fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What is known about it, for whoever reads a failed test.
    fn describe(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(OUTPUT_SHOWN)..].join("\n")
        };
        format!(
            "command: {}\nfolder: {}\n-- stdout\n{}\n-- stderr\n{}\n-- log\n{}",
            self.command,
            self.dir.display(),
            tail(self.stdout()),
            tail(self.stderr()),
            tail(self.log())
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.describe());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
