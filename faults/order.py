"""In which order the system calls of a receiver have to come, so that no power cut shows anything wrong.

No cut of one file system shows all of it: an ext4 writes its names and its flushed files in one order
whatever was asked for. So the calls themselves are looked at. Imported by `faults/syscalls`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import BLOCK, HEADER_LEN, HIDDEN, KIND_BLOCK, KIND_SYNCED, RECORD_LEN, hidden

#: A thread, the time if it was asked for (`-ttt`), a call; and how long it took (`-T`).
BEGUN = re.compile(r"(\d+) +(?:(\d+\.\d+) )?(\w+)\((.*)")
RESUMED = re.compile(r"(\d+) +(?:(\d+\.\d+) )?<\.\.\. (\w+) resumed>")
TOOK = re.compile(r"<(\d+\.\d+)>$")
#: An END, which begins what is sent.
END = re.compile(r'\d+ +(?:\d+\.\d+ )?sendto\(\d+<socket:[^>]*>, "(?:\\x[0-9a-f]{2}){4}\\x45')
RECORD = re.compile(r'"((?:\\x[0-9a-f]{2}){8})"')


@dataclass
class Step:
    """One call that succeeded. Times are numbers of lines in strace's log."""

    name: str
    path: str
    words: str
    begun: int
    ended: int
    #: When it ended, in seconds since 1970, if that is in the log.
    at: float = 0.0

    @property
    def last(self) -> int | None:
        """The last number among its arguments: an offset, a length."""
        numbers = re.findall(r", (\d+)\)? *(?:= |<unf|$)", self.words)
        return int(numbers[-1]) if numbers else None

    @property
    def named(self) -> str:
        """The path of what a call names in an open folder; empty if it does not."""
        return named_in(self.words)

    @property
    def made(self) -> Path | None:
        """The folder that it makes, if it makes one."""
        if self.name not in ("mkdir", "mkdirat"):
            return None
        return Path(self.named or self.path)

    @property
    def record(self) -> tuple[int, int] | None:
        """The kind and the value of the record that it writes, if it writes one."""
        if not (found := RECORD.search(self.words)):
            return None
        content = bytes.fromhex(found.group(1).replace("\\x", ""))
        return int.from_bytes(content[:4]), int.from_bytes(content[4:])


def named_in(arguments: str) -> str:
    """The path of what a call names in an open folder; empty if it does not."""
    found = re.search(r'(?:^|, )\d+<(/[^>]*)>, "([^"/][^"]*)"', arguments)
    return f"{found.group(1)}/{found.group(2)}" if found else ""


def paths_of(arguments: str) -> list[str]:
    """The paths that a call is about: those of its open files, else the first one that it names."""
    opened = re.findall(r"(?:^|, )\d+<(/[^>]*)>", arguments)
    named = re.search(r'"(/[^"]*)"', arguments)
    return opened or ([named.group(1)] if named else [])


def steps_of(log: str) -> list[Step]:
    """The calls in a log that succeeded, as they began."""
    steps: list[Step] = []
    running: dict[str, Step] = {}
    for number, line in enumerate(log.splitlines()):
        if (match := RESUMED.match(line)) and match.group(1) in running:
            step = running.pop(match.group(1))
            step.ended, step.at = number, float(match.group(2) or 0)
            if "= -1" not in line:
                steps.append(step)
        elif match := BEGUN.match(line):
            thread, at, name, words = match.groups()
            if not (paths := paths_of(words)):
                continue
            took = TOOK.search(words)
            step = Step(name, paths[0], words, number, number, float(at or 0) + float(took.group(1) if took else 0))
            if "<unfinished" in line:
                running[thread] = step
            elif "= -1" not in line:
                steps.append(step)
    return sorted(steps, key=lambda step: step.begun)


