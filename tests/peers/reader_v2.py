#!/usr/bin/env python3
"""A client of version 2 of the oneport protocol, written from docs/protocol.md and nothing else.

It shows that the page is enough to write one, and that the server does what the page says: whatever
it does otherwise is refused with a message. It is a reader for tests, not for daily use: it holds a
file in memory.

    reader_v2.py HOST PORT stat NAME [--root]
    reader_v2.py HOST PORT get NAME [--range OFFSET:LENGTH]... [--proof] [--facts]   bytes to stdout
    reader_v2.py HOST PORT values NAME [--range OFFSET:LENGTH]...
    reader_v2.py HOST PORT many NAME...             all of them at once over one connection
    reader_v2.py HOST PORT list NAME [--recursive] [--links] [--exclude PATTERN]... [--cut N]
                                                    N: a new connection after every N frames
    reader_v2.py HOST PORT tree NAME [--flight N] [--cut N] ...
                                                    all files of a folder, N of them under way at a time
    reader_v2.py HOST PORT ping
    reader_v2.py HOST PORT cancel NAME              takes some bytes, cancels, asks something else
    reader_v2.py vectors docs/protocol.md           checks itself against the page's examples

Facts are JSON, on stdout, for `get` on stderr. It ends with the code of the ERROR if there was one, 70
if the server speaks version 1, 71 if the server violated the protocol, 72 if the network failed, 73 if
bytes or values are not what the root says.
"""

import argparse
import hashlib
import json
import os
import re
import select
import socket
import struct
import sys
import threading
from pathlib import Path

from blake3_pure import digest, parent, subtree

BLOCK = 1 << 20
BLOCKS_MAX = 1 << 24
DATA_MAX = 1_048_576
CLIENT_FRAME_MAX = 16_384
DATA_FRAME_MAX = 1_048_589
SERVER_FRAME_MAX = 65_536
FIELDS_MAX = 1024
HELLO = b"?oneport/2?"
NAME_MAX = 4096
RANGES_MAX = 256
PAIRS_MAX = 64
CURSOR_MAX = 8192
PATTERN_MAX = 1024
PATTERNS_MAX = 32
WINDOW_DEFAULT = 16_777_216
ANSWER_PATIENCE = 2
# The server says WAIT every 2 s; a machine may be busy.
FRAME_PATIENCE = 20
NONE16 = bytes(16)

STAT, GET, WINDOW, CANCEL, PING, LIST = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
WELCOME, FILE, VALUES, DATA, END, ERROR, PONG, WAIT, ENTRIES = range(0x41, 0x4A)
NAMES = {
    WELCOME: "WELCOME", FILE: "FILE", VALUES: "VALUES", DATA: "DATA", END: "END", ERROR: "ERROR",
    PONG: "PONG", WAIT: "WAIT", ENTRIES: "ENTRIES",
}  # fmt: skip
# The shortest body of each.
SHORTEST = {WELCOME: 0, FILE: 73, VALUES: 33, DATA: 9, END: 33, ERROR: 2, PONG: 8, WAIT: 0, ENTRIES: 2}
PROVEN_FIRST, VALUES_ONLY = 1, 2
RECURSIVE, FOLLOW_LINKS, ITSELF = 1, 2, 4
EXCLUDE, INCLUDE = 0, 1
IS_FILE, IS_FOLDER, IS_LINK, IS_CLOSED = 1, 2, 3, 4
CANCELLED = 130


class Ended(Exception):
    """An end that is not success, with the exit status that it means."""

    status = 1


class Version1(Ended):
    """The server does not speak version 2."""

    status = 70


class Violation(Ended):
    """The server did what the page does not allow."""

    status = 71


class Network(Ended):
    """The connection failed."""

    status = 72


class NotProven(Ended):
    """Bytes or values are not those that the root stands for."""

    status = 73


class Refused(Ended):
    """An ERROR of the server."""

    def __init__(self, code, text):
        super().__init__(f"the server says {code}: {ascii(text)}")
        self.code, self.status = code, code if 0 < code < 256 else 1


# ---- What a client says


def frame(kind, number, body=b""):
    """A frame of the client, with its length."""
    length = 5 + len(body)
    if length > CLIENT_FRAME_MAX:
        raise ValueError(f"a frame of {length} bytes")
    return struct.pack(">IBI", length, kind, number) + body


def named(name):
    if not 1 <= len(name) <= NAME_MAX:
        raise ValueError(f"a name of {len(name)} bytes")
    return struct.pack(">H", len(name)) + name


def stat_frame(number, name, flags):
    return frame(STAT, number, bytes([flags]) + named(name))


def get_frame(number, name, flags=0, transfer=NONE16, have=0, identity=NONE16, ranges=()):
    body = bytes([flags]) + named(name) + transfer + struct.pack(">Q", have) + identity
    body += struct.pack(">H", len(ranges)) + b"".join(struct.pack(">QQ", *each) for each in ranges)
    return frame(GET, number, body)


def list_frame(number, name, flags=0, cursor=b"", patterns=()):
    if len(name) > NAME_MAX or len(cursor) > CURSOR_MAX or len(patterns) > PATTERNS_MAX:
        raise ValueError("a name, a cursor or patterns that no LIST has")
    body = struct.pack(">BH", flags, len(name)) + name + struct.pack(">H", len(cursor)) + cursor
    body += bytes([len(patterns)])
    return frame(LIST, number, body + b"".join(struct.pack(">BH", kind, len(p)) + p for kind, p in patterns))


def hello(first=None, window=WINDOW_DEFAULT, need=()):
    """The hello as a version 1 request; without the first request where it does not fit."""
    fields = ["minor=0"]
    if need:
        fields.append("need=" + ",".join(need))
    if window != WINDOW_DEFAULT:
        fields.append(f"window={window}")
    text = HELLO + "&".join(fields).encode()
    asked = b"" if first is None else b"&first=" + first[4:].hex().encode()
    is_whole = len(text + asked) <= FIELDS_MAX
    text += asked if is_whole else b""
    return struct.pack(">I", len(text)) + text, is_whole and first is not None


# ---- What a server says


