"""What the fault sweeps share: the programs under test, a running server, and the count of cases.

Imported by the commands of this folder and by nothing else. Only Python's standard library is used.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
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


@dataclass(frozen=True)
class Programs:
    """The programs under test."""

    server: Path
    client: Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every sweep has."""
    parser.add_argument("--short", action="store_true", help="a small part of the sweep, as CI runs it")
    parser.add_argument(
        "--programs", type=Path, metavar="DIR", help="test the programs of this folder instead of building them"
    )


def find_programs(folder: Path | None) -> Programs:
    """The programs in `folder`, or freshly built ones."""
    if folder is None:
        subprocess.run(["cargo", "build", "--release", "--locked", "--bins"], cwd=REPOSITORY, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        folder = target / "release"
    folder = folder.resolve()
    programs = Programs(folder / "server", folder / "client")
    for program in (programs.server, programs.client):
        if not program.is_file():
            sys.exit(f"{program} is not there; build it with: cargo build --release")
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

    Whatever happens, leaving the context ends it. `prefix` is put before its command line.
    """

    def __init__(self, programs: Programs, root: Path, scratch: Path, prefix: Iterable[str] = ()) -> None:
        self.log_dir = scratch / "server-logs"
        self.state = scratch / "state"
        command = [
            *prefix, str(programs.server), "0", str(root), "--bind", "127.0.0.1",
            "--state", str(self.state), "--log-dir", str(self.log_dir), "--v1-pause", "1ms",
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
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")


def fetch_command(programs: Programs, port: int, name: str, log_dir: Path, *options: str) -> list[str]:
    """The command line of a client that fetches `name`."""
    return [
        str(programs.client), "get", "-s", f"127.0.0.1:{port}", name, "--log-dir", str(log_dir),
        *CLIENT_OPTIONS, *options,
    ]  # fmt: skip


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=PATIENCE, env=environment(), check=False,
    )  # fmt: skip
