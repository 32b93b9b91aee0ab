"""BLAKE3 (the 32-byte default, without a key) in plain Python, after its public specification.

Independent of the project's own: what both compute alike is very likely right. One integer holds the
same word of many chunks, each in a lane of 64 bits whose upper half is room for carries, so that a
sum, an exclusive or or a rotation is done for all of them at once.
"""

import sys
from array import array
from itertools import chain

CHUNK = 1024
BLOCK = 64
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8
# Columns, then diagonals.
_MIXED = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def _rounds():
    order = tuple(range(16))
    for _ in range(7):
        yield tuple((*place, order[2 * i], order[2 * i + 1]) for i, place in enumerate(_MIXED))
        order = tuple(order[i] for i in _PERMUTATION)


_STEPS = tuple(chain.from_iterable(_rounds()))
_U64 = next(code for code in "QL" if array(code).itemsize == 8)
_U32 = next(code for code in "IL" if array(code).itemsize == 4)


def _pack(values):
    """An integer with a lane for each of the values."""
    lanes = array(_U64, values)
    if sys.byteorder == "big":
        lanes.byteswap()
    return int.from_bytes(lanes.tobytes(), "little")


def _unpack(packed, lanes):
    """The values in the lanes of an integer."""
    values = array(_U64)
    values.frombytes(packed.to_bytes(8 * lanes, "little"))
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _compress(value, message, counter, length, flags, ones):
    """The compression function in every lane; `ones` has a 1 in each.

    `value` is eight packed words, `message` sixteen, `counter` two; `length` and `flags` are the same
    number for all lanes.
    """
    mask = ones * 0xFFFFFFFF
    v = [*value, *(word * ones for word in _IV[:4]), *counter, length * ones, flags * ones]
    for a, b, c, d, x, y in _STEPS:
        va, vb, vc, vd = v[a], v[b], v[c], v[d]
        va = (va + vb + message[x]) & mask
        vd ^= va
        vd = (vd >> 16 | vd << 16) & mask
        vc = (vc + vd) & mask
        vb ^= vc
        vb = (vb >> 12 | vb << 20) & mask
        va = (va + vb + message[y]) & mask
        vd ^= va
        vd = (vd >> 8 | vd << 24) & mask
        vc = (vc + vd) & mask
        vb ^= vc
        v[b] = (vb >> 7 | vb << 25) & mask
        v[a], v[c], v[d] = va, vc, vd
    return [v[i] ^ v[i + 8] for i in range(8)]


def _ones(lanes):
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * lanes, "little")


def _words(data):
    words = array(_U32)
    words.frombytes(data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _bytes(words):
    return b"".join(word.to_bytes(4, "little") for word in words)


def _whole_chunks(data, first):
    """The values of the chunks of `data`, which are all full, as tuples of eight words."""
    lanes = len(data) // CHUNK
    if lanes == 0:
        return []
    words, ones = _words(data), _ones(lanes)
    counters = range(first, first + lanes)
    counter = (_pack([n & 0xFFFFFFFF for n in counters]), _pack([n >> 32 for n in counters]))
    value = [word * ones for word in _IV]
    for block in range(CHUNK // BLOCK):
        message = [_pack(words[16 * block + i :: CHUNK // 4]) for i in range(16)]
        flags = (_CHUNK_START if block == 0 else 0) | (_CHUNK_END if block == 15 else 0)
        value = _compress(value, message, counter, BLOCK, flags, ones)
    return list(zip(*(_unpack(word, lanes) for word in value)))


def _one_chunk(data, counter, last_flags=0):
    """The value of one chunk of 0 to 1024 bytes."""
    blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)] or [b""]
    value = list(_IV)
    for i, block in enumerate(blocks):
        flags = (_CHUNK_START if i == 0 else 0) | (_CHUNK_END | last_flags if i == len(blocks) - 1 else 0)
        message = _words(block.ljust(BLOCK, b"\0"))
        value = _compress(value, message, (counter & 0xFFFFFFFF, counter >> 32), len(block), flags, 1)
    return tuple(value)


def _parents(pairs, flags=0):
    """The parents of pairs of values."""
    lanes = len(pairs)
    message = [_pack(words) for words in zip(*(left + right for left, right in pairs))]
    ones = _ones(lanes)
    value = _compress([word * ones for word in _IV], message, (0, 0), BLOCK, _PARENT | flags, ones)
    return list(zip(*(_unpack(word, lanes) for word in value)))


def _tree(data, first, root):
    """The value over all chunks of `data`, the first of which has the number `first`."""
    flag = _ROOT if root else 0
    if len(data) <= CHUNK:
        return _one_chunk(data, first, flag)
    whole = len(data) // CHUNK
    values = _whole_chunks(data[: whole * CHUNK], first)
    if whole * CHUNK < len(data):
        values.append(_one_chunk(data[whole * CHUNK :], first + whole))
    # Joining neighbours, the odd one left for the next level, gives left parts of powers of two.
    while len(values) > 1:
        pairs = list(zip(values[::2], values[1::2]))
        odd = values[-1:] if len(values) % 2 else []
        values = _parents(pairs, flag if len(values) == 2 else 0) + odd
    return values[0]


def digest(data):
    """The BLAKE3 digest of the bytes."""
    return _bytes(_tree(data, 0, True))


def subtree(data, first_chunk):
    """The chaining value of a subtree whose first chunk has this number: never a root."""
    return _bytes(_tree(data, first_chunk, False))


def parent(left, right, root=False):
    """The parent of two chaining values."""
    pair = (tuple(_words(left)), tuple(_words(right)))
    return _bytes(_parents([pair], _ROOT if root else 0)[0])