def parse_fields(text):
    """KEY=VALUE&KEY=VALUE as a dictionary."""
    if len(text) > FIELDS_MAX:
        raise Violation(f"{len(text)} bytes of fields")
    fields = {}
    for field in text.split(b"&"):
        match = re.fullmatch(rb"([a-z-]+)=([!-%'-<>-~]*)", field)
        if match is None:
            raise Violation(f"a field that is none: {field!r}")
        key, value = (part.decode() for part in match.groups())
        if key in fields:
            raise Violation(f"the field {key} occurs twice")
        fields[key] = value
    return fields


def parse_decimal(fields, key, default):
    text = fields.get(key)
    if text is None:
        return default
    if re.fullmatch(r"[0-9]{1,19}", text) is None:
        raise Violation(f"{key} is not a number: {text!r}")
    return int(text)


class Frames:
    """Cuts the server's bytes into frames, however they arrive."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data

    def next(self):
        """(kind, number, body) of the next frame that is not optional, or None."""
        while len(self.buffer) >= 4:
            length = int.from_bytes(self.buffer[:4], "big")
            is_data = len(self.buffer) < 5 or self.buffer[4] == DATA
            if not 5 <= length <= (DATA_FRAME_MAX if is_data else SERVER_FRAME_MAX):
                raise Violation(f"a frame of {length} bytes")
            if len(self.buffer) < 4 + length:
                return None
            kind, number = struct.unpack_from(">BI", self.buffer, 4)
            body = bytes(self.buffer[9 : 4 + length])
            del self.buffer[: 4 + length]
            if kind >= 0x80:
                continue
            if kind not in NAMES:
                raise Violation(f"a frame of the unknown kind {kind:#04x}")
            if len(body) < SHORTEST[kind]:
                raise Violation(f"{NAMES[kind]} has only {len(body)} bytes")
            return kind, number, body
        return None


class File:
    """A FILE."""

    def __init__(self, body):
        self.size, self.seconds, self.nanoseconds, self.mode = struct.unpack_from(">QqII", body)
        self.identity, flags, root = body[24:40], body[40], body[41:73]
        self.root = root if flags & 1 else None
        self.blocks = max(1, -(-self.size // BLOCK))
        if self.blocks > BLOCKS_MAX:
            raise Violation(f"a file of {self.size} bytes")
        if self.nanoseconds > 999_999_999:
            raise Violation(f"{self.nanoseconds} nanoseconds")
        if self.identity == NONE16:
            raise Violation("the identity is zero")
        if self.root is None and any(root):
            raise Violation("a root that is said to be unknown")

    def facts(self):
        return {
            "size": self.size,
            "seconds": self.seconds,
            "nanoseconds": self.nanoseconds,
            "mode": self.mode,
            "identity": self.identity.hex(),
            "root": self.root and self.root.hex(),
        }


def parse_error(body):
    text = body[2:]
    if len(text) > 1024:
        raise Violation(f"an error's text of {len(text)} bytes")
    try:
        return Refused(int.from_bytes(body[:2], "big"), text.decode())
    except UnicodeDecodeError as error:
        raise Violation("an error's text is not UTF-8") from error


# ---- The tree


def left_count(count):
    """How many of `count` blocks, at least two, are in the left part."""
    return 1 << (count - 1).bit_length() - 1


def merge(values, is_root=True):
    """The value of a run of blocks, or the root."""
    if len(values) == 1:
        return values[0]
    left = left_count(len(values))
    return parent(merge(values[:left], False), merge(values[left:], False), is_root)


def wanted_blocks(ranges, size):
    """The blocks of these ranges of a file, ascending; of all of it without ranges. None if a range
    does not lie in the file."""
    if not ranges:
        return list(range(max(1, -(-size // BLOCK))))
    blocks = []
    for offset, length in ranges:
        end = min(offset + length, size)
        if offset >= size and not (offset == 0 == size):
            return None
        first = offset // BLOCK
        blocks += range(first, max(first + 1, -(-end // BLOCK)))
    return sorted(set(blocks))


# ---- Requests


class Stat:
    """A STAT under way."""

    def __init__(self, name, root=False):
        self.name, self.flags = name, 1 if root else 0
        self.file, self.waits, self.done, self.error = None, 0, False, None

    def encode(self, number):
        return stat_frame(number, self.name, self.flags)

    def take(self, kind, body):
        """Takes a frame; the bytes by which the window may grow."""
        if kind != FILE:
            raise Violation(f"{NAMES[kind]} as an answer to STAT")
        self.file, self.done = File(body), True
        if self.flags & 1 and self.file.root is None:
            raise Violation("STAT asked for the root, FILE does not have it")
        return 0

    def facts(self):
        return self.file.facts() | {"waits": self.waits}


class Get:
    """A GET under way: knows at each moment what may come next."""

    def __init__(self, name, flags=0, ranges=(), window=WINDOW_DEFAULT, grants=True, have=0,
                 transfer=NONE16, identity=NONE16):  # fmt: skip
        self.name, self.flags, self.ranges, self.grants = name, flags, list(ranges), grants
        self.have, self.transfer, self.identity = have, transfer, identity
        self.credit, self.received, self.frames = window, 0, 0
        self.file, self.end_root, self.waits, self.done, self.error = None, None, 0, False, None
        self.blocks, self.values, self.proven = {}, {}, False
        self.pairs = 0
        # What is still to come: for a walk of the tree nodes (first, count, value, is_root), the next
        # one last; without the root the blocks, the next one last.
        self.nodes, self.queue = [], []
        self.has_no_such_range = False
        # The block under way, its value if one is known, and what has come of it.
        self.block, self.block_value, self.bytes = None, None, bytearray()

    def encode(self, number):
        return get_frame(number, self.name, self.flags, self.transfer, self.have, self.identity, self.ranges)

    def take(self, kind, body):
        if self.file is None and kind != FILE:
            raise Violation(f"{NAMES[kind]} before FILE")
        if self.has_no_such_range:
            raise Violation(f"{NAMES[kind]} for a range that the file does not have")
        return {FILE: self.take_file, VALUES: self.take_values, DATA: self.take_data, END: self.take_end}[kind](
            body
        )

    def take_file(self, body):
        if self.file is not None:
            raise Violation("a second FILE")
        self.file = File(body)
        if self.flags & (PROVEN_FIRST | VALUES_ONLY) and self.file.root is None:
            raise Violation("FILE does not have the root that was asked for")
        wanted = wanted_blocks(self.ranges, self.file.size)
        if wanted is None:
            # The server is to say so: nothing but its ERROR may come.
            self.has_no_such_range = True
            return 0
        self.wanted, self.whole = set(wanted), len(wanted) == self.file.blocks
        if self.file.root is None:
            self.queue = wanted[::-1]
            self.advance_queue()
        else:
            self.nodes = [(0, self.file.blocks, self.file.root, True)]
            self.advance_nodes()
        return 0

    def length(self, block):
        return min(BLOCK, self.file.size - block * BLOCK)

    def advance_queue(self):
        """Goes on to the next block that carries bytes, without a root."""
        while self.block is None and self.queue:
            self.begin(self.queue.pop(), None)

    def advance_nodes(self):
        """Goes on to the next block that carries bytes, or the next parent."""
        while self.block is None and self.nodes:
            first, count, value, is_root = self.nodes[-1]
            if not any(block in self.wanted for block in range(first, first + count)):
                self.nodes.pop()
            elif count == 1:
                self.nodes.pop()
                if not is_root:
                    self.values[first] = value
                if not self.flags & VALUES_ONLY:
                    self.begin(first, (value, is_root))
            else:
                return

    def begin(self, block, value):
        self.block, self.block_value, self.bytes = block, value, bytearray()
        if self.length(block) == 0:
            self.finish_block()

    def finish_block(self):
        data, block = bytes(self.bytes), self.block
        if self.block_value is not None:
            value, is_root = self.block_value
            if (digest(data) if is_root else subtree(data, block * 1024)) != value:
                raise NotProven(f"block {block} is not what its value says")
        self.blocks[block], self.block = data, None

    def take_values(self, body):
        if self.file.blocks == 1:
            raise Violation("VALUES for a file of one block")
        form, values = body[0], body[1:]
        if self.file.root is None:
            if form != 1:
                raise Violation(f"VALUES of form {form} where the root is not known")
            if self.block is None or self.block_value is not None or self.bytes:
                raise Violation("a value that belongs to no block")
            self.block_value = (values[:32], False)
            self.values[self.block] = values[:32]
            return 0
        if form != 0:
            raise Violation(f"VALUES of form {form} where the root is known")
        if len(values) % 64 or not 1 <= len(values) // 64 <= PAIRS_MAX:
            raise Violation(f"VALUES with {len(values)} bytes of pairs")
        for i in range(0, len(values), 64):
            left, right = values[i : i + 32], values[i + 32 : i + 64]
            if self.block is not None or not self.nodes:
                raise Violation("a pair for a parent behind the next block")
            first, count, value, is_root = self.nodes.pop()
            if parent(left, right, is_root) != value:
                raise NotProven(f"the parent of blocks {first} to {first + count - 1} has other children")
            split = left_count(count)
            self.nodes += [(first + split, count - split, right, False), (first, split, left, False)]
            self.pairs += 1
            self.advance_nodes()
        return 0

    def take_data(self, body):
        offset, data = int.from_bytes(body[:8], "big"), body[8:]
        if len(data) > DATA_MAX:
            raise Violation(f"DATA of {len(data)} bytes")
        if self.block is None:
            raise Violation("DATA where no block is expected")
        if self.file.root is None and self.file.blocks > 1 and self.block_value is None:
            raise Violation(f"block {self.block} is not preceded by its value")
        if offset != self.block * BLOCK + len(self.bytes):
            raise Violation(f"DATA from {offset} on, not {self.block * BLOCK + len(self.bytes)}")
        if len(self.bytes) + len(data) > self.length(self.block):
            raise Violation(f"DATA crosses the end of block {self.block}")
        self.credit -= len(data)
        if self.credit < 0:
            raise Violation(f"DATA beyond the window by {-self.credit} bytes")
        self.received += len(data)
        self.frames += 1
        self.bytes += data
        if len(self.bytes) == self.length(self.block):
            self.finish_block()
            self.advance_queue() if self.file.root is None else self.advance_nodes()
        missing = sum(map(self.length, self.wanted)) - self.received
        grows = len(data) if self.grants and missing > self.credit else 0
        self.credit += grows
        return grows

    def take_end(self, body):
        if self.block is not None or self.nodes or self.queue:
            raise Violation("END before all was sent")
        self.end_root = body[1:33] if body[0] & 1 else None
        if self.file.root is not None and self.end_root != self.file.root:
            raise Violation("END has another root than FILE, or none")
        if self.whole and self.end_root is None:
            raise Violation("the whole file was asked for, END has no root")
        self.done = True
        if self.file.root is not None:
            self.proven = True
        elif self.end_root is not None and len(self.blocks) == self.file.blocks:
            values = [self.values[block] for block in sorted(self.blocks)] if self.file.blocks > 1 else []
            if (merge(values) if values else digest(self.blocks[0])) != self.end_root:
                raise NotProven("the bytes are not what END's root says")
            self.proven = True
        return 0

    def content(self):
        """The bytes that were asked for, without those that came because blocks are whole."""
        if not self.ranges:
            return b"".join(self.blocks[block] for block in sorted(self.blocks))
        out = bytearray()
        for offset, length in self.ranges:
            end = min(offset + length, self.file.size)
            for block in range(offset // BLOCK, -(-end // BLOCK)):
                data, start = self.blocks[block], block * BLOCK
                out += data[max(0, offset - start) : end - start]
        return bytes(out)

    def facts(self):
        file = {} if self.file is None else self.file.facts()
        return file | {
            "file_root": file.get("root"),
            "root": self.end_root and self.end_root.hex(),
            "proven": self.proven,
            "blocks": sorted(self.blocks),
            "values": {block: value.hex() for block, value in sorted(self.values.items())},
            "pairs": self.pairs,
            "received": self.received,
            "data_frames": self.frames,
            "waits": self.waits,
        }


class Entry:
    """Something in a folder."""

    HEAD = struct.Struct(">BBQqIIH")

    def __init__(self, body, at):
        if len(body) < at + self.HEAD.size:
            raise Violation(f"an entry of {len(body) - at} bytes")
        fields = self.HEAD.unpack_from(body, at)
        self.kind, flags, self.size, self.seconds, self.nanoseconds, self.mode, length = fields
        self.sparse = bool(flags & 1)
        self.end = at + self.HEAD.size + length
        self.name = body[self.end - length : self.end]
        if self.kind not in (IS_FILE, IS_FOLDER, IS_LINK, IS_CLOSED):
            raise Violation(f"an entry of the kind {self.kind}")
        if length > NAME_MAX or len(body) < self.end:
            raise Violation(f"a name of {length} bytes")
        if self.nanoseconds > 999_999_999 or self.mode > 0o777:
            raise Violation(f"{self.nanoseconds} nanoseconds, mode {self.mode:o}")


class List:
    """A LIST under way."""

    def __init__(self, name, flags=0, patterns=(), window=WINDOW_DEFAULT, cursor=b""):
        self.name, self.flags, self.patterns, self.cursor = name, flags, list(patterns), cursor
        self.credit, self.waits, self.done, self.error = window, 0, False, None
        self.entries, self.frames, self.folders, self.seen = [], 0, {b""}, set()

    def encode(self, number):
        return list_frame(number, self.name, self.flags, self.cursor, self.patterns)

    def take(self, kind, body):
        if kind == END:
            if body[0] & 1 or any(body[1:33]):
                raise Violation("END of a listing has a root")
            self.done = True
            return 0
        if kind != ENTRIES:
            raise Violation(f"{NAMES[kind]} as an answer to LIST")
        if self.credit <= 0:
            raise Violation(f"ENTRIES with a window of {self.credit}")
        self.credit -= len(body)
        self.frames += 1
        length = int.from_bytes(body[:2], "big")
        if length > CURSOR_MAX or len(body) < 2 + length:
            raise Violation(f"a cursor of {length} bytes")
        self.cursor, at = body[2 : 2 + length], 2 + length
        while at < len(body):
            entry = Entry(body, at)
            at = entry.end
            self.check(entry)
            self.entries.append(entry)
        self.credit += len(body)
        return len(body)

    def check(self, entry):
        is_itself = self.flags & ITSELF and not self.entries and entry.kind == IS_FOLDER
        first_is_file = self.entries and not self.entries[0].name and self.entries[0].kind == IS_FILE
        if first_is_file or (self.entries and not entry.name):
            raise Violation("a file that was asked for has other entries beside it")
        if entry.name in self.seen:
            raise Violation(f"{entry.name!r} comes twice")
        self.seen.add(entry.name)
        if not entry.name:
            if entry.kind != IS_FILE and not is_itself:
                raise Violation("an empty name for what is no file")
            return
        parts = entry.name.split(b"/")
        if any(part in (b"", b".", b"..") or part.lower().startswith(b".oneport-") for part in parts):
            raise Violation(f"the name {entry.name!r}")
        if b".oneport" in (part.lower() for part in parts) or b"\0" in entry.name:
            raise Violation(f"the name {entry.name!r}")
        if len(parts) > 1 and not self.flags & RECURSIVE:
            raise Violation(f"{entry.name!r} in a listing that is not recursive")
        if b"/".join(parts[:-1]) not in self.folders:
            raise Violation(f"{entry.name!r} before its folder")
        if entry.kind == IS_FOLDER:
            self.folders.add(entry.name)

    def facts(self):
        kinds = {IS_FILE: "file", IS_FOLDER: "folder", IS_LINK: "link", IS_CLOSED: "closed"}
        found = {
            entry.name.hex(): {
                "kind": kinds[entry.kind], "size": entry.size, "sparse": entry.sparse, "mode": entry.mode,
                "seconds": entry.seconds, "nanoseconds": entry.nanoseconds,
            }
            for entry in self.entries
        }  # fmt: skip
        return {"entries": found, "frames": self.frames, "waits": self.waits}


# ---- Connections


class Connection:
    """A connection of version 2."""

    def __init__(self, stream, window=WINDOW_DEFAULT, segment=1 << 16, need=()):
        self.stream, self.window, self.segment, self.need = stream, window, segment, need
        self.frames, self.number, self.flying, self.pongs = Frames(), 0, {}, []
        self.welcome, self.order = None, []

    def number_for(self, request):
        self.number += 1
        self.flying[self.number] = request
        return self.number

    def send(self, data):
        try:
            self.stream.sendall(data)
        except OSError as error:
            raise Network(f"sending: {error}") from error

    def receive(self):
        """More bytes; none at the end."""
        try:
            if not select.select([self.stream], [], [], FRAME_PATIENCE)[0]:
                raise Network(f"nothing came for {FRAME_PATIENCE} s")
            return self.stream.recv(self.segment)
        except OSError as error:
            raise Network(f"receiving: {error}") from error

    def open(self, first=None):
        """Says hello, with a first request, and waits for WELCOME."""
        number = self.number_for(first) if first is not None else 0
        asked = first.encode(number) if first is not None else None
        text, is_asked = hello(asked, self.window, self.need)
        self.send(text)
        try:
            if not select.select([self.stream], [], [], ANSWER_PATIENCE)[0]:
                raise Version1(f"no answer within {ANSWER_PATIENCE} s: speak version 1")
            begun = self.stream.recv(1)
        except OSError as error:
            raise Version1(f"{error} before an answer: speak version 1") from error
        if begun != b"\0":
            what = "an answer of version 1" if begun else "the connection was closed before an answer"
            raise Version1(f"{what}: speak version 1")
        self.frames.feed(begun)
        kind, number_of, body = self.next_frame()
        if kind == ERROR and number_of == 0:
            raise parse_error(body)
        if kind != WELCOME or number_of != 0:
            raise Violation(f"{NAMES[kind]} for {number_of} instead of WELCOME")
        fields = parse_fields(body)
        parse_decimal(fields, "minor", 0)
        for capability in filter(None, fields.get("may", "").split(",")):
            if re.fullmatch(r"[a-z0-9-]+", capability) is None:
                raise Violation(f"a capability that is none: {capability!r}")
        self.requests_max = parse_decimal(fields, "requests", 1)
        self.welcome = fields
        if asked is not None and not is_asked:
            self.send(asked)
        return number

    def ask(self, request):
        if len(self.flying) >= self.requests_max:
            raise ValueError("too many requests in flight")
        number = self.number_for(request)
        self.send(request.encode(number))
        return number

    def next_frame(self):
        while (found := self.frames.next()) is None:
            data = self.receive()
            if not data:
                left = len(self.frames.buffer)
                raise Network(f"the server closed the connection, {left} bytes into a frame")
            self.frames.feed(data)
        return found

    def step(self):
        """Takes one frame; the number that it belonged to."""
        kind, number, body = self.next_frame()
        self.order.append(number)
        if kind == PONG:
            self.pongs.append((number, body[:8]))
            return number
        if kind == ERROR and number == 0:
            raise parse_error(body)
        if kind == WELCOME:
            raise Violation("a second WELCOME")
        request = self.flying.get(number)
        if request is None:
            raise Violation(f"{NAMES[kind]} for {number}, which is not in flight")
        if kind == WAIT:
            request.waits += 1
        elif kind == ERROR:
            request.error, request.done = parse_error(body), True
        else:
            grows = request.take(kind, body)
            if grows:
                self.send(frame(WINDOW, number, struct.pack(">Q", grows)))
        if request.done:
            del self.flying[number]
        return number

    def finish(self, *requests):
        while not all(request.done for request in requests):
            self.step()

    def ping(self, data):
        self.send(frame(PING, 0, data))
        while not self.pongs:
            self.step()
        if (answer := self.pongs.pop(0)) != (0, data):
            raise Violation(f"PONG has {answer}, PING had {data!r}")


def connect(options):
    try:
        stream = socket.create_connection((options.host, options.port), timeout=FRAME_PATIENCE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise Network(f"connecting: {error}") from error
    return Connection(stream, options.window, options.segment, options.need)


# ---- Commands


def new_get(options, name, flags=0, grants=True):
    return Get(name, flags, options.range, options.window, grants, options.have, options.transfer,
               options.identity)  # fmt: skip


def run_one(options, request):
    connection = connect(options)
    if options.no_first:
        connection.open()
        connection.ask(request)
    else:
        connection.open(request)
    connection.finish(request)
    if request.error is not None:
        raise request.error
    return connection


def say(facts, stream=None):
    print(json.dumps(facts), file=stream or sys.stdout, flush=True)


def run_stat(options):
    request = Stat(options.names[0], options.root)
    run_one(options, request)
    say(request.facts())


def run_get(options):
    request = new_get(options, options.names[0], PROVEN_FIRST if options.proof else 0)
    run_one(options, request)
    if options.facts:
        say(request.facts(), sys.stderr)
    sys.stdout.buffer.write(request.content())
    sys.stdout.flush()


def new_list(options, flags):
    flags |= FOLLOW_LINKS if options.links else 0
    patterns = [(EXCLUDE, os.fsencode(pattern)) for pattern in options.exclude]
    return List(options.names[0], flags, patterns, options.window)


def run_list(options):
    request = new_list(options, RECURSIVE if options.recursive else 0)
    while not request.done:
        connection = connect(options)
        request.credit, stop = options.window, request.frames + options.cut
        connection.open(request)
        while not request.done and (not options.cut or request.frames < stop):
            connection.step()
        connection.stream.close()
    if request.error is not None:
        raise request.error
    say(request.facts())


class Tree:
    """A folder that is listed, and whose files are fetched while it is."""

    def __init__(self, options):
        self.options, self.top = options, options.names[0]
        self.listing = new_list(options, RECURSIVE)
        self.taken, self.waiting, self.files, self.refused = 0, [], {}, {}
        self.most, self.connections = 0, 0

    def remote(self, name):
        """What the server calls a file of the listing."""
        return b"/".join(part for part in (self.top, name) if part)

    def work(self):
        """Goes on over one connection, until all is there or the connection is to be cut."""
        connection, under_way, frames = connect(self.options), {}, 0
        self.connections += 1
        if self.listing.done:
            connection.open()
        else:
            self.listing.credit = self.options.window
            connection.open(self.listing)
        at_once = min(self.options.flight, connection.requests_max)
        while self.waiting or connection.flying:
            while self.waiting and len(connection.flying) < at_once:
                name = self.waiting.pop(0)
                request = Get(self.remote(name), window=self.options.window)
                under_way[connection.ask(request)] = name, request
            self.most = max(self.most, len(connection.flying))
            number = connection.step()
            self.find()
            if number in under_way and under_way[number][1].done:
                self.settle(*under_way.pop(number))
            frames += 1
            if frames == self.options.cut:
                break
        connection.stream.close()
        # What had not come to its end is asked for again.
        self.waiting = [name for name, _ in under_way.values()] + self.waiting

    def find(self):
        """Notes what the listing has brought."""
        new = self.listing.entries[self.taken :]
        self.taken += len(new)
        self.waiting += [entry.name for entry in new if entry.kind == IS_FILE]

    def settle(self, name, request):
        if request.error is not None:
            self.refused[name.hex()] = request.error.code
            return
        if not request.proven:
            raise NotProven(f"nothing proves {name!r}")
        file, data = request.file, request.content()
        self.files[name.hex()] = {
            "size": len(data), "md5": hashlib.md5(data).hexdigest(), "mode": file.mode,
            "seconds": file.seconds, "nanoseconds": file.nanoseconds,
        }  # fmt: skip


def run_tree(options):
    tree = Tree(options)
    while not tree.listing.done or tree.waiting:
        tree.work()
    if tree.listing.error is not None:
        raise tree.listing.error
    say({"files": tree.files, "refused": tree.refused, "entries": len(tree.listing.entries), "most": tree.most,
         "connections": tree.connections})  # fmt: skip


def run_values(options):
    request = new_get(options, options.names[0], VALUES_ONLY)
    run_one(options, request)
    if request.received:
        raise Violation("DATA although only values were asked for")
    say(request.facts())


def run_many(options):
    connection = connect(options)
    requests = [new_get(options, name) for name in options.names]
    connection.open(requests[0])
    for request in requests[1:]:
        connection.ask(request)
    connection.finish(*requests)
    answers = []
    for request in requests:
        if request.error is not None:
            answers.append({"error": request.error.code})
        else:
            md5 = hashlib.md5(request.content()).hexdigest()
            answers.append(request.facts() | {"md5": md5, "name": os.fsdecode(request.name)})
    say({"answers": answers, "order": connection.order, "welcome": connection.welcome})


def run_ping(options):
    connection = connect(options)
    connection.open()
    for data in (b"oneport2", bytes(8), bytes(range(248, 256))):
        connection.ping(data)
    say({"pongs": 3, "welcome": connection.welcome})


def run_cancel(options):
    """Cancels a request that cannot end by itself: its file is larger than its window, which stays."""
    connection = connect(options)
    request = new_get(options, options.names[0], grants=False)
    number = connection.open(request)
    while not request.done and request.received == 0:
        connection.step()
    if request.done:
        raise request.error or Violation("the file ended before its window did")
    connection.send(frame(CANCEL, number))
    connection.finish(request)
    code = request.error.code if request.error is not None else None
    # Ignored, both: the request has ended.
    connection.send(frame(CANCEL, number) + frame(WINDOW, number, struct.pack(">Q", 1000)))
    again = Stat(options.names[0])
    connection.ask(again)
    connection.finish(again)
    say({"code": code, "received": request.received, "after": again.facts()})


# ---- The page's examples


def page_examples(page):
    """The hex blocks of the page by their label."""
    found = {}
    for label, text in re.findall(r"^```hex (\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        digits = "".join(line.split("#")[0] for line in text.splitlines())
        found[label] = bytes.fromhex(digits)
    return found


def pattern(size):
    """0, 1, …, 250, 0, 1, … ."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class Checks:
    """What was checked, and what did not hold."""

    def __init__(self):
        self.count, self.failed = 0, []

    def equal(self, what, got, wanted):
        self.count += 1
        if got != wanted:
            self.failed.append(f"{what}: {got!r}, not {wanted!r}"[:500])

    def raises(self, what, kind, action):
        self.count += 1
        try:
            action()
        except kind:
            return
        except Ended as error:
            self.failed.append(f"{what}: {type(error).__name__}: {error}")
            return
        self.failed.append(f"{what}: was taken")


