"""The plain server that the original system's README describes, as a peer for the benchmark.

One thread a connection, reads of 4 KiB, the MD5 computed before the data of every request, a log
line at every 10 %. Files are served from `server_files/`, logs go to `logs/`, both in the working
folder. Only fit for measuring: names are not checked.
"""

import hashlib
import logging
import socket
import struct
import sys
import threading
import time
from pathlib import Path

DEFAULT_PORT = 9999
BUFFER_SIZE = 4096
FILES = Path("server_files")
LOGS = Path("logs")

log = logging.getLogger("server")


def receive(connection: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes."""
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("the client closed the connection")
        data += piece
    return data


def md5_of(path: Path) -> str:
    digest = hashlib.md5()
    with path.open("rb") as file:
        while piece := file.read(BUFFER_SIZE):
            digest.update(piece)
    return digest.hexdigest()


def send_data(connection: socket.socket, path: Path, size: int, peer: str) -> None:
    sent, mark = 0, 10
    with path.open("rb") as file:
        while piece := file.read(BUFFER_SIZE):
            connection.sendall(piece)
            sent += len(piece)
            percent = sent * 100 // size
            if percent >= mark:
                log.info("Progress to %s: %d%% (%d/%d bytes)", peer, percent, sent, size)
                mark = percent // 10 * 10 + 10


def answer(connection: socket.socket, peer: str) -> None:
    (length,) = struct.unpack("!I", receive(connection, 4))
    name = receive(connection, length).decode()
    log.info("Client %s requested file: %s", peer, name)
    path = FILES / name
    if not path.is_file():
        connection.sendall(b"ERROR" + f"File '{name}' not found on server".encode())
        return
    size = path.stat().st_size
    log.info("Sending file '%s' (%d bytes) to %s", name, size, peer)
    # OK first: while the digest is computed, the client reads it with a single recv.
    connection.sendall(b"OK")
    digest = md5_of(path)
    base = path.name.encode()
    connection.sendall(struct.pack("!I", len(base)) + base + struct.pack("!Q", size) + digest.encode())
    send_data(connection, path, size, peer)
    log.info("File '%s' sent successfully to %s", name, peer)


def serve(connection: socket.socket, peer: str) -> None:
    log.info("New connection from %s", peer)
    try:
        with connection:
            answer(connection, peer)
    except OSError as error:
        log.error("Error with %s: %s", peer, error)
    log.info("Connection closed with %s", peer)


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT
    FILES.mkdir(exist_ok=True)
    LOGS.mkdir(exist_ok=True)
    logging.basicConfig(
        filename=LOGS / time.strftime("server_%Y%m%d_%H%M%S.log"),
        format="%(asctime)s - %(levelname)s - %(message)s",
        level=logging.INFO,
    )
    # A long queue: the benchmark measures the server's work, not lost handshakes.
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        while True:
            connection, (host, peer_port) = listener.accept()
            peer = f"{host}:{peer_port}"
            threading.Thread(target=serve, args=(connection, peer), daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        log.info("Stopped")
