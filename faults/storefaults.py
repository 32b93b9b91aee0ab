"""Servers that meet a fault while a client puts, removes or renames. Imported by `faults/syscalls`.

Whatever call fails, and wherever the server is killed: each name holds the old file, nothing or the whole
new one; what the client was told is so; what failed is told; the server goes on, or starts again; the same
command then comes to its end, goes on with the blocks that are there, and nothing hidden is left.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from common import BLOCK, CLIENT_OPTIONS, Journal, Programs, Server, bytes_of, hidden, resumed, run
from order import Order, StoreOrder
from stores import NOT_FOUND, Files, Keys, Known, Task, hidden_in
from tracing import CALLS, Call, Fault, NeverMetError, Tracer
from trees import OLDER, Leaf, differences, look, make

#: What is injected besides what is injected everywhere, at calls of these names.
MORE_FAULTS = {
    "openat": ("EMFILE", "EINTR"), "mkdirat": ("EDQUOT",), "pwrite64": ("EDQUOT", "EINTR"), "fallocate": ("EDQUOT", "EINTR"),
    "fsync": ("EDQUOT", "EINTR"), "fdatasync": ("EDQUOT", "EINTR"), "syncfs": ("EDQUOT", "EINTR"),
}  # fmt: skip

#: The file that is put block by block, the small ones of a folder, and what lies there before.
SIZE = 5 << 19
SMALL_SIZES = {"zero": 0, "one": 700, "a/two": 40_000, "a/b/three": 70_000, "a/b/four": 4096}
OLD = b"old" * 1000
#: Blocks of a file that an earlier server had when it was killed.
BEGUN = 1

#: A client that tries again at once.
RETRYING = ("--retries", "3", "--retry-delay", "10ms", "--retry-max-delay", "50ms", "--timeout", "10s", "-q")

#: What is said while the server is still at work for the client that has given up, and how long that may be, in seconds.
BUSY, BUSY_SECONDS = "at this moment", 3.0
#: And how long files may be closed after that.
QUIET_SECONDS = 0.05

#: Seconds until a killed server is seen to have ended; until one that sweeps has removed everything; and what it is
#: told for that.
KILLED_SECONDS, SWEEP_SECONDS = 0.5, 8.0
SWEEPING = ("--staged-age", "1s")


@dataclass
class Store:
    """A scenario: a client has a server store, remove or rename something. `before` is what the server has."""

    name: str
    programs: Programs
    scratch: Path
    keys: Keys
    task: Task
    before: Files = field(default_factory=dict)
    #: An earlier server was killed when it had some blocks.
    is_begun: bool = False
    #: The faults happen to what the server writes down about it, and not to the files.
    is_about_state: bool = False
    options: tuple[str, ...] = CLIENT_OPTIONS
    #: Which thread does what is up to chance.
    is_steady: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.root, self.state = self.scratch / "stored", self.scratch / "state"
        self.log_dir = self.scratch / "client-logs"
        self.tracer = Tracer(self.scratch)
        known = Known(self.before)
        known.begin(self.task)
        known.told(self.task, "", is_done=True)
        self.wanted = {name: content for name in known.versions if (content := known.certain(name)) is not None}
        #: The file that comes block by block, if that is what is put.
        large = [name for name, content in self.task.puts.items() if len(content) > BLOCK]
        self.large = self.root / large[0] if large else None

    def faults(self, calls: list[Call]) -> list[Fault]:
        """All that may happen besides the faults of every sweep."""
        return [Fault(call, kind) for call in calls for kind in MORE_FAULTS.get(call.name, ())]

    def prepare(self) -> None:
        for folder in (self.root, self.log_dir):
            shutil.rmtree(folder, ignore_errors=True)
        self.keys.copy(self.state)
        make(self.root, self.before, OLDER)
        if self.is_begun and self.large:
            # The first write to a journal is its header, each further one the record of a block.
            journal = hidden(self.large, "journal")
            kill = self.tracer.inject(Fault(Call("pwrite64", str(journal), BEGUN + 2), "KILL"), [str(journal)])
            with self.serve(kill) as server:
                self.tell(server)
            if not Journal.read(journal).blocks:
                raise NeverMetError

    def serve(self, prefix: list[str], *options: str) -> Server:
        return Server(self.programs, self.root, self.scratch, prefix, options=options)

    def tell(self, server: Server) -> subprocess.CompletedProcess[str]:
        """Lets the client do it."""
        assert server.port is not None
        return run(self.task.command(self.programs, server.port, self.keys, self.log_dir, self.options))

    def discover(self) -> list[Call]:
        for _ in range(3):
            try:
                self.prepare()
                break
            except NeverMetError:
                continue
        names = ",".join(f"?{name}" for name in (*CALLS, "sendto"))
        with self.serve(self.tracer.prefix("-e", f"trace={names}")) as server:
            began = len(self.tracer.text().splitlines())
            result = self.tell(server)
            if result.returncode != 0 or server.stop() != 0:
                sys.exit(f"{self.name}: the plain run failed: {result.stderr} {server.errors()}")
        return self.tracer.calls([self.state if self.is_about_state else self.root], began)

    def judge_order(self, calls: list[Call]) -> Iterator[str]:
        """What the plain run did not flush, or not in time, and what is not as it was wanted."""
        yield from self.complete()
        is_one = len(self.task.puts) + len(self.task.removes) + len(self.task.moves) == 1
        yield from StoreOrder(self.tracer.text(), self.root).wrong(is_one=is_one)
        if self.large:
            yield from Order(StoreOrder(self.tracer.text(), self.root).steps, self.large).wrong()

    def complete(self, *, may_hide: bool = False) -> Iterator[str]:
        """What keeps the files from being those that are wanted, or something hidden beside them."""
        found = look(self.root)
        files = {name: Leaf(leaf.content) for name, leaf in found.items() if leaf}
        if may_hide:
            files = {name: leaf for name, leaf in files.items() if name not in hidden_in(found)}
        yield from differences(files, {name: Leaf(content) for name, content in self.wanted.items()})

    def meet(self, fault: Fault) -> Iterator[str]:
        """Runs into a fault; yields what is wrong then."""
        self.prepare()
        prefix = self.tracer.inject(fault, [] if fault.call.is_anywhere else [fault.call.path])
        with self.serve(prefix) as server:
            if server.port is None:
                raise NeverMetError
            result = self.tell(server)
            if fault.is_kill:
                self.await_kill(server)
            else:
                self.tracer.detach(server.process.pid)
                self.await_quiet(server)
            if not self.tracer.injected():
                raise NeverMetError
            yield from self.judge(fault, result)
            if not fault.is_kill:
                yield from self.go_on(server)
                yield from self.judge_server(server)
        if fault.is_kill:
            with self.serve([]) as server:
                yield from self.go_on(server)
                yield from self.judge_server(server)
        yield from self.sweep(may_hide=fault.is_kill or fault.call.name.startswith("unlink"))

    def await_kill(self, server: Server) -> None:
        """Waits until the server has been killed, if it is."""
        deadline = time.monotonic() + KILLED_SECONDS
        while time.monotonic() < deadline and not (server.process.poll() is not None and self.tracer.injected()):
            time.sleep(0.005)
        if server.process.poll() is None:
            raise NeverMetError

    def await_quiet(self, server: Server) -> None:
        """Waits until the server has done with the client that has gone."""
        deadline = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < deadline:
            said = server.errors()
            if said.count("New connection from") <= said.count("Connection closed with"):
                break
            time.sleep(0.005)
        time.sleep(QUIET_SECONDS)

    def judge(self, fault: Fault, result: subprocess.CompletedProcess[str]) -> Iterator[str]:
        """What is wrong with what is there, and with what was told."""
        known = Known(self.before)
        known.begin(self.task)
        known.told(self.task, result.stdout, is_done=result.returncode == 0)
        found = look(self.root)
        yield from known.wrong(found)
        if result.returncode != 0 and not any(line.startswith("client: ") for line in result.stderr.splitlines()):
            yield f"what failed is not told: {result.stderr!r}"
        if "panicked" in result.stderr or result.returncode < 0:
            yield f"the client ended with {result.returncode}: {result.stderr.strip()}"
        met = self.tracer.met() or fault.call
        is_one = len(self.task.puts) == 1 or self.task.removes or self.task.moves
        is_flush = met.name in ("fsync", "fdatasync", "syncfs") and fault.kind != "EINTR"
        if is_flush and Path(met.path).is_relative_to(self.root):
            # Of a folder the client tries again what may work then.
            if is_one and result.returncode == 0 and self.options is not RETRYING:
                yield "success was told although a flush failed, or had not ended"
            if not fault.is_kill and met.path == str(self.large and hidden(self.large, "part")):
                yield from (f"what was not flushed is kept: {name}" for name in hidden_in(found))
        # A folder that was put stays, and one that is removed is emptied first.
        if is_one and not self.task.removes and result.returncode != 0 and not fault.is_kill and met.name != "unlinkat":
            empty = [name for name, leaf in found.items() if leaf is None and not any(self.root.joinpath(name).iterdir())]
            old = {str(path) for name in self.before for path in Path(name).parents}
            yield from (f"the folder {name} was made for nothing" for name in empty if name not in old)

    def go_on(self, server: Server) -> Iterator[str]:
        """The same once more, without a fault."""
        if server.port is None or server.process.poll() is not None:
            yield f"the server does not run: {server.errors()}"
            return
        have, recorded = look(self.root), 0
        if self.large and hidden(self.large, "part").exists() and hidden(self.large, "part").stat().st_size:
            size = len(self.wanted[str(self.large.relative_to(self.root))])
            recorded = bytes_of(Journal.read(hidden(self.large, "journal")).blocks, size)
        result, deadline = self.tell(server), time.monotonic() + BUSY_SECONDS
        while BUSY in result.stderr and time.monotonic() < deadline:
            result = self.tell(server)
        gone = (*self.task.removes, *(old for old, _ in self.task.moves))
        may_be_gone = result.returncode == NOT_FOUND and any(name not in have for name in gone)
        if result.returncode != 0 and not may_be_gone:
            yield f"the next run failed with {result.returncode}: {result.stderr.strip()}"
            return
        if self.large and (said := resumed(result)) != recorded and result.returncode == 0:
            yield f"the next run resumed {said} bytes instead of {recorded}"
        yield from (f"after the next run {problem}" for problem in self.complete(may_hide=True))

    def judge_server(self, server: Server) -> Iterator[str]:
        if (status := server.stop()) != 0:
            yield f"the server ended with {status}: {server.errors()}"
        if "panicked" in server.errors():
            yield f"panicked: {server.errors()}"

    def sweep(self, *, may_hide: bool) -> Iterator[str]:
        """What is hidden in the end, and is not even swept."""
        left = hidden_in(look(self.root))
        if left and not may_hide:
            yield f"left behind: {left}"
        elif left:
            with self.serve([], *SWEEPING):
                deadline = time.monotonic() + SWEEP_SECONDS
                while (left := hidden_in(look(self.root))) and time.monotonic() < deadline:
                    time.sleep(0.05)
            if left:
                yield f"not swept: {left}"


def stores(programs: Programs, scratch: Path) -> Iterator[Store]:
    """The scenarios."""
    scratch.mkdir()
    keys = Keys(programs, scratch)
    source = scratch / "source"
    make(source, {name: os.urandom(size) for name, size in SMALL_SIZES.items()}, OLDER)
    large, single = scratch / "large", scratch / "single"
    large.write_bytes(os.urandom(SIZE))
    single.write_bytes(os.urandom(9000))
    where = {"programs": programs, "scratch": scratch, "keys": keys}
    old = {"in/large": OLD, "in/other": b"other"}
    yield Store("put: large file", task=Task.put(large, "made/below/large", "-j", "1"), **where)
    yield Store("put: large file over an old one", task=Task.put(large, "in/large"), before=old, **where)
    yield Store("put: large file gone on with", task=Task.put(large, "large", "-j", "1"), is_begun=True, **where)
    yield Store("put: large file, tried again", task=Task.put(large, "made/large"), options=RETRYING, **where)
    yield Store("put: small file", task=Task.put(single, "made/below/single"), **where)
    yield Store("put: small file over an old one", task=Task.put(single, "in/large"), before=old, **where)
    yield Store("put: folder", task=Task.put_folder(source, "made/tree"), **where)
    there = {"tree/one": OLD, "tree/a/b/four": b"older" * 99, "tree/a/mine": b"mine"}
    yield Store("put: folder that exists", task=Task.put_folder(source, "tree"), before=there, **where)
    yield Store("rm: file", task=Task.remove(["in/large"]), before=old, **where)
    yield Store("rm: folder", task=Task.remove(["tree"], is_folder=True), before=there | old, **where)
    yield Store("put: small file, its state", task=Task.put(single, "single"), is_about_state=True, **where)
    yield Store("put: folder, its state", task=Task.put_folder(source, "tree"), is_about_state=True, **where)
    yield Store("rm: file, its state", task=Task.remove(["in/large"]), before=old, is_about_state=True, **where)
    yield Store("mv: file to a new folder", task=Task.move("in/large", "made/below/large"), before=old, **where)
    yield Store("mv: folder", task=Task.move("tree", "in/tree"), before=old | there, **where)