class Script:
    """A stream that says what was written down, some bytes at a time, and notes what it is told."""

    def __init__(self, answer, at_a_time):
        self.near, far = socket.socketpair()
        self.far = far
        self.told = b""
        self.writer = threading.Thread(target=self.play, args=(answer, at_a_time), daemon=True)
        self.writer.start()

    def play(self, answer, at_a_time):
        try:
            for i in range(0, len(answer), at_a_time):
                self.far.sendall(answer[i : i + at_a_time])
            self.far.shutdown(socket.SHUT_WR)
            while data := self.far.recv(1 << 16):
                self.told += data
        except OSError:
            pass

    def end(self):
        self.near.close()
        self.writer.join(10)
        self.far.close()
        return self.told


def answer_to(answer, request, at_a_time=1 << 20, window=WINDOW_DEFAULT):
    """Lets a request have this answer; what the server was told."""
    script = Script(answer, at_a_time)
    try:
        connection = Connection(script.near, window)
        connection.open(request)
        connection.finish(request)
        if request.error is not None:
            raise request.error
    finally:
        told = script.end()
    return told


def server_frame(kind, body=b"", number=1):
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


def tree_values(values):
    """The values of all nodes of the tree, by (first block, count)."""
    nodes = {}

    def walk(first, count):
        if count == 1:
            nodes[first, count] = values[first]
        else:
            left = left_count(count)
            pair = walk(first, left), walk(first + left, count - left)
            nodes[first, count] = parent(*pair, count == len(values))
        return nodes[first, count]

    walk(0, len(values))
    return nodes


