"""What the fault sweeps share: the programs under test, a running server, what lies beside a target
while it is received, and the count of cases.

Imported by the commands of this folder and by nothing else. Only Python's standard library is used.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

REPOSITORY = Path(__file__).resolve().parent.parent

#: Longest wait for a program to start, to answer or to end, in seconds.
PATIENCE = 30.0

#: The bounds of a client under test: what fails here is never the network, so it need not try again.
CLIENT_OPTIONS = ("--retries", "0", "--timeout", "10s", "-q")


#: Bytes of a block (`docs/protocol.md`).
BLOCK = 1 << 20

#: What hides beside a target, in full and at its end.
HIDDEN = re.compile(r"\.oneport-[0-9a-f]{16}\.(part|journal|journal-new)")

#: A journal's header and records, and the kinds of records (`src/staged/journal.rs`).
HEADER_LEN, RECORD_LEN = 144, 48
HEADER_ROOT = slice(24, 56)
KIND_BLOCK, KIND_SYNCED = 1, 2

#: What a download's frames may take besides the blocks, as a part of them, and in any case.
FRAMES_SHARE, FRAMES_MAX = 100, 64 << 10


def hidden(target: Path, ending: str) -> Path:
    """What hides beside a target: its `part`, its `journal` or its `journal-new`."""
    return target.with_name(f".oneport-{hashlib.md5(target.name.encode()).hexdigest()[:16]}.{ending}")


def bytes_of(blocks: Iterable[int], size: int) -> int:
    """How many bytes these blocks of a file have."""
    return sum(max(0, min(BLOCK, size - index * BLOCK)) for index in blocks)


@dataclass(frozen=True)
class Journal:
    """What a journal says, check values unseen."""

    root: bytes
    #: The blocks of all records, and of those before the last sync point.
    blocks: frozenset[int]
    covered: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """The journal of this name; it says nothing if there is none."""
        content = path.read_bytes() if path.exists() else b""
        return cls(content[HEADER_ROOT], *cls.sort(content[HEADER_LEN:]))

    @staticmethod
    def sort(records: bytes) -> tuple[frozenset[int], frozenset[int]]:
        """The blocks of these records, and those of them that are covered by a sync point."""
        whole = len(records) // RECORD_LEN * RECORD_LEN
        found = [struct.unpack_from(">II", records, at) for at in range(0, whole, RECORD_LEN)]
        covered = max((value for kind, value in found if kind == KIND_SYNCED), default=0)
        blocks = [{value} if kind == KIND_BLOCK else set() for kind, value in found]
        return frozenset().union(*blocks), frozenset().union(*blocks[:covered])


@dataclass(frozen=True)
class Programs:
    """The programs under test."""

    server: Path
    client: Path
    #: `examples/part.rs`
    part: Path
    #: `examples/folder.rs`
    folder: Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every sweep has."""
    parser.add_argument("--short", action="store_true", help="a small part of the sweep, as CI runs it")
    parser.add_argument(
        "--programs", type=Path, metavar="DIR", help="test the programs of this folder instead of building them"
    )


