"""Cuts the power of a server's file system while clients put, remove and rename. Used by `faults/powercuts`.

1. A server has its files and its state on the disk. Two clients at a time have it store files, small and large
   ones, new ones and over old ones, and folders, and remove and rename them, each in a folder of its own.
2. At a random moment the power goes. The server is killed, and the file system mounted again.
3. Each name is old, absent or new, and whole. Nothing that a client was told is lost: what was stored has its
   new bytes, what was removed stays so, what was moved is there under its new name.
4. A server starts on what is left, and what was cut is done again: then all is as it was wanted. Now and then it is
   started so that it sweeps, and nothing hidden is left.
"""

import random
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from common import PATIENCE, Programs, Server, environment, resumed, run
from disk import Disk, command
from stores import NOT_FOUND, Keys, Known, Task, hidden_in
from trees import OLDER, look, make

#: The power goes off at a random moment of so many seconds; most tasks take less than a tenth of one.
MOMENT_MAX = 0.5
#: Clients at the same time, and the folders that each has its files in.
CLIENTS, FOLDERS = 2, 3
#: Sizes of what is put: whole files, and those that are asked for block by block. How many of them are large.
SIZES = (0, 1, 700, 4096, 40_000, 65_537, 1 << 20)
LARGE_SIZES = ((1 << 20) + 1, (5 << 19) + 3, 3 << 20)
LARGE_SHARE = 3
#: Different contents of each size, and folders with so many files.
VERSIONS, TREES, TREE_FILES = 3, 3, 12
#: Files that are there at first, of each client.
OLD_FILES = 6
#: A task of each kind, as often as it is named.
KINDS = ("put",) * 5 + ("put folder", "put folder", "remove", "remove", "remove folder", "move", "move", "move folder")
#: The last things that a client was told, which are shown when they are not so.
TOLD_SHOWN = 40
#: The last lines of a server's log that are shown when it did not do what was cut.
LOG_SHOWN = 12
#: One of so many rounds ends with a sweep; what a server is told for that, and how long it may take, in seconds.
SWEEP_SHARE, SWEEPING, SWEEP_SECONDS = 25, ("--staged-age", "1s"), 8.0


class Worker(threading.Thread):
    """A client after the other, in a folder of the server, until one fails because the power is gone."""

    def __init__(self, cuts: "StoreCuts", place: str, known: Known, seed: int) -> None:
        super().__init__(name=f"client of {place}")
        self.cuts = cuts
        self.place = place
        self.known = known
        self.chance = random.Random(seed)
        self.gone = threading.Event()
        #: What was begun and not done, and what failed while there was power.
        self.cut: Task | None = None
        self.failed: list[str] = []
        #: The last things that a client was told.
        self.told: deque[str] = deque(maxlen=TOLD_SHOWN)
        self.done = 0
        self.last = 0

    def run(self) -> None:
        while not self.gone.is_set():
            task = self.plan()
            self.known.begin(task)
            self.told.append(" ".join(task.words))
            if self.tell(task):
                self.done += 1
                continue
            self.cut = task
            return

    def tell(self, task: Task) -> bool:
        """Lets a client do it; whether it was done while there was power. What it says later counts for nothing: a
        flush that is under way may be called done although it is not, because this is no real cut in that."""
        with subprocess.Popen(
            self.cuts.command(task), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env=environment(),
        ) as client:  # fmt: skip
            assert client.stdout and client.stderr
            for line in client.stdout:
                if self.gone.is_set():
                    break
                self.known.told(task, line, is_done=False)
                if '"ok"' in line:
                    self.told.append(line.strip())
            try:
                errors = client.communicate(timeout=PATIENCE)[1]
            except subprocess.TimeoutExpired:
                client.kill()
                errors = f"it did not end within {PATIENCE:.0f} s"
        if self.gone.is_set():
            return False
        if client.returncode != 0:
            self.failed.append(f"{task.words}: {errors.strip()}")
            return False
        self.known.told(task, "", is_done=True)
        return not self.gone.is_set()

    def plan(self) -> Task:
        """What is done next: something that is possible with what is certainly there."""
        there = sorted(name for name in self.known.versions if self.known.certain(name) is not None)
        kind, folder = self.chance.choice(KINDS), f"{self.place}/d{self.chance.randrange(FOLDERS)}"
        trees = sorted({"/".join(name.split("/")[:3]) for name in there if "/tree" in name})
        self.last += 1
        if kind == "put folder":
            name = self.chance.choice([*trees, f"{folder}/tree{self.last}"])
            return Task.put_folder(self.chance.choice(self.cuts.trees), name)
        if kind == "remove folder" and trees:
            return Task.remove([self.chance.choice(trees)], is_folder=True)
        if kind == "move folder" and trees:
            return Task.move(self.chance.choice(trees), f"{folder}/tree{self.last}")
        if kind == "remove" and there:
            return Task.remove(self.chance.sample(there, min(len(there), self.chance.randrange(1, 4))))
        if kind == "move" and there:
            return Task.move(self.chance.choice(there), f"{folder}/new{self.last}/moved")
        is_new = not there or self.chance.randrange(2) == 0
        name = f"{folder}/f{self.last}" if is_new else self.chance.choice(there)
        return Task.put(self.chance.choice(self.cuts.sources(self.chance)), name)