def spoken(data, wanted, warm=True, only_values=False, piece=DATA_MAX):
    """The frames of an answer to a GET, a list, as the page says that they come."""
    count = max(1, -(-len(data) // BLOCK))
    values = [subtree(data[i * BLOCK : (i + 1) * BLOCK], i * 1024) for i in range(count)] if count > 1 else []
    root = merge(values) if values else digest(data)
    head = struct.pack(">QqII", len(data), 1_700_000_000, 0, 0o644) + b"\x11" * 16
    frames = [server_frame(WELCOME, b"minor=0&requests=1024&may=", 0)]
    frames.append(server_frame(FILE, head + (b"\1" + root if warm else bytes(33))))
    nodes = tree_values(values) if values else {}
    pairs = []

    def flush():
        while pairs:
            frames.append(server_frame(VALUES, b"\0" + b"".join(pairs[:PAIRS_MAX])))
            del pairs[:PAIRS_MAX]

    def block(index):
        if only_values:
            return
        flush()
        start, end = index * BLOCK, min((index + 1) * BLOCK, len(data))
        if not warm and values:
            frames.append(server_frame(VALUES, b"\1" + values[index]))
        for at in range(start, end, piece):
            frames.append(server_frame(DATA, struct.pack(">Q", at) + data[at : min(at + piece, end)]))

    def walk(first, size):
        if not any(first <= index < first + size for index in wanted):
            return
        if size == 1:
            block(first)
            return
        left = left_count(size)
        pairs.append(nodes[first, left] + nodes[first + left, size - left])
        walk(first, left)
        walk(first + left, size - left)

    if warm:
        walk(0, count)
        flush()
    else:
        for index in wanted:
            block(index)
    frames.append(server_frame(WAIT))
    frames.append(server_frame(0x80, b"whatever"))
    known = warm or len(wanted) == count
    frames.append(server_frame(END, b"\1" + root if known else bytes(33)))
    return frames


def check_page(checks, page):
    examples = page_examples(page)
    name = b"x"
    asked, is_asked = hello(get_frame(1, name))
    checks.equal("hello", (asked, is_asked), (examples["hello"], True))
    fields = parse_fields(examples["hello"][4 + len(HELLO) :])
    checks.equal("hello's fields", fields, {"minor": "0", "first": get_frame(1, name)[4:].hex()})
    checks.equal("stat", Stat(name, True).encode(1), examples["stat"])
    checks.equal("get", Get(name).encode(1), examples["get"])
    ranged = Get(name, PROVEN_FIRST, [(BLOCK, 1)], have=BLOCK, transfer=bytes(range(1, 17)),
                 identity=bytes(range(0x11, 0x21)))  # fmt: skip
    checks.equal("get-range", ranged.encode(2), examples["get-range"])
    listed = List(name, RECURSIVE | FOLLOW_LINKS | ITSELF, [(INCLUDE, b"a*b"), (EXCLUDE, b"*")], cursor=b"\xaa\xbb")
    checks.equal("list", listed.encode(1), examples["list"])
    listed.take(ENTRIES, examples["entries"][9:])
    checks.equal("entries", [(entry.name, entry.kind, entry.size, entry.sparse) for entry in listed.entries],
                 [(b"d", IS_FOLDER, 4096, False), (b"d/\xffab", IS_FILE, 1 << 20, True)])  # fmt: skip
    checks.equal("entries' cursor", listed.cursor, b"\xcc\xdd")
    again = examples["entries"][9:]
    checks.raises("entries twice", Violation, lambda: listed.take(ENTRIES, again))
    long = hello(get_frame(1, b"n" * 600))
    checks.equal("a long name in the hello", (long[1], len(long[0]) < 100), (False, True))
    for at_a_time in (1, 2, 3, 7, 1000):
        request = Get(name)
        told = answer_to(examples["answer-2"], request, at_a_time)
        checks.equal(f"answer-2, {at_a_time} at a time", request.content(), b"hello")
        checks.equal("answer-2, proven", (request.proven, request.file.mode, request.file.seconds),
                     (True, 0o644, 1_700_000_000))  # fmt: skip
        checks.equal("what was asked", told, examples["hello"])
    answer = examples["answer-2"]
    welcome = answer[: 4 + int.from_bytes(answer[:4], "big")]
    request = Get(name)
    checks.raises("error", Refused, lambda: answer_to(welcome + examples["error"], request))
    checks.equal("error", (request.error.code, str(request.error)), (3, "the server says 3: 'no such file'"))
    checks.raises("a version 1 refusal", Version1, lambda: answer_to(examples["refusal"], Get(name)))
    checks.raises("a version 1 answer", Version1, lambda: answer_to(examples["answer"], Get(name)))
    checks.raises("nothing", Version1, lambda: answer_to(b"", Get(name)))
    # Any byte of the answer that carries the file, its root or its place, changed.
    answer = examples["answer-2"]
    for at in (40, 122, 130, 144, 150, 159):
        changed = answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]
        what = f"answer-2, byte {at} changed"
        checks.raises(what, Ended, lambda changed=changed: answer_to(changed, Get(name)))
    checks.raises("answer-2, cut", Network, lambda: answer_to(answer[:-1], Get(name)))


def check_roots(checks, page):
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `([0-9a-f]{64})` \|$", page, re.MULTILINE)
    checks.equal("a table of roots", len(rows) >= 12, True)
    for size, count, root in rows:
        data = pattern(int(size))
        blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)] or [b""]
        checks.equal(f"N of {size}", len(blocks), int(count))
        checks.equal(f"digest of {size}", digest(data).hex(), root)
        if len(blocks) > 1:
            values = [subtree(block, 1024 * i) for i, block in enumerate(blocks)]
            checks.equal(f"values of {size}, merged", merge(values).hex(), root)
    told = re.findall(r"block (\d) (?:of the file of 1048577 bytes is )?`([0-9a-f]{64})`", page)
    checks.equal("two values", len(told), 2)
    data = pattern(1_048_577)
    for index, value in told:
        part = data[int(index) * BLOCK :][:BLOCK]
        checks.equal(f"value {index}", subtree(part, 1024 * int(index)).hex(), value)