def find_programs(folder: Path | None) -> Programs:
    """The programs in `folder`, or freshly built ones."""
    if folder is None:
        build = ["cargo", "build", "--release", "--locked", "--bins", "--example", "part", "--example", "folder"]
        subprocess.run(build, cwd=REPOSITORY, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        folder = target / "release"
    folder = folder.resolve()
    programs = Programs(folder / "server", folder / "client", folder / "examples" / "part", folder / "examples" / "folder")
    for program in (programs.server, programs.client, programs.part, programs.folder):
        if not program.is_file():
            sys.exit(f"{program} is not there; build it with: cargo build --release --bins --examples")
    return programs


def environment() -> dict[str, str]:
    """The environment of a program under test: no settings of the user, and times in UTC."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONEPORT_")}
    return kept | {"TZ": "UTC", "LC_ALL": "C"}


def skip(reason: str) -> NoReturn:
    """Ends a sweep that this machine cannot run; CI shows the line."""
    print(f"skipped: {Path(sys.argv[0]).name}: {reason}", flush=True)
    sys.exit(0)


class Tally:
    """Counts cases; says at once what is wrong with one."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def note(self, case: str, problems: Iterable[str]) -> None:
        """A case is over; it passed if there are no problems."""
        found = list(problems)
        if found:
            self.failed += 1
            print(f"FAILED {case}", *(f"    {problem}" for problem in found), sep="\n", flush=True)
        else:
            self.passed += 1

    def end(self) -> NoReturn:
        """Prints the last line and ends the sweep."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


class Server:
    """A server of the folder `root`, on a free port of this machine.

    Whatever happens, leaving the context ends it. `prefix` is put before its command line, `options` behind it.
    """

    def __init__(
        self, programs: Programs, root: Path, scratch: Path, prefix: Iterable[str] = (), *,
        state: Path | None = None, options: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.log_dir = scratch / "server-logs"
        self.state = state or scratch / "state"
        command = [
            *prefix, str(programs.server), "0", str(root), "--bind", "127.0.0.1",
            "--state", str(self.state), "--log-dir", str(self.log_dir), "--v1-pause", "1ms",
            *options,
        ]  # fmt: skip
        # Standard error goes to a file: a pipe that nobody reads would fill.
        self._stderr = (scratch / "server.err").open("w+b")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr, env=environment()
        )
        #: The port, or `None` if the server ended instead of listening.
        self.port = self._read_port()

    def _read_port(self) -> int | None:
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline().decode() if readable else ""
        if not line.startswith("listening on "):
            return None
        return int(line.rsplit(":", 1)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        self._stderr.close()

    def wait(self) -> int | None:
        """The exit status once the server and whoever traces it have ended; `None` if they do not."""
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return None
        except ValueError:  # Its output was read to the end already.
            pass
        return self.process.returncode

    def stop(self) -> int | None:
        """Asks it to stop as Ctrl+C does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.wait()

    def errors(self) -> str:
        """What it said on standard error."""
        # Its own place in the file is where it goes on writing.
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode(errors="replace")


class Meter:
    """Stands before a server and counts the bytes that it sends.

    Leaving the context ends it, with all that is under way.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.close()

    def take(self) -> int:
        """The bytes that came since this was asked last."""
        with self._lock:
            count, self._count = self._count, 0
        return count

    def _accept(self) -> None:
        while self._listener.fileno() >= 0:
            # One connection that fails is not the last one.
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                with contextlib.ExitStack() as failed:
                    failed.callback(client.close)
                    server = socket.create_connection(("127.0.0.1", self._server))
                    failed.pop_all()
                for ends, is_counted in (((client, server), False), ((server, client), True)):
                    threading.Thread(target=self._carry, args=(*ends, is_counted), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_counted: bool) -> None:
        buffer = memoryview(bytearray(BLOCK))
        with contextlib.suppress(OSError):
            while count := source.recv_into(buffer):
                if is_counted:
                    with self._lock:
                        self._count += count
                sink.sendall(buffer[:count])
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD if end is source else socket.SHUT_WR)


def fetch_command(programs: Programs, port: int, name: str, log_dir: Path, *options: str) -> list[str]:
    """The command line of a client that fetches `name`."""
    return [
        str(programs.client), "get", "-s", f"127.0.0.1:{port}", name, "--log-dir", str(log_dir),
        *CLIENT_OPTIONS, *options,
    ]  # fmt: skip


def frames(size: int) -> int:
    """The most bytes that come over the wire where so many bytes of blocks do."""
    return size + size // FRAMES_SHARE + FRAMES_MAX


def run(command: list[str], stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace",
        timeout=PATIENCE, env=environment(), check=False,
    )  # fmt: skip


def resumed(result: subprocess.CompletedProcess[str]) -> int | None:
    """What a client with `--json` says that it did not have to fetch."""
    results = [line for line in map(json.loads, result.stdout.splitlines()) if line["event"] == "result"]
    return results[-1].get("resumed") if results else None