class Order:
    """What is wrong with the order of the calls of one receiver of `target`."""

    def __init__(self, steps: list[Step], target: Path) -> None:
        self.steps = steps
        self.target = target
        self.part, self.journal, self.new = (
            str(hidden(target, ending)) for ending in ("part", "journal", "journal-new")
        )

    def of(self, name: str, path: str) -> list[Step]:
        return [step for step in self.steps if re.fullmatch(name, step.name) and path in (step.path, step.named)]

    def flushed(self, path: str, after: int, before: float = float("inf"), calls: str = "fsync|fdatasync") -> bool:
        """Whether a flush of `path` began after one time and had ended before another."""
        return any(step.begun > after and step.ended < before for step in self.of(calls, path))

    def wrong(self) -> Iterator[str]:
        yield from self.commit()
        yield from self.records()
        yield from self.replaced()
        yield from self.forgotten()

    def folders(self) -> list[str]:
        """The folders that got a new name: the target's, and that of each one that was made."""
        made = [made.parent for step in self.steps if (made := step.made) and made in self.target.parents]
        return sorted({str(folder) for folder in (self.target.parent, *made)})

    def commit(self) -> Iterator[str]:
        """The file is flushed, gets its name, loses its journal; then every changed folder is flushed."""
        renames = self.of("rename.*", self.part)
        if len(renames) != 1:
            yield f"{len(renames)} renames"
            return
        changes = self.of("pwrite64|ftruncate|fallocate|fchmod", self.part)
        last = max((change.ended for change in changes), default=-1)
        if not self.flushed(self.part, last, renames[0].begun, "fsync"):
            yield "the file is not flushed between its last change and its rename"
        after = renames[0].ended
        written = self.of("pwrite64", self.journal)
        removed = [step for step in self.of("unlink.*", self.journal) if step.begun > after]
        if written and not removed:
            yield "the journal is not removed after the rename"
        after = max([after, *(step.ended for step in removed)])
        if not self.flushed(str(self.target.parent), after):
            yield f"{self.target.parent} is not flushed after the rename and the removal of the journal"
        for step in self.steps:
            # What was made stays as it is; once it is on the disk it need not be flushed again.
            if not (made := step.made) or made not in self.target.parents:
                continue
            synced = any(sync.begun > step.ended for sync in self.steps if sync.name == "syncfs")
            if not synced and not self.flushed(str(made.parent), step.ended):
                yield f"{made.parent} is not flushed after {made.name} was made in it"

    def records(self) -> Iterator[str]:
        """Bytes, then their record; flush of the bytes, then the sync point, then flush of that."""
        written = self.of("pwrite64", self.part)
        ends: dict[int, int] = {}
        for step in self.of("pwrite64", self.journal):
            if (record := step.record) is None or step.last is None or step.last < HEADER_LEN:
                continue
            number, (kind, value) = (step.last - HEADER_LEN) // RECORD_LEN, record
            ends[number] = step.ended
            # A block is written in one piece or in several.
            pieces = [data for data in written if data.last is not None and data.last // BLOCK == value]
            if kind == KIND_BLOCK and not (pieces and all(data.ended < step.begun for data in pieces)):
                yield f"block {value} is recorded before it is written"
            if kind == KIND_SYNCED:
                last = max((end for number, end in ends.items() if number < value), default=-1)
                if not self.flushed(self.part, last, step.begun):
                    yield f"a sync point covers {value} records and the part is not flushed after them"
                if not self.flushed(self.journal, step.ended):
                    yield "the journal is not flushed after a sync point"
                is_made = any("O_EXCL" in made.words for made in self.of("openat", self.journal))
                for folder in self.folders() if is_made else []:
                    if not self.flushed(folder, -1, step.begun):
                        yield f"{folder} is not flushed before the first sync point"

    def sync_points(self) -> int:
        """How many there are."""
        records = [step.record for step in self.of("pwrite64", self.journal)]
        return sum(1 for record in records if record and record[0] == KIND_SYNCED)

    def replaced(self) -> Iterator[str]:
        """A journal that takes another one's place is on the disk before it does, and its name before
        anything of the part changes."""
        for rename in self.of("rename.*", self.new):
            last = max((step.ended for step in self.of("pwrite64", self.new)), default=-1)
            if not self.flushed(self.new, last, rename.begun):
                yield "a new journal is not flushed before it takes the place of the old one"
            changes = self.of("pwrite64|ftruncate|fallocate", self.part)
            change = min((step.begun for step in changes if step.begun > rename.ended), default=float("inf"))
            if not self.flushed(str(self.target.parent), rename.ended, change):
                yield "the folder is not flushed between a new journal's rename and the next change of the part"
            if any(step.begun < rename.begun for step in changes):
                yield "the part is changed before its new journal is in place"

    def forgotten(self) -> Iterator[str]:
        """A journal is empty on the disk before it is removed, unless its part has got its name."""
        named = min((step.begun for step in self.of("rename.*", self.part)), default=float("inf"))
        for unlink in self.of("unlink.*", self.journal):
            emptied = [step.ended for step in self.of("ftruncate", self.journal) if step.last == 0]
            if unlink.begun < named and not (
                emptied and self.flushed(self.journal, max(emptied), unlink.begun)
            ):
                yield "a journal is removed that is not empty on the disk"
        begun = [step for step in self.of("ftruncate", self.part) if step.last == 0]
        if begun and Path(self.journal).exists():
            yield "a journal is left beside a part that was begun anew"


class FolderOrder:
    """What is wrong with the order of the calls of one receiver of the folder `target`."""

    CHANGES = "pwrite64|ftruncate|fallocate|fchmod|fchmodat|utimensat|openat|mkdirat|unlinkat|renameat2?|rename"

    def __init__(self, steps: list[Step], target: Path) -> None:
        self.steps = steps
        self.target = target
        self.staged = str(hidden(target, "part"))
        self.lock = str(hidden(target, "lock"))

    def of(self, names: str, path: str) -> list[Step]:
        return [step for step in self.steps if re.fullmatch(names, step.name) and step.path == path]

    def changes(self, beneath: str) -> list[Step]:
        """What changes a folder or anything in it. Opening changes nothing, unless it makes a file."""
        inside = [step for step in self.steps if step.path == beneath or step.path.startswith(f"{beneath}/")]
        inside = [step for step in inside if re.fullmatch(self.CHANGES, step.name) and step.path != self.lock]
        return [step for step in inside if step.name != "openat" or "O_CREAT" in step.words]

    def synced(self, path: str, after: float, before: float = float("inf")) -> bool:
        """Whether a flush of the file system began after one time and had ended before another."""
        return any(step.begun > after and step.ended < before for step in self.of("syncfs", path))

    def flushed(self, path: str, after: float, before: float = float("inf")) -> bool:
        return any(step.begun > after and step.ended < before for step in self.of("fsync|fdatasync", path))

    def new(self) -> Iterator[str]:
        """Everything is flushed, then the folder gets its name, then what holds it is flushed."""
        renames = self.of("rename.*", self.staged)
        if len(renames) != 1:
            yield f"{len(renames)} renames of the folder"
            return
        rename = renames[0]
        last = max((step.ended for step in self.changes(self.staged) if step is not rename), default=-1)
        if last > rename.begun:
            yield "the folder is changed after it got its name"
        if not self.synced(self.staged, last, rename.begun):
            yield "the file system is not flushed between the last change and the rename"
        made = [Path(step.path) for step in self.steps if step.name == "mkdir"]
        made = [folder.parent for folder in made if folder in self.target.parents]
        for folder in sorted({str(folder) for folder in (self.target.parent, *made)}):
            if not self.flushed(folder, rename.ended):
                yield f"{folder} is not flushed after the rename"
        yield from self.notes()

    def notes(self) -> Iterator[str]:
        """A note that vouches for files: the clock, a flush, then the note, then a flush of that."""
        for note in self.sync_points():
            clocks = [step.ended for step in self.of("utimensat", self.lock) if step.ended < note.begun]
            if not self.synced(self.staged, max(clocks, default=-1), note.begun):
                yield "a note is made without a flush between its clock and it"
            if not self.flushed(self.lock, note.ended):
                yield "a note is not flushed"

    def sync_points(self) -> list[Step]:
        """The notes but the first one, which vouches for nothing new."""
        return self.of("pwrite64", self.lock)[1:]

    def existing(self) -> Iterator[str]:
        """A file is flushed after its last change and before it gets its name; in the end all is flushed."""
        named = -1
        for rename in [step for step in self.steps if step.name.startswith("renameat")]:
            if not (found := re.search(r'"(\.oneport-[0-9a-f]{16}-[0-9a-f]+\.part)"', rename.words)):
                continue
            named = max(named, rename.ended)
            path = f"{rename.path}/{found.group(1)}"
            changed = self.of("pwrite64|ftruncate|utimensat|fchmod", path)
            last = max((step.ended for step in changed), default=-1)
            if last < 0:
                yield f"{path} was never written"
            if not self.synced(str(self.target), last, rename.begun):
                yield f"{path} is not flushed between its last change and its rename"
        if named < 0:
            yield "no file got its name"
        last = max([named, *(step.ended for step in self.changes(str(self.target)))])
        if not self.synced(str(self.target), last):
            yield "the file system is not flushed after the last change"
        removed = [step for step in self.steps if step.name == "unlink" and step.path.endswith(".lock")]
        if not removed or not self.flushed(str(self.target), removed[-1].ended):
            yield "the folder is not flushed after its lock was removed"


class StoreOrder:
    """What is wrong with the order of the calls of a server that stores, removes or renames beneath `root`."""

    FLUSHES = "fsync|fdatasync|syncfs"
    CHANGES = "pwrite64|ftruncate|fallocate|fchmod|utimensat"

    def __init__(self, log: str, root: Path) -> None:
        self.steps = [step for step in steps_of(log) if Path(step.path).is_relative_to(root)]
        self.ends = [number for number, line in enumerate(log.splitlines()) if END.match(line)]

    def of(self, names: str) -> list[Step]:
        return [step for step in self.steps if re.fullmatch(names, step.name)]

    def flushed(self, path: str, after: int, before: float = float("inf")) -> bool:
        """Whether a flush of `path`, or of its file system, began after one time and had ended before another."""
        flushes = [step for step in self.of(self.FLUSHES) if step.path == path or step.name == "syncfs"]
        return any(step.begun > after and step.ended < before for step in flushes)

    def wrong(self, *, is_one: bool) -> Iterator[str]:
        """`is_one`: all of it is one change, with one answer."""
        yield from self.names()
        yield from self.contents()
        flushes = [step.ended for step in self.of(self.FLUSHES)]
        if not self.ends:
            yield "nothing was answered"
        elif flushes and self.ends[0 if is_one else -1] < max(flushes):
            yield "it is answered before the last flush"

    def names(self) -> Iterator[str]:
        """Whoever gets, loses or changes a name: the folder is flushed after that."""
        removed = {step.named for step in self.of("unlinkat")}
        for step in self.of("mkdirat|renameat2?|unlinkat"):
            if step.name == "unlinkat" and is_hidden(step.named):
                continue
            for folder in set(paths_of(step.words)):
                if folder not in removed and not self.flushed(folder, step.ended):
                    yield f"{folder} is not flushed after {step.name} of {step.named}"

    def contents(self) -> Iterator[str]:
        """What was staged is flushed before it gets its name."""
        for rename in self.of("renameat2?"):
            if not Path(rename.named).name.startswith(".oneport-"):
                continue
            changes = [step.ended for step in self.of(self.CHANGES) if step.path == rename.named]
            if not self.flushed(rename.named, max(changes, default=-1), rename.begun):
                yield f"{rename.named} is not flushed between its last change and its rename"


def is_hidden(path: str) -> bool:
    """Whether a path is of something that hides beside a target."""
    return bool(HIDDEN.fullmatch(Path(path).name))
