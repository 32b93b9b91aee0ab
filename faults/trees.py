"""Whole folders under test: what is served, what lies here, and what is wrong with it.

Imported by the commands of this folder and by nothing else.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: What hides in or beside a folder while it is received, or a file of it.
HIDDEN_ANY = re.compile(r"\.oneport-[0-9a-f]{16}(-[0-9a-f]+)?\.(part|journal|journal-new|lock|mode)")
#: A small file that waits for its name in a folder that exists.
WAITING = re.compile(r"\.oneport-[0-9a-f]{16}-[0-9a-f]+\.part")

#: When the newer and the older files were modified, in nanoseconds since 1970.
NEWER, OLDER = 1_600_000_000_123_456_789, 1_500_000_000_000_000_007


@dataclass(frozen=True)
class Leaf:
    """A file: its bytes and, if that matters, its time in nanoseconds."""

    content: bytes
    modified: int | None = None


#: The files of a folder by their names from its top; folders are `None`.
Tree = dict[str, Leaf | None]


def make(folder: Path, files: Mapping[str, bytes | None], modified: int) -> None:
    """Makes files, and folders where there are no bytes. Pages of zeros become holes where a name has
    "sparse" in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            if "sparse" not in name:
                file.write(content)
            else:
                file.truncate(len(content))
                for at in range(0, len(content), 4096):
                    if any(page := content[at : at + 4096]):
                        os.pwrite(file.fileno(), page, at)
        os.utime(path, ns=(modified, modified))


def look(folder: Path) -> Tree:
    """What is in a folder."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        # A server may still be at work on what nobody waits for any more.
        with contextlib.suppress(FileNotFoundError):
            is_file = path.is_file() and not path.is_symlink()
            leaf = Leaf(path.read_bytes(), path.stat().st_mtime_ns) if is_file else None
            found[str(path.relative_to(folder))] = leaf
    return found


def is_leaf(found: Leaf | None, wanted: Leaf | None) -> bool:
    """Whether a file is as it is to be; the time counts if it is told."""
    if found is None or wanted is None:
        return found is wanted
    return found.content == wanted.content and wanted.modified in (None, found.modified)


def differences(found: Tree, wanted: Tree) -> Iterator[str]:
    """What keeps a folder from being another, as far as there are names without a time that is told."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is too much"
        elif not is_leaf(found[name], wanted[name]):
            yield f"{name} is {described(found[name])}"


def impure(found: Tree, allowed: Iterable[Tree], *, hidden: bool = True) -> Iterator[str]:
    """What is under a name and is none of the allowed versions of it, nor hidden where that may be. The
    time counts for no version: it is set after the name was given to a large file."""
    versions = list(allowed)
    for name, leaf in found.items():
        if HIDDEN_ANY.fullmatch(Path(name).name):
            if not hidden:
                yield f"left behind: {name}"
            continue
        wanted = [version[name] for version in versions if name in version]
        if not wanted:
            yield f"left behind: {name}"
        elif not any(is_leaf(leaf, other and Leaf(other.content)) for other in wanted):
            yield f"{name} is {described(leaf)}"


def described(leaf: Leaf | None) -> str:
    if leaf is None:
        return "a folder"
    return f"{len(leaf.content)} bytes, {leaf.content.count(0)} of them zero, of {leaf.modified}"
