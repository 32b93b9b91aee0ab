"""Where the benchmark plays: the files, one running server of each kind, and the runs of clients.

Everything lies in one folder, which its owner removes. Servers are started when a row first needs
them and run until `close`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machine import BenchError, Daemon, free_port, timed

HERE = Path(__file__).resolve().parent

# Longest time of one run, in seconds.
RUN_TIMEOUT_S = 300
# A file must be this old, in seconds, before the server remembers its digest.
DIGEST_SETTLED_S = 3

# The line of the row `link`: one direction's delay in ms, and bytes per second.
LINK_DELAY_MS = 25
LINK_RATE = 125_000_000

NGINX_CONF = """
daemon off;
worker_processes auto;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {files};
        {more}
    }}
}}
"""

# What makes nginx take files.
NGINX_DAV = "dav_methods PUT; create_full_put_path on; client_max_body_size 0;"

RSYNCD_CONF = """
use chroot = no
port = {port}
address = 127.0.0.1
pid file = {folder}/rsyncd.pid
log file = {folder}/rsyncd.log
[files]
path = {files}
read only = {read_only}
{identity}
"""

SSHD_CONF = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Programs:
    """What is compared and what it is measured with."""

    server: Path
    client: Path
    crowd: Path
    md5_alone: Path
    link: Path


@dataclass(frozen=True)
class Sizes:
    """How much work the rows do."""

    big: int = 1 << 30
    crowd_file: int = 1 << 20
    small_file: int = 16 << 10
    link_file: int = 500_000_000
    # Small files: so many folders, files in each, bytes in each file.
    folders: int = 10
    folder_files: int = 1000
    folder_file: int = 4096
    # Files of the row that only lists.
    listed: int = 1_000_000
    crowd_clients: int = 1000
    sends: int = 4
    first_bytes: int = 50

    @classmethod
    def quick(cls) -> "Sizes":
        return cls(folder_files=20, listed=2000, big=32 << 20, crowd_file=256 << 10, link_file=20_000_000, crowd_clients=50, sends=2, first_bytes=10)


@dataclass
class Stage:
    """One benchmark's folder, files, servers and runs."""

    folder: Path
    # A folder on a disk.
    disk: Path
    programs: Programs
    sizes: Sizes
    _servers: dict[str, Daemon] = field(default_factory=dict)
    _targets: int = 0

    def prepare(self) -> None:
        """Makes the served files and lets them grow old enough for their digests to be remembered."""
        self.files.mkdir(parents=True)
        for name, size in self._served().items():
            with (self.files / name).open("wb") as file:
                for offset in range(0, size, 1 << 20):
                    file.write(os.urandom(min(1 << 20, size - offset)))
        for folder in range(self.sizes.folders):
            place = self.files / "many" / f"folder-{folder}"
            place.mkdir(parents=True)
            for index in range(self.sizes.folder_files):
                (place / f"file-{index:05}.bin").write_bytes(os.urandom(self.sizes.folder_file))
        time.sleep(DIGEST_SETTLED_S)

    def prepare_listed(self) -> None:
        """Makes the files that are only listed, if they are not there."""
        listed = self.files / "listed"
        for folder in range(0 if listed.exists() else 10):
            place = listed / f"folder-{folder}"
            place.mkdir(parents=True)
            for index in range(self.sizes.listed // 10):
                (place / f"file-{index:06}").touch()

    def _served(self) -> dict[str, int]:
        return {"big.bin": self.sizes.big, "crowd.bin": self.sizes.crowd_file,
                "small.bin": self.sizes.small_file, "link.bin": self.sizes.link_file,
                "many.bin": self.sizes.folders * self.sizes.folder_files * self.sizes.folder_file}

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers.clear()

    @property
    def files(self) -> Path:
        # The seed's server serves the folder of this name and no other.
        return self.folder / "seed" / "server_files"

    def target(self, on_disk: bool = False) -> Path:
        """A new folder for what one run receives, in memory or on a disk that has nothing left to do."""
        self._targets += 1
        target = (self.disk if on_disk else self.folder) / f"target-{self._targets}"
        target.mkdir()
        if on_disk:
            # What runs before have written, and removed, is not to be paid by this one.
            os.sync()
        return target

    # Servers.

    def server(self, name: str) -> Daemon:
        """The running server of this kind: `oneport`, `seed`, `nginx`, `rsync`, or a link to one."""
        if name not in self._servers:
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            start = getattr(self, f"_start_{name}")
            self._servers[name] = start(folder, free_port())
        return self._servers[name]

    def _start_oneport(self, folder: Path, port: int) -> Daemon:
        command = [self.programs.server, str(port), self.files, "--bind", "127.0.0.1",
                   "--state", folder / "state", "--log-dir", folder / "logs"]
        server = Daemon([str(part) for part in command], folder, port)
        self._servers["oneport"] = server
        # From now on all digests, and all trees, are remembered.
        for name in self._served():
            for dialect in ("v1", "v2"):
                self.crowd("oneport", name, clients=1, dialect=dialect)
        return server

    def pin(self) -> str:
        """By what clients recognise oneport's server: it is in the log of its start."""
        self.server("oneport")
        for log in sorted((self.folder / "oneport" / "logs").iterdir(), reverse=True):
            if found := re.search(r"pin=(sha256:[A-Za-z0-9_-]{43})", log.read_text()):
                return found[1]
        raise BenchError("the server has not told its pin")

    # Servers that take files, in memory and on the disk: each has an empty folder of its own.

    def inbox(self, name: str) -> Path:
        """Where a server that takes files has them; `_disk` in its name says that this is on the disk."""
        inbox = (self.disk if name.endswith("_disk") else self.folder) / f"inbox-{name}"
        inbox.mkdir(exist_ok=True)
        return inbox

    def fresh(self, name: str) -> Path:
        """A folder that a server which takes files has not yet, where its disk has nothing left to do."""
        self._targets += 1
        os.sync()
        return self.inbox(name) / f"many-{self._targets}"

    def key(self, name: str) -> Path:
        """The file with the key for one of our own servers that take files."""
        self.server(name)
        return self.folder / name / "key"

    def _start_taker(self, name: str, folder: Path, port: int) -> Daemon:
        add = [self.programs.server, "key", "add", "bench", "--allow", "read,write,delete", "--state", folder / "state"]
        told = subprocess.run([str(part) for part in add], capture_output=True, text=True, check=True)
        key = folder / "key"
        key.write_text(told.stdout)
        key.chmod(0o600)
        command = [self.programs.server, str(port), self.inbox(name), "--bind", "127.0.0.1",
                   "--state", folder / "state", "--log-dir", folder / "logs"]
        return Daemon([str(part) for part in command], folder, port)

    def _start_taker_memory(self, folder: Path, port: int) -> Daemon:
        return self._start_taker("taker_memory", folder, port)

    def _start_taker_disk(self, folder: Path, port: int) -> Daemon:
        return self._start_taker("taker_disk", folder, port)

    def _start_dav(self, folder: Path, port: int) -> Daemon:
        return self._nginx(folder, port, self.inbox("dav"), NGINX_DAV)

    def _start_rsync_in(self, folder: Path, port: int) -> Daemon:
        return self._rsync(folder, port, self.inbox("rsync_in"), "no")

    def _start_rsync_in_disk(self, folder: Path, port: int) -> Daemon:
        return self._rsync(folder, port, self.inbox("rsync_in_disk"), "no")

    def _start_sshd(self, folder: Path, port: int) -> Daemon:
        for name in ("host", "user"):
            subprocess.run([found("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        (folder / "sshd.conf").write_text(SSHD_CONF.format(folder=folder, port=port))
        if os.geteuid() == 0:
            # Where sshd as root shuts itself in before anybody has logged in.
            Path("/run/sshd").mkdir(exist_ok=True)
        return Daemon([found("sshd"), "-D", "-f", str(folder / "sshd.conf"), "-E", str(folder / "sshd.log")], folder, port)

    def _start_seed(self, folder: Path, port: int) -> Daemon:
        return Daemon([sys.executable, str(HERE / "seed_server.py"), str(port)], folder, port)

    def _start_nginx(self, folder: Path, port: int) -> Daemon:
        return self._nginx(folder, port, self.files, "")

    def _nginx(self, folder: Path, port: int, files: Path, more: str) -> Daemon:
        conf = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        conf.write_text(user + NGINX_CONF.format(folder=folder, port=port, files=files, more=more))
        return Daemon([found("nginx"), "-c", str(conf), "-e", str(folder / "error.log")], folder, port)

    def _start_rsync(self, folder: Path, port: int) -> Daemon:
        return self._rsync(folder, port, self.files, "yes")

    def _rsync(self, folder: Path, port: int, files: Path, read_only: str) -> Daemon:
        conf = folder / "rsyncd.conf"
        identity = "uid = root\ngid = root" if os.geteuid() == 0 else ""
        conf.write_text(RSYNCD_CONF.format(folder=folder, port=port, files=files, read_only=read_only, identity=identity))
        return Daemon([found("rsync"), "--daemon", "--no-detach", f"--config={conf}"], folder, port)

    def _start_link(self, to: str, folder: Path, port: int) -> Daemon:
        command = [self.programs.link, str(port), f"127.0.0.1:{self.server(to).port}",
                   str(LINK_DELAY_MS), str(LINK_RATE)]
        return Daemon([str(part) for part in command], folder, port)

    def _start_link_to_oneport(self, folder: Path, port: int) -> Daemon:
        return self._start_link("oneport", folder, port)

    def _start_link_to_nginx(self, folder: Path, port: int) -> Daemon:
        return self._start_link("nginx", folder, port)

    # Runs.

    def run(self, command: Sequence[str | Path], cwd: Path | None = None) -> dict[str, float]:
        """Runs a program to its end: its wall and processor time in seconds."""
        seconds, cpu = timed([str(part) for part in command], cwd or self.folder, RUN_TIMEOUT_S)
        return {"seconds": seconds, "client_cpu": cpu}

    def receive(self, command: Sequence[str | Path], received: Path, served: str | None = None,
                **options: Path) -> dict[str, float]:
        """As `run`, for a program that makes the file `received`, which is removed after it was checked.

        Removing a few large files from memory disturbs nothing that follows; many small ones on a
        disk would. With `served`, what that server used meanwhile is measured too.
        """
        daemon = self.server(served) if served else None
        cpu = daemon.cpu_s() if daemon else 0.0
        sample = self.run(command, **options)
        if daemon:
            sample["server_cpu"] = daemon.cpu_s() - cpu
        if received.stat().st_size != self._served()[received.name]:
            raise BenchError(f"{Path(command[0]).name} left {received.stat().st_size} bytes")
        sample["bytes"] = received.stat().st_size
        received.unlink()
        return sample

    def receive_many(self, command: Sequence[str | Path], received: Path, served: str | None = None) -> dict[str, float]:
        """As `receive`, for a program that makes the folder `received` with all the small files.

        It is removed with everything else at the very end: removing many files from a disk disturbs whatever follows.
        """
        daemon = self.server(served) if served else None
        cpu = daemon.cpu_s() if daemon else 0.0
        sample = self.run(command)
        if daemon:
            sample["server_cpu"] = daemon.cpu_s() - cpu
        files = [path for path in received.rglob("*") if path.is_file()]
        wanted = self.sizes.folders * self.sizes.folder_files
        if len(files) != wanted or any(path.stat().st_size != self.sizes.folder_file for path in files):
            raise BenchError(f"{Path(command[0]).name} left {len(files)} files of {wanted}")
        return sample

    def sent(self, command: Sequence[str | Path], server: str, stored: Path) -> dict[str, float]:
        """As `receive`, for a program that makes one of the servers that take files store `stored`."""
        daemon = self.server(server)
        cpu = daemon.cpu_s()
        sample = self.run(command)
        sample["server_cpu"] = daemon.cpu_s() - cpu
        if stored.stat().st_size != self.sizes.big:
            raise BenchError(f"{Path(command[0]).name} stored {stored.stat().st_size} bytes")
        stored.unlink()
        return sample

    def crowd(self, server: str, name: str, clients: int, turns: int = 1,
              first_byte: bool = False, dialect: str = "v1") -> dict[str, float]:
        """The load generator against a server: times, and what the server used meanwhile."""
        daemon = self.server(server)
        dialect = "http" if server == "nginx" else dialect
        size = (self.files / name).stat().st_size
        command = [str(self.programs.crowd), dialect, f"127.0.0.1:{daemon.port}", name, str(size),
                   str(clients), str(turns), *(["first-byte"] if first_byte else [])]
        daemon.forget_peak()
        cpu = daemon.cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        if done.returncode != 0:
            raise BenchError(f"{server}: the load generator failed: {done.stderr.strip()}")
        told: Mapping[str, list[float] | float] = json.loads(done.stdout)
        first_bytes = sorted(told["first_bytes"])  # type: ignore[arg-type]
        return {
            "seconds": float(told["seconds"]),  # type: ignore[arg-type]
            "first_byte": first_bytes[len(first_bytes) // 2],
            "server_cpu": daemon.cpu_s() - cpu,
            "server_rss": daemon.peak_rss(),
            "gib": clients * turns * size / 2**30,
        }


def found(program: str) -> str:
    """The path of a program that has been looked for before; daemons often lie in sbin."""
    path = which(program)
    if path is None:
        raise BenchError(f"{program} is missing")
    return path


def which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
