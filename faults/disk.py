"""A file system in memory whose power can be cut.

Imported by the commands of this folder and by nothing else.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: linux/fs/ext4: `_IOR('X', 125, __u32)`, and the way of going down that flushes not even the journal.
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2

#: Size of the file system, in bytes.
IMAGE_SIZE = 512 << 20


class Unsupported(Exception):
    """This machine cannot do what a sweep needs."""


def command(*words: str | Path) -> None:
    """Runs a tool of the system that must succeed."""
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unsupported(f"{words[0]}: {(result.stderr or result.stdout).strip()}")


class Disk:
    """An ext4 file system in memory whose power can be cut."""

    def __init__(self, image: Path, mountpoint: Path) -> None:
        self.image = image
        self.path = mountpoint
        with image.open("wb") as file:
            file.truncate(IMAGE_SIZE)
        # No lazy initialisation: nothing writes but the downloads.
        command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        mountpoint.mkdir()
        self.mount()

    def mount(self) -> None:
        # The loop device goes away with the mount.
        command("mount", "-t", "ext4", "-o", "loop", self.image, self.path)

    def unmount(self) -> None:
        command("umount", self.path)

    def cut(self) -> None:
        """All that is not on the disk by now is lost."""
        with self.open() as descriptor:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))

    @contextlib.contextmanager
    def open(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
