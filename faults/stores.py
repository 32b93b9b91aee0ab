"""A server that stores: what it is started with, what a client tells it to do, and which versions of each
file may be there then.

Imported by the commands of this folder and by nothing else.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from common import CLIENT_OPTIONS, Programs, run
from trees import HIDDEN_ANY, Leaf, Tree

#: The exit status of a client that found nothing of the name (README.md).
NOT_FOUND = 3

#: The files of a folder by their names from its top.
Files = Mapping[str, bytes]


class Keys:
    """A state folder that knows one key, and the file that holds this key."""

    def __init__(self, programs: Programs, scratch: Path) -> None:
        self._template, self.file = scratch / "state-with-a-key", scratch / "key"
        self._known_hosts = scratch / "known-hosts"
        add = [str(programs.server), "key", "add", "sweep", "--allow", "read,write,delete"]
        added = run([*add, "--state", str(self._template)])
        if added.returncode != 0:
            sys.exit(f"no key could be made: {added.stderr}")
        self.file.touch(0o600)
        self.file.write_text(added.stdout)

    def copy(self, state: Path) -> None:
        """Makes the state folder of a server that knows the key and nothing else."""
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(self._template, state)

    def options(self) -> list[str]:
        """What a client needs to show the key. It has met no server before."""
        return ["--key-file", str(self.file), "--known-hosts", str(self._known_hosts)]


@dataclass(frozen=True)
class Task:
    """What a client is told to do, with what that changes on the server."""

    words: tuple[str, ...]
    puts: Files = field(default_factory=dict)
    removes: tuple[str, ...] = ()
    #: Old names and new ones.
    moves: tuple[tuple[str, str], ...] = ()

    @classmethod
    def put(cls, source: Path, name: str, *options: str) -> Self:
        """Puts a file."""
        folder, _, base = name.rpartition("/")
        where = ("--to", folder) if folder else ()
        return cls(("put", str(source), *where, "--name", base, *options), puts={name: source.read_bytes()})

    @classmethod
    def put_folder(cls, source: Path, name: str, *options: str) -> Self:
        """Puts a folder with its files."""
        folder, _, base = name.rpartition("/")
        where = ("--to", folder) if folder else ()
        files = {str(path.relative_to(source)): path for path in sorted(source.rglob("*")) if path.is_file()}
        puts = {f"{name}/{file}": path.read_bytes() for file, path in files.items()}
        return cls(("put", "-r", str(source), *where, "--name", base, *options), puts=puts)

    @classmethod
    def remove(cls, names: list[str], *, is_folder: bool = False) -> Self:
        """Removes files, or a folder."""
        return cls(("rm", *(["-r"] if is_folder else []), *names), removes=tuple(names))

    @classmethod
    def move(cls, old: str, new: str) -> Self:
        """Gives a file or a folder a name that nothing has."""
        return cls(("mv", old, new), moves=((old, new),))

    def command(
        self, programs: Programs, port: int, keys: Keys, log_dir: Path, options: tuple[str, ...] = CLIENT_OPTIONS
    ) -> list[str]:
        """The command line of the client, with the bounds of its patience."""
        return [
            str(programs.client), self.words[0], "-s", f"127.0.0.1:{port}", *keys.options(), "--log-dir", str(log_dir),
            *options, "--json", *self.words[1:],
        ]  # fmt: skip


def beneath(name: str, folder: str) -> bool:
    """Whether a name is this one, or lies in the folder of this name."""
    return name == folder or name.startswith(f"{folder}/")


class Known:
    """Which versions each file may have, as far as clients were told; `None` is to be absent."""

    def __init__(self, files: Files) -> None:
        self.versions: dict[str, set[bytes | None]] = {name: {content} for name, content in files.items()}
        #: What is in one of two places for as long as nobody was told of it.
        self._moving: dict[str, tuple[str, bytes]] = {}

    def of(self, name: str) -> set[bytes | None]:
        return self.versions.setdefault(name, {None})

    def certain(self, name: str) -> bytes | None:
        """What a file certainly is; `None` if it is not there, or that is not certain."""
        versions = self.versions.get(name, {None})
        return next(iter(versions)) if len(versions) == 1 else None

    def begin(self, task: Task) -> None:
        """From now on any of it may have happened."""
        for name, content in task.puts.items():
            self.of(name).add(content)
        for removed in task.removes:
            for name in self._beneath(removed):
                self.of(name).add(None)
        for old, new in task.moves:
            for name in self._beneath(old):
                content, other = self.certain(name), new + name[len(old) :]
                if content is not None:
                    self._moving[name] = (other, content)
                    self.of(other).add(content)
                    self.of(name).add(None)

    def told(self, task: Task, output: str, *, is_done: bool) -> None:
        """What a client said was done is done: each thing, or all of it if it said nothing of a failure."""
        for event in map(json.loads, output.splitlines()):
            if event.get("ok") and event["event"] in ("result", "file"):
                self._happened(task, event)
        for name in task.puts if is_done else ():
            self.versions[name] = {task.puts[name]}
        for name in task.removes if is_done else ():
            self._removed(name)
        for old, new in task.moves if is_done else ():
            self._moved(old, new)

    def _happened(self, task: Task, event: dict[str, str]) -> None:
        name = f"{event['folder']}/{event['file']}" if "folder" in event and "file" in event else event.get("file", "")
        if name in task.puts:
            self.versions[name] = {task.puts[name]}
        elif name in task.removes and event.get("change") == "removed":
            self._removed(name)
        elif event.get("change") == "moved":
            self._moved(name, event["to"])

    def _removed(self, folder: str) -> None:
        for name in self._beneath(folder):
            self.versions[name] = {None}

    def _moved(self, old: str, new: str) -> None:
        for name in self._beneath(old):
            other, content = self._moving.pop(name, (new + name[len(old) :], None))
            if content is not None:
                self.versions[other], self.versions[name] = {content}, {None}

    def _beneath(self, folder: str) -> list[str]:
        return [name for name in self.versions if beneath(name, folder)]

    def wrong(self, found: Tree) -> Iterator[str]:
        """What is on the server and cannot be, or is not there and has to be. What is hidden is passed over."""
        for name, versions in self.versions.items():
            leaf = found.get(name)
            if name in found and leaf is None:
                yield f"{name} is a folder"
            elif (leaf.content if leaf else None) not in versions:
                yield f"{name} is {described(leaf)}, of {len(versions)} versions that it may have"
        for name, (other, content) in self._moving.items():
            if Leaf(content) not in [leaf and Leaf(leaf.content) for leaf in (found.get(name), found.get(other))]:
                yield f"{name} was being moved to {other} and is lost"
        for name, leaf in found.items():
            if leaf and name not in self.versions and not HIDDEN_ANY.fullmatch(Path(name).name):
                yield f"{name} is {described(leaf)}, and nobody put it there"

    def settle(self, found: Tree) -> None:
        """Takes what is there as certain."""
        for name in self.versions:
            leaf = found.get(name)
            self.versions[name] = {leaf.content if leaf else None}
        self._moving.clear()


def hidden_in(found: Tree) -> list[str]:
    """What is hidden in a folder."""
    return [name for name in found if HIDDEN_ANY.fullmatch(Path(name).name)]


def described(leaf: Leaf | None) -> str:
    if leaf is None:
        return "absent"
    return f"{len(leaf.content)} bytes, {leaf.content.count(0)} of them zero"