class StoreCuts:
    """Rounds on one disk, each of which ends with a cut."""

    def __init__(self, programs: Programs, scratch: Path, disk: Disk, chance: random.Random, skipping: str) -> None:
        self.programs, self.scratch, self.disk, self.chance = programs, scratch / "stores", disk, chance
        self.skipping = skipping
        self.scratch.mkdir()
        self.keys = Keys(programs, self.scratch)
        self.log_dir = self.scratch / "client-logs"
        self.root, self.state = disk.path / "stored", disk.path / "state"
        self._small, self._large = self._files(SIZES), self._files(LARGE_SIZES)
        self.trees = []
        for number in range(TREES):
            files = {f"a{index % 3}/f{index}": chance.randbytes(chance.choice(SIZES[:-1])) for index in range(TREE_FILES)}
            self.trees.append(self.scratch / f"tree{number}")
            make(self.trees[-1], files, OLDER + number)
        self.port = 0
        #: Tasks that were called done before a cut, and that were done again; large files that went on.
        self.done = self.again = self.resumed = self.swept = 0

    def _files(self, sizes: tuple[int, ...]) -> list[Path]:
        """Local files of these sizes."""
        files = [self.scratch / f"{size}-{version}" for size in sizes for version in range(VERSIONS)]
        for path in files:
            path.write_bytes(self.chance.randbytes(int(path.name.split("-")[0])))
        return files

    def sources(self, chance: random.Random) -> list[Path]:
        return self._large if chance.randrange(LARGE_SHARE) == 0 else self._small

    def command(self, task: Task) -> list[str]:
        return task.command(self.programs, self.port, self.keys, self.log_dir)

    def serve(self, *options: str) -> Server:
        fault = ("-e", f"trace={self.skipping}", "-e", f"inject={self.skipping}:retval=0")
        prefix = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", *fault] if self.skipping else []
        return Server(self.programs, self.root, self.scratch, prefix, state=self.state, options=options)

    def cut_once(self) -> Iterator[str]:
        """One round; what is wrong after it."""
        workers = self.begin()
        with self.serve() as server:
            if server.port is None:
                yield f"the server did not start: {server.errors()}"
                return
            self.port = server.port
            for worker in workers:
                worker.start()
            time.sleep(self.chance.uniform(0, MOMENT_MAX))
            for worker in workers:
                worker.gone.set()
            self.disk.cut()
            for worker in workers:
                worker.join()
            said = server.errors().splitlines()
        self.disk.unmount()
        self.disk.mount()
        found = look(self.root)
        for worker in workers:
            self.done += worker.done
            yield from (f"failed before the cut: {problem}" for problem in worker.failed)
            problems = list(worker.known.wrong({name: leaf for name, leaf in found.items() if name.startswith(worker.place)}))
            yield from problems
            yield from worker.told if problems else ()
            yield from sorted(found) if problems else ()
            yield from said if problems else ()
            worker.known.settle(found)
        with self.serve() as server:
            if server.port is None:
                yield f"no server starts on what is left: {server.errors()}"
                return
            self.port = server.port
            for worker in workers:
                problems = list(self.go_on(worker))
                yield from problems
                yield from server.errors().splitlines()[-LOG_SHOWN:] if problems else ()
        if hidden_in(look(self.root)) and self.chance.randrange(SWEEP_SHARE) == 0:
            yield from self.sweep()

    def begin(self) -> list[Worker]:
        """Old files, and clients that know them."""
        for path in (self.root, self.state):
            shutil.rmtree(path, ignore_errors=True)
        self.keys.copy(self.state)
        self.root.mkdir()
        workers = []
        for number in range(CLIENTS):
            files = {f"d{index % FOLDERS}/old{index}": self.chance.randbytes(5000) for index in range(OLD_FILES)}
            make(self.root / f"c{number}", files, OLDER)
            known = Known({f"c{number}/{name}": content for name, content in files.items()})
            workers.append(Worker(self, f"c{number}", known, self.chance.randrange(1 << 32)))
        # Nothing but this disk is flushed: others may be busy.
        command("sync", "-f", self.disk.path)
        return workers

    def go_on(self, worker: Worker) -> Iterator[str]:
        """Does again what was cut; what is wrong with that."""
        if not (task := worker.cut):
            return
        self.again += 1
        worker.known.begin(task)
        result = run(self.command(task))
        is_gone = result.returncode == NOT_FOUND and task.words[0] in ("rm", "mv")
        # Of several files that are to be removed, some may be gone.
        is_gone |= task.words[0] == "rm" and "no file" in result.stderr
        if result.returncode != 0 and not is_gone:
            yield f"{task.words} failed after the cut with {result.returncode}: {result.stderr.strip()}"
        if result.returncode == 0 and len(task.puts) == 1:
            self.resumed += bool(resumed(result))
        worker.known.told(task, result.stdout, is_done=result.returncode == 0)
        found = {name: leaf for name, leaf in look(self.root).items() if name.startswith(worker.place)}
        yield from (f"after {task.words} once more: {problem}" for problem in worker.known.wrong(found))

    def sweep(self) -> Iterator[str]:
        """What is hidden in the end, and is not even swept."""
        self.swept += 1
        with self.serve(*SWEEPING):
            deadline = time.monotonic() + SWEEP_SECONDS
            while (left := hidden_in(look(self.root))) and time.monotonic() < deadline:
                time.sleep(0.05)
        if left:
            yield f"not swept: {left}"
