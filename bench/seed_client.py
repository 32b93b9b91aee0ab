"""The plain client that the original system's README describes, as a peer for the benchmark.

`seed_client.py FILE [HOST [PORT]]`: status with a single recv of 5 bytes, then the header field by
field, then the data in pieces of 4 KiB to `client_downloads/`, with a progress bar; at last the
MD5 of the file is compared. Retries after 1, 2, 4 and 8 s; logs go to `logs/`.
"""

import hashlib
import logging
import socket
import struct
import sys
import time
from pathlib import Path

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 9999
BUFFER_SIZE = 4096
TIMEOUT_S = 10
MAX_RETRIES = 5
INITIAL_BACKOFF_S = 1
MAX_BACKOFF_S = 32
BAR_WIDTH = 40
DOWNLOADS = Path("client_downloads")
LOGS = Path("logs")

log = logging.getLogger("client")


class TransferError(Exception):
    """The file cannot be had, or is not what was announced."""


def show_progress(done: int, size: int) -> None:
    part = done / size if size else 1.0
    bar = "#" * int(part * BAR_WIDTH)
    print(f"\r[{bar:<{BAR_WIDTH}}] {part:6.1%} {done / 2**20:.2f}/{size / 2**20:.2f} MB", end="", flush=True)


def receive_header(server: socket.socket) -> tuple[int, str]:
    """Size and MD5 of the file."""
    status = server.recv(5)
    if status == b"ERROR":
        raise TransferError(server.recv(1024).decode())
    if status != b"OK":
        raise TransferError("Invalid server response")
    (length,) = struct.unpack("!I", server.recv(4))
    server.recv(length)
    (size,) = struct.unpack("!Q", server.recv(8))
    return size, server.recv(32).decode()


def receive_data(server: socket.socket, path: Path, size: int) -> None:
    done, shown = 0, -1
    with path.open("wb") as file:
        while done < size:
            piece = server.recv(min(BUFFER_SIZE, size - done))
            if not piece:
                raise ConnectionError("Connection lost")
            file.write(piece)
            done += len(piece)
            percent = done * 100 // size
            if percent != shown:
                show_progress(done, size)
                shown = percent
    print()


def md5_of(path: Path) -> str:
    digest = hashlib.md5()
    with path.open("rb") as file:
        while piece := file.read(BUFFER_SIZE):
            digest.update(piece)
    return digest.hexdigest()


def fetch(name: str, host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as server:
        encoded = name.encode()
        server.sendall(struct.pack("!I", len(encoded)))
        server.sendall(encoded)
        size, announced = receive_header(server)
        log.info("Receiving '%s': %d bytes, MD5 %s", name, size, announced)
        path = DOWNLOADS / Path(name).name
        receive_data(server, path, size)
    if (found := md5_of(path)) != announced:
        raise TransferError(f"Checksum mismatch: {found} instead of {announced}")
    log.info("Verified: %s", found)
    print(f"{path}: checksum verified: {found}")


def main() -> int:
    name = sys.argv[1]
    host = sys.argv[2] if len(sys.argv) > 2 else DEFAULT_HOST
    port = int(sys.argv[3]) if len(sys.argv) > 3 else DEFAULT_PORT
    DOWNLOADS.mkdir(exist_ok=True)
    LOGS.mkdir(exist_ok=True)
    logging.basicConfig(
        filename=LOGS / time.strftime("client_%Y%m%d_%H%M%S.log"),
        format="%(asctime)s - %(levelname)s - %(message)s",
        level=logging.INFO,
    )
    backoff = INITIAL_BACKOFF_S
    for attempt in range(1, MAX_RETRIES + 1):
        try:
            fetch(name, host, port)
            return 0
        except TransferError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            log.warning("Attempt %d failed: %s", attempt, error)
            if attempt < MAX_RETRIES:
                time.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF_S)
    print("Error: all attempts failed", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