def check_answers(checks):
    """Answers that are right are taken, and each way to be wrong is refused."""
    data = pattern(2 * BLOCK + 5)
    for size in (0, 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5):
        for warm in (True, False):
            request = Get(b"x")
            blocks = range(max(1, -(-size // BLOCK)))
            answer_to(b"".join(spoken(data[:size], blocks, warm)), request)
            checks.equal(f"{size}, {warm}", (request.content() == data[:size], request.proven), (True, True))
    ranged = [(BLOCK + 7, 9), (2 * BLOCK, BLOCK)]
    wanted = data[BLOCK + 7 : BLOCK + 16] + data[2 * BLOCK :]
    for warm in (True, False):
        request = Get(b"x", ranges=ranged)
        answer_to(b"".join(spoken(data, [1, 2], warm)), request)
        checks.equal(f"ranges, {warm}", (request.content(), request.proven), (wanted, warm))
    request = Get(b"x", VALUES_ONLY)
    answer_to(b"".join(spoken(data, range(3), only_values=True)), request)
    checks.equal("values only", (len(request.values), request.pairs, request.blocks), (3, 2, {}))
    request = Get(b"x", window=1000)
    told = answer_to(b"".join(spoken(data[:5000], [0], piece=1000)), request, window=1000)
    checks.equal("a small window", told.count(frame(WINDOW, 1, struct.pack(">Q", 1000))), 4)

    warm, cold = spoken(data, range(3)), spoken(data, range(3), warm=False)
    kinds = [each[4] for each in warm]
    root_end, zero_end = warm[-1], server_frame(END, bytes(33))
    first_data, first_values = kinds.index(DATA), kinds.index(VALUES)

    def with_(frames, at, *new):
        return [*frames[:at], *new, *frames[at + 1 :]]

    moved = struct.pack(">Q", 1)
    wrong = {
        "a frame missing": (Violation, with_(warm, first_data)),
        "a frame twice": (Violation, with_(warm, first_data, *[warm[first_data]] * 2)),
        "values missing": (Violation, with_(warm, first_values)),
        "values of the wrong form": (Violation, with_(warm, first_values, server_frame(VALUES, b"\1" + bytes(32)))),
        "other values": (NotProven, with_(warm, first_values, server_frame(VALUES, b"\0" + bytes(64)))),
        "another value": (NotProven, with_(cold, 2, server_frame(VALUES, b"\1" + bytes(32)))),
        "no value": (Violation, with_(cold, 2)),
        "half a pair": (Violation, with_(warm, first_values, server_frame(VALUES, b"\0" + bytes(96)))),
        "another offset": (Violation, with_(warm, first_data, server_frame(DATA, moved + b"x"))),
        "other bytes": (NotProven, with_(warm, first_data, server_frame(DATA, bytes(8 + DATA_MAX)))),
        "too many bytes": (Violation, with_(warm, first_data, server_frame(DATA, bytes(9 + DATA_MAX)))),
        "an early end": (Violation, with_(warm, first_data, root_end)),
        "no root at the end": (Violation, [*cold[:-1], zero_end]),
        "another root at the end": (NotProven, [*cold[:-1], server_frame(END, b"\1" + bytes(32))]),
        "another root than FILE's": (Violation, [*warm[:-1], server_frame(END, b"\1" + bytes(32))]),
        "an unknown kind": (Violation, with_(warm, 2, server_frame(0x49))),
        "a client's kind": (Violation, with_(warm, 2, server_frame(GET, bytes(50)))),
        "FILE twice": (Violation, with_(warm, 1, warm[1], warm[1])),
        "another number": (Violation, with_(warm, 1, server_frame(FILE, warm[1][9:], 2))),
        "DATA before FILE": (Violation, with_(warm, 1, warm[first_data])),
        "a second WELCOME": (Violation, with_(warm, 0, warm[0], warm[0])),
        "no WELCOME": (Violation, warm[1:]),
        "a frame of 4 bytes": (Violation, with_(warm, 1, struct.pack(">I", 4))),
        "a frame that is too long": (Violation, with_(warm, 1, struct.pack(">I", DATA_FRAME_MAX + 1))),
        "an END that is too long": (Violation, with_(warm, 1, struct.pack(">IB", SERVER_FRAME_MAX + 1, END))),
        "an error for the connection": (Refused, with_(warm, 2, server_frame(ERROR, b"\0\x08", 0))),
        "a close": (Network, warm[:-1]),
    }
    for what, (kind, frames) in wrong.items():
        checks.raises(what, kind, lambda frames=frames: answer_to(b"".join(frames), Get(b"x")))
    narrow = b"".join(spoken(data[:5000], [0], piece=1001))
    request = Get(b"x", window=1000)
    checks.raises("beyond the window", Violation, lambda: answer_to(narrow, request, window=1000))
    # Of four blocks, the pair for blocks 2 and 3 comes behind the bytes of block 1, not with the others.
    four = spoken(pattern(3 * BLOCK + 1), range(4))
    (first, second) = (each for each in four if each[4] == VALUES)
    joined = server_frame(VALUES, first[9:] + second[10:])
    early = [joined if each is first else each for each in four if each is not second]
    checks.raises("pairs too early", Violation, lambda: answer_to(b"".join(early), Get(b"x")))
    checks.raises("no root", Violation, lambda: answer_to(b"".join(cold), Get(b"x", PROVEN_FIRST)))


def run_vectors(path):
    checks, page = Checks(), Path(path).read_text(encoding="utf-8")
    check_page(checks, page)
    check_roots(checks, page)
    check_answers(checks)
    for failed in checks.failed:
        print(failed, file=sys.stderr)
    print(f"{checks.count - len(checks.failed)} passed, {len(checks.failed)} failed")
    return 1 if checks.failed else 0


# ---- The command line


def parse_range(text):
    offset, length = text.split(":")
    return int(offset), int(length)


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {"stat": run_stat, "get": run_get, "values": run_values, "many": run_many, "ping": run_ping,
                "cancel": run_cancel, "list": run_list, "tree": run_tree}  # fmt: skip
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("command", choices=commands)
    parser.add_argument("names", metavar="NAME", nargs="*", type=os.fsencode)
    parser.add_argument("--root", action="store_true", help="STAT asks for the root")
    parser.add_argument("--range", action="append", default=[], type=parse_range, metavar="OFFSET:LENGTH")
    parser.add_argument("--proof", action="store_true", help="no data before the root is known")
    parser.add_argument("--facts", action="store_true", help="get prints facts on stderr")
    parser.add_argument("--window", type=int, default=WINDOW_DEFAULT, help="bytes of DATA under way")
    parser.add_argument("--segment", type=int, default=1 << 16, help="most bytes to receive at a time")
    parser.add_argument("--recursive", action="store_true", help="list: also what is in folders in it")
    parser.add_argument("--links", action="store_true", help="list, tree: follow links to folders")
    parser.add_argument("--exclude", action="append", default=[], help="list, tree: a pattern")
    parser.add_argument("--cut", type=int, default=0, help="list, tree: a new connection after so many frames")
    parser.add_argument("--flight", type=int, default=200, help="tree: requests under way at a time")
    parser.add_argument("--need", action="append", default=[], help="a capability")
    parser.add_argument("--no-first", action="store_true", help="no request in the hello")
    parser.add_argument("--have", type=int, default=0)
    parser.add_argument("--identity", type=bytes.fromhex, default=NONE16)
    parser.add_argument("--transfer", type=bytes.fromhex, default=NONE16)
    options = parser.parse_intermixed_args(arguments)
    if options.command != "ping" and not options.names:
        parser.error("a name is missing")
    options.run = commands[options.command]
    return options


def main(arguments):
    if arguments[:1] == ["vectors"] and len(arguments) == 2:
        return run_vectors(arguments[1])
    options = parse_arguments(arguments)
    try:
        options.run(options)
    except Ended as ended:
        print(f"{type(ended).__name__}: {ended}", file=sys.stderr)
        return ended.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
