"""What the benchmark asks of the operating system: namespaces, processes, and what they have used."""

import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
NAMESPACED = "ONEPORT_BENCH_NAMESPACED"

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class BenchError(Exception):
    """The benchmark cannot go on; the text is for its user."""


def namespaced(command: Sequence[str]) -> list[str]:
    """`command` in namespaces of its own: nobody else's network settings, and no process outlives it."""
    # As another user than root, a user namespace is needed to make the others.
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    works = shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    if not works:
        raise BenchError("no network namespace can be made here (unshare --net --pid); see --no-namespace")
    return [*prefix, *command]


def prepare_network() -> None:
    """In a fresh network namespace: the loopback device up, congestion control reno."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    CONGESTION_CONTROL.write_text("reno")


def raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def describe() -> dict[str, str]:
    """The machine, as far as it matters to a reader of the results."""
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        "unknown",
    )
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} × {model}",
        "kernel": os.uname().release,
        "congestion control": CONGESTION_CONTROL.read_text().strip(),
    }


def timed(command: Sequence[str], folder: Path, timeout_s: float) -> tuple[float, float]:
    """Runs a program to its end; its wall and processor time in seconds."""
    said = folder / "said-by-client"
    with said.open("wb") as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        # `Popen.wait` with a timeout sleeps in steps, which would round the time up.
        alarm = threading.Timer(timeout_s, process.kill)
        alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        text = said.read_text(errors="replace").strip()[-1000:]
        raise BenchError(f"{' '.join(command)} failed ({process.returncode}): {text}")
    return seconds, usage.ru_utime + usage.ru_stime


class Daemon:
    """A process that the benchmark started, with its children, until it is stopped."""

    def __init__(self, command: Sequence[str], folder: Path, port: int, patience_s: float = 20) -> None:
        self.port = port
        self._said = folder / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self._wait_until_it_listens(command, patience_s)

    def _wait_until_it_listens(self, command: Sequence[str], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    said = self._said.read_text(errors="replace")[-2000:]
                    raise BenchError(f"{command[0]} does not listen; it said:\n{said}") from None
                time.sleep(0.02)

    def pids(self) -> list[int]:
        """The process and its children."""
        pids = [self._process.pid]
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                # After the name in parentheses: the state and the parent.
                parent = int(entry.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == self._process.pid:
                pids.append(int(entry.parent.name))
        return pids

    def cpu_s(self) -> float:
        """Processor time, user and system, in seconds, exact where the clock of a process can be read."""
        return sum(_cpu_of(pid) for pid in self.pids())

    def forget_peak(self) -> None:
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss(self) -> int:
        """Most memory resident since `forget_peak`, in bytes; pages that processes share count for each."""
        return sum(_status_kib(pid, "VmHWM") * 1024 for pid in self.pids())

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _cpu_of(pid: int) -> float:
    # clock_getcpuclockid(3): nanoseconds, where /proc/PID/stat has ticks of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def _status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise BenchError(f"/proc/{pid}/status has no {field}")
