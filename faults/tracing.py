"""Programs that run under strace, and meet a fault at one of their system calls.

Imported by the commands of this folder and by nothing else.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common import PATIENCE, environment, skip
from order import named_in, paths_of

#: Calls that change a file system, or on which the safety of a change depends. strace is asked to
#: overlook those that this kind of machine does not have.
CALLS = (
    "openat creat mkdir mkdirat fallocate ftruncate truncate write writev pwrite64 pwritev pwritev2 "
    "copy_file_range sendfile splice sync_file_range fsync fdatasync syncfs fchmod chmod fchmodat fchown rename renameat "
    "renameat2 link linkat symlink symlinkat unlink unlinkat rmdir utimensat"
).split()

#: Names that a server gives to small files that wait, which are others in each run, and what is shown of them.
UNSTEADY, UNSTEADY_SHOWN = re.compile(r"\.oneport-[0-9a-f]{16}-[0-9a-f]+\.part"), ".oneport-*.part"

#: How often it is looked whether a tracer has gone, in seconds.
LOOK = 0.002


@dataclass(frozen=True)
class Call:
    """The `index`th call of this name that a thread makes on a path, from 1."""

    name: str
    #: As strace counts: of a call that names something in an open folder, that folder.
    path: str
    index: int
    #: What the call names in an open folder.
    named: str = ""
    #: Its path differs in each run, so it is counted among all calls of this name.
    is_anywhere: bool = False

    @property
    def about(self) -> str:
        """What the call is about."""
        return self.named or self.path

    def __str__(self) -> str:
        return f"{self.name}#{self.index} {self.path}" + (f" ({Path(self.named).name})" if self.named else "")


@dataclass(frozen=True)
class Fault:
    """A call that fails, or at which the program is killed."""

    call: Call
    kind: str

    @property
    def is_kill(self) -> bool:
        return self.kind == "KILL"

    def __str__(self) -> str:
        return f"{self.kind} at {self.call}"


class NeverMetError(Exception):
    """A run ended before the call that was to fail."""


def tracer_in(status: Path) -> int:
    """Who traces a program; 0 if nobody does, or it has ended."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^TracerPid:\s+(\d+)$", status.read_text(), re.MULTILINE):
            return int(found.group(1))
    return 0


class Tracer:
    """Runs programs under strace, and reads what it saw."""

    def __init__(self, scratch: Path) -> None:
        self.log = scratch / "strace.log"

    def prefix(self, *options: str) -> list[str]:
        """The words before a command line. The program stays our own child (-D)."""
        traced = ",".join(f"?{name}" for name in CALLS)
        self.log.unlink(missing_ok=True)
        return ["strace", "-D", "-I", "2", "-f", "-y", "-qq", "-s", "8", "-x", "-o", str(self.log), "-e", f"trace={traced}", *options]

    def inject(self, fault: Fault, paths: list[str]) -> list[str]:
        """The words before a command line that make it meet a fault."""
        what = "signal=KILL" if fault.is_kill else f"error={fault.kind}"
        only = [word for path in paths for word in ("-P", path)]
        return self.prefix(*only, "-e", f"inject={fault.call.name}:{what}:when={fault.call.index}")

    def text(self) -> str:
        """What strace wrote of the last run."""
        return self.log.read_text(errors="replace")

    def injected(self) -> bool:
        """Whether the last run met its fault."""
        text = self.text()
        return "(INJECTED)" in text or "killed by SIGKILL" in text

    def met(self) -> Call | None:
        """The call that failed in the last run, if that can be told."""
        for line in self.text().splitlines():
            match = re.match(r"(\d+) +(\w+)\((.*)\(INJECTED\)$", line)
            if match and (paths := paths_of(match.group(3))):
                return Call(match.group(2), paths[0], 0, named_in(match.group(3)))
        return None

    def detach(self, traced: int) -> None:
        """Ends the tracing of a program that runs on; no fault happens to it any more."""
        status = Path(f"/proc/{traced}/status")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and (tracer := tracer_in(status)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(tracer, signal.SIGTERM)
            time.sleep(LOOK)

    def calls(self, watched: list[Path], after: int = 0) -> list[Call]:
        """The calls of the last run on anything beneath the watched folders, each once, in order. Those in the
        first lines of the log, so many of them, count and are left out."""
        counts: Counter[tuple[str, str, str]] = Counter()
        found: dict[Call, None] = {}
        for at, line in enumerate(self.text().splitlines()):
            if not (match := re.match(r"(\d+) +(\w+)\((.*)", line)):
                continue
            thread, name, arguments = match.groups()
            counts[thread, name, ""] += 1
            paths = [path for path in paths_of(arguments) if any(map(Path(path).is_relative_to, watched))]
            if not paths:
                continue
            path = UNSTEADY.sub(UNSTEADY_SHOWN, paths[0])
            is_anywhere = path != paths[0]
            counts[thread, name, path] += 1
            index = counts[thread, name, "" if is_anywhere else path]
            if at >= after:
                # What is written is no name.
                named = "" if name.endswith("write64") else UNSTEADY.sub(UNSTEADY_SHOWN, named_in(arguments))
                found[Call(name, path, index, named, is_anywhere)] = None
        return list(found)


def check_strace() -> None:
    """Skips where strace is missing or not allowed to trace."""
    if not shutil.which("strace"):
        skip("strace is missing; install it with: apt-get install strace")
    probe = subprocess.run(
        ["strace", "-D", "-f", "-o", "/dev/null", "-e", "inject=mkdir:error=EIO:when=1", "true"],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    if probe.returncode != 0:
        skip(f"strace does not work here: {probe.stderr.strip()}")
