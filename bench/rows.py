"""The rows of the benchmark: what is compared, and what must come out.

A row is one entry in `ROWS`. In each round every contestant runs once, one after the other, and
every goal is one number computed from that round alone; so what disturbs the machine for a while
disturbs both sides of a ratio.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stage import HERE, LINK_RATE, Stage, found

# Measures of one run, by name: `seconds`, `client_cpu`, `server_cpu`, `server_rss`, `first_byte`, …
Sample = dict[str, float]
# The samples of one round, by contestant.
Round = Mapping[str, Sample]

# The pause of wire format v1 between OK and the header, in seconds (`--v1-pause`).
V1_PAUSE_S = 0.020
MIB = 1 << 20


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison."""

    name: str
    run: Callable[[Stage], Sample]
    # Programs that must be installed.
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Goal:
    """A number that must be at least, or at most, a bound; without a bound it is for information."""

    text: str
    of: Callable[[Round], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"


@dataclass(frozen=True)
class Row:
    """One comparison."""

    key: str
    title: str
    # The measure shown for each contestant, with its unit and the factor to that unit.
    shown: tuple[tuple[str, str, float], ...]
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...]


def ratio(above: str, below: str, measure: str = "seconds", less: float = 0.0) -> Callable[[Round], float]:
    """How many times `below` goes into `above`; `less` is taken from oneport's measure first."""
    def of(samples: Round) -> float:
        value = {name: samples[name][measure] - (less if name == "oneport" else 0.0) for name in (above, below)}
        return value[above] / value[below]
    return of


def oneport(*options: str, on_disk: bool = False, sync: bool = False, through: str = "oneport",
            name: str = "big.bin") -> Callable[[Stage], Sample]:
    """One fetch with the client, as its users know it: the time is that of the whole process."""
    def run(stage: Stage) -> Sample:
        target, port = stage.target(on_disk), stage.server(through).port
        command = [stage.programs.client, "get", "-s", f"127.0.0.1:{port}", *([] if sync else ["--no-sync"]),
                   *options, "-d", target, "--log-dir", stage.folder / "logs", name]
        return stage.receive(command, target / name, served="oneport")
    return run


def oneport_tls(stage: Stage) -> Sample:
    """As `oneport`, within TLS: the server is recognised by the pin that it has shown when it started. Nobody
    else is told of it, or they would speak TLS too."""
    known = stage.folder / "known-by-tls"
    return oneport("--tls", "require", "--pin", stage.pin(), "--known-hosts", str(known))(stage)


def seed_get(stage: Stage) -> Sample:
    target, port = stage.target(), stage.server("seed").port
    command = [sys.executable, HERE / "seed_client.py", "big.bin", "127.0.0.1", str(port)]
    return stage.receive(command, target / "client_downloads" / "big.bin", cwd=target)


def md5_alone(stage: Stage) -> Sample:
    return stage.run([stage.programs.md5_alone, stage.files / "big.bin"])


def md5sum(stage: Stage) -> Sample:
    return stage.run(["md5sum", stage.files / "big.bin"])


def curl(on_disk: bool = False, through: str = "nginx", name: str = "big.bin") -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        target, port = stage.target(on_disk), stage.server(through).port
        command = ["curl", "-sf", "-o", target / name, f"http://127.0.0.1:{port}/{name}"]
        return stage.receive(command, target / name, served="nginx")
    return run


def rsync(*options: str, on_disk: bool = False) -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        target, port = stage.target(on_disk), stage.server("rsync").port
        command = [found("rsync"), *options, f"rsync://127.0.0.1:{port}/files/big.bin", f"{target}/"]
        return stage.receive(command, target / "big.bin")
    return run


def copy(on_disk: bool = False) -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        target = stage.target(on_disk)
        return stage.receive(["cp", stage.files / "big.bin", target / "big.bin"], target / "big.bin")
    return run


def copy_and_sync(stage: Stage) -> Sample:
    target = stage.target(on_disk=True) / "big.bin"
    both = 'cp "$0" "$1" && sync -d "$1"'
    return stage.receive(["sh", "-c", both, stage.files / "big.bin", target], target)


def oneport_many(on_disk: bool = False, sync: bool = False, through: str = "oneport",
                 existing: bool = False) -> Callable[[Stage], Sample]:
    """A folder of small files with the client, into a new folder or into one that is there (and empty)."""
    def run(stage: Stage) -> Sample:
        target, port = stage.target(on_disk), stage.server(through).port
        if existing:
            (target / "many").mkdir()
        command = [stage.programs.client, "get", "-r", "-s", f"127.0.0.1:{port}", *([] if sync else ["--no-sync"]),
                   "-d", target, "--log-dir", stage.folder / "logs", "many"]
        return stage.receive_many(command, target / "many", served="oneport")
    return run


def rsync_many(*options: str, on_disk: bool = False) -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        target, port = stage.target(on_disk), stage.server("rsync").port
        command = [found("rsync"), "-a", *options, f"rsync://127.0.0.1:{port}/files/many", f"{target}/"]
        return stage.receive_many(command, target / "many")
    return run


def copy_many(on_disk: bool = False) -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        target = stage.target(on_disk)
        return stage.receive_many(["cp", "-r", stage.files / "many", target / "many"], target / "many")
    return run


def put(server: str = "taker_memory") -> Callable[[Stage], Sample]:
    """One file stored with the client."""
    def run(stage: Stage) -> Sample:
        stored, port = stage.inbox(server) / "big.bin", stage.server(server).port
        command = [stage.programs.client, "put", "-s", f"127.0.0.1:{port}", "--key-file", stage.key(server),
                   "--log-dir", stage.folder / "logs", stage.files / "big.bin"]
        return stage.sent(command, server, stored)
    return run


def dav(stage: Stage) -> Sample:
    stored, port = stage.inbox("dav") / "big.bin", stage.server("dav").port
    command = ["curl", "-sf", "-T", stage.files / "big.bin", f"http://127.0.0.1:{port}/big.bin"]
    return stage.sent(command, "dav", stored)


def rsync_push(stage: Stage) -> Sample:
    stored, port = stage.inbox("rsync_in") / "big.bin", stage.server("rsync_in").port
    return stage.sent([found("rsync"), stage.files / "big.bin", f"rsync://127.0.0.1:{port}/files/"], "rsync_in", stored)


def scp(stage: Stage) -> Sample:
    stored, port, folder = stage.inbox("sshd") / "big.bin", stage.server("sshd").port, stage.folder / "sshd"
    command = ["scp", "-q", "-c", "aes128-gcm@openssh.com", "-P", str(port), "-i", folder / "user",
               "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known",
               stage.files / "big.bin", f"127.0.0.1:{stored}"]
    return stage.sent(command, "sshd", stored)


def put_many(server: str) -> Callable[[Stage], Sample]:
    """A folder of small files stored with the client: it is flushed when the client ends."""
    def run(stage: Stage) -> Sample:
        stored, port = stage.fresh(server), stage.server(server).port
        command = [stage.programs.client, "put", "-r", "-s", f"127.0.0.1:{port}", "--key-file", stage.key(server),
                   "--log-dir", stage.folder / "logs", "--name", stored.name, stage.files / "many"]
        return stage.receive_many(command, stored, served=server)
    return run


def rsync_push_many(server: str, *options: str) -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        stored, port = stage.fresh(server), stage.server(server).port
        command = [found("rsync"), "-a", *options, f"{stage.files}/many/", f"rsync://127.0.0.1:{port}/files/{stored.name}"]
        return stage.receive_many(command, stored, served=server)
    return run


def listed(stage: Stage) -> Sample:
    stage.prepare_listed()
    port = stage.server("oneport").port
    command = f'"{stage.programs.client}" ls -r --json -s 127.0.0.1:{port} --log-dir "{stage.folder}/logs" listed | wc -l'
    stage.server("oneport").forget_peak()
    return {**stage.run(["sh", "-c", command]), "server_rss": stage.server("oneport").peak_rss()}


def find(stage: Stage) -> Sample:
    stage.prepare_listed()
    command = f"find \"{stage.files}/listed\" -printf '%y %s %T@ %m %P\\n' | wc -l"
    return stage.run(["sh", "-c", command])


def crowd(server: str) -> Callable[[Stage], Sample]:
    return lambda stage: stage.crowd(server, "crowd.bin", stage.sizes.crowd_clients)


def sends(server: str, dialect: str = "v1") -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        sample = stage.crowd(server, "big.bin", clients=1, turns=stage.sizes.sends, dialect=dialect)
        return {**sample, "cpu_per_gib": sample["server_cpu"] / sample["gib"]}
    return run


def first_byte(server: str, dialect: str = "v1", name: str = "big.bin") -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        return stage.crowd(server, name, 1, stage.sizes.first_bytes, first_byte=True, dialect=dialect)
    return run


def link_share(who: str) -> Callable[[Round], float]:
    """Which share of what the link could have carried from start to end of the process was the file."""
    return lambda samples: 100 * samples[who]["bytes"] / LINK_RATE / samples[who]["seconds"]


SECONDS = ("seconds", "s", 1.0)
CLIENT_CPU = ("client_cpu", "s client CPU", 1.0)
SERVER_CPU = ("server_cpu", "s server CPU", 1.0)
SERVER_RSS = ("server_rss", "MiB server peak", 1 / MIB)

ROWS = (
    Row(
        "P3", "v1 (MD5): one big file to memory, verified, digest remembered",
        shown=(SECONDS, CLIENT_CPU),
        contestants=(
            Contestant("oneport", oneport("--protocol", "v1")),
            Contestant("seed pair", seed_get),
            Contestant("md5 alone", md5_alone),
            Contestant("md5sum", md5sum, ("md5sum",)),
            Contestant("nginx+curl", curl(), ("nginx", "curl")),
            Contestant("rsync daemon", rsync(), ("rsync",)),
            Contestant("cp", copy(), ("cp",)),
        ),
        goals=(
            Goal("seed pair / oneport", ratio("seed pair", "oneport"), at_least=3.2),
            Goal("md5 alone / oneport", ratio("md5 alone", "oneport"), at_least=0.9),
            Goal("md5sum / oneport", ratio("md5sum", "oneport")),
            Goal("nginx+curl / oneport (nothing verified)", ratio("nginx+curl", "oneport")),
            Goal("rsync daemon / oneport", ratio("rsync daemon", "oneport")),
            Goal("cp / oneport (nothing verified)", ratio("cp", "oneport")),
        ),
    ),
    Row(
        "P4", "v2: one big file stored in memory, verified",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", put()),
            Contestant("nginx DAV", dav, ("nginx", "curl")),
            Contestant("rsync daemon", rsync_push, ("rsync",)),
            Contestant("scp", scp, ("sshd", "scp", "ssh-keygen")),
        ),
        goals=(
            Goal("nginx DAV / oneport (nothing verified)", ratio("nginx DAV", "oneport"), at_least=1.5),
            Goal("rsync daemon / oneport", ratio("rsync daemon", "oneport"), at_least=1.55),
            Goal("scp (AES-128-GCM) / oneport", ratio("scp", "oneport"), at_least=3.0),
        ),
    ),
    Row(
        "put many", "v2: 10,000 files of 4 KiB stored on a disk, flushed",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", put_many("taker_disk")),
            Contestant("rsync --fsync", rsync_push_many("rsync_in_disk", "--fsync"), ("rsync",)),
        ),
        goals=(Goal("rsync --fsync / oneport", ratio("rsync --fsync", "oneport"), at_least=5.0),),
    ),
    Row(
        "P5", "v2: 10,000 files of 4 KiB to memory, into a new folder, not flushed",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport_many()),
            Contestant("existing folder", oneport_many(existing=True)),
            Contestant("rsync daemon", rsync_many(), ("rsync",)),
            Contestant("cp -r", copy_many(), ("cp",)),
        ),
        goals=(
            Goal("rsync daemon / oneport", ratio("rsync daemon", "oneport"), at_least=5.0),
            Goal("cp -r / oneport (nothing verified)", ratio("cp -r", "oneport"), at_least=1.6),
            Goal("existing folder / new folder", ratio("existing folder", "oneport")),
        ),
    ),
    Row(
        "P5 disk", "v2: 10,000 files of 4 KiB to a disk, into a new folder, not flushed",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport_many(on_disk=True)),
            Contestant("existing folder", oneport_many(on_disk=True, existing=True)),
            Contestant("rsync daemon", rsync_many(on_disk=True), ("rsync",)),
            Contestant("cp -r", copy_many(on_disk=True), ("cp",)),
        ),
        goals=(
            Goal("rsync daemon / oneport", ratio("rsync daemon", "oneport"), at_least=3.5),
            Goal("cp -r / oneport (nothing verified)", ratio("cp -r", "oneport"), at_least=1.4),
            Goal("existing folder / new folder", ratio("existing folder", "oneport")),
        ),
    ),
    Row(
        "P6", "v2: 10,000 files of 4 KiB to a disk, into a new folder, flushed",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport_many(on_disk=True, sync=True)),
            Contestant("existing folder", oneport_many(on_disk=True, sync=True, existing=True)),
            Contestant("rsync --fsync", rsync_many("--fsync", on_disk=True), ("rsync",)),
        ),
        goals=(
            Goal("rsync --fsync / oneport", ratio("rsync --fsync", "oneport"), at_least=5.0),
            Goal("existing folder / new folder", ratio("existing folder", "oneport")),
        ),
    ),
    Row(
        "link many", "v2: 10,000 files of 4 KiB over a line of 25 ms each way, beside one file of the same bytes",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("many", oneport_many(through="link_to_oneport")),
            Contestant("one", oneport(through="link_to_oneport", name="many.bin")),
        ),
        goals=(Goal("many / one", ratio("many", "one"), at_most=2.0),),
    ),
    Row(
        "list", "v2: a million files listed as JSON, beside find on the server's disk",
        shown=(SECONDS, CLIENT_CPU),
        contestants=(
            Contestant("oneport", listed),
            Contestant("find", find),
        ),
        goals=(
            Goal("oneport / find", ratio("oneport", "find")),
            Goal("server peak", lambda r: r["oneport"]["server_rss"] / MIB, unit=" MiB"),
        ),
    ),
    Row(
        "P7", "v1: many clients of one file at once",
        shown=(SECONDS, SERVER_CPU, SERVER_RSS),
        contestants=(
            Contestant("oneport", crowd("oneport")),
            Contestant("nginx", crowd("nginx"), ("nginx",)),
            Contestant("seed server", crowd("seed")),
        ),
        goals=(
            Goal("oneport less its pause / nginx", ratio("oneport", "nginx", less=V1_PAUSE_S), at_most=1.0),
            Goal("server CPU, oneport / nginx", ratio("oneport", "nginx", "server_cpu"), at_most=2.0),
            Goal("oneport server peak", lambda r: r["oneport"]["server_rss"] / MIB, at_most=24, unit=" MiB"),
            Goal("seed server / oneport", ratio("seed server", "oneport"), at_least=20),
        ),
    ),
    Row(
        "P9", "v1: processor time of the server for each GiB sent, digest remembered",
        shown=(("cpu_per_gib", "s server CPU/GiB", 1.0), SECONDS),
        contestants=(
            Contestant("oneport", sends("oneport")),
            Contestant("nginx", sends("nginx"), ("nginx",)),
        ),
        goals=(
            Goal("server CPU, oneport / nginx", ratio("oneport", "nginx", "cpu_per_gib"), at_most=1.0),
            Goal("seconds, oneport / nginx", ratio("oneport", "nginx")),
        ),
    ),
    Row(
        "first byte", "v1: from connecting to the first byte of a big file, digest remembered",
        shown=(("first_byte", "ms", 1e3),),
        contestants=(
            Contestant("oneport", first_byte("oneport")),
            Contestant("nginx", first_byte("nginx"), ("nginx",)),
        ),
        goals=(
            Goal("oneport less its pause", lambda r: (r["oneport"]["first_byte"] - V1_PAUSE_S) * 1e3,
                 at_most=2.0, unit=" ms"),
            Goal("nginx", lambda r: r["nginx"]["first_byte"] * 1e3, unit=" ms"),
        ),
    ),
    Row(
        "P1", "v2 (BLAKE3): one big file to memory, verified, digest remembered",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport()),
            Contestant("nginx+curl", curl(), ("nginx", "curl")),
            Contestant("rsync daemon", rsync(), ("rsync",)),
            Contestant("cp", copy(), ("cp",)),
        ),
        goals=(
            Goal("nginx+curl / oneport (nothing verified)", ratio("nginx+curl", "oneport"), at_least=1.3),
            Goal("cp / oneport (nothing verified)", ratio("cp", "oneport"), at_least=0.95),
            Goal("rsync daemon / oneport", ratio("rsync daemon", "oneport"), at_least=1.9),
        ),
    ),
    Row(
        "P2", "v2: one big file to a disk, verified, not flushed, digest remembered",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport(on_disk=True)),
            Contestant("nginx+curl", curl(on_disk=True), ("nginx", "curl")),
            Contestant("rsync daemon", rsync("-W", "--inplace", on_disk=True), ("rsync",)),
            Contestant("cp", copy(on_disk=True), ("cp",)),
        ),
        goals=(
            Goal("nginx+curl / oneport (nothing verified)", ratio("nginx+curl", "oneport"), at_least=2.5),
            Goal("cp / oneport (nothing verified)", ratio("cp", "oneport"), at_least=1.15),
            Goal("rsync -W --inplace / oneport", ratio("rsync daemon", "oneport"), at_least=2.2),
        ),
    ),
    Row(
        "P8 small", "v2: from connecting to the first byte of a small file",
        shown=(("first_byte", "ms", 1e3),),
        contestants=(
            Contestant("oneport", first_byte("oneport", "v2", "small.bin")),
            Contestant("nginx", first_byte("nginx", name="small.bin"), ("nginx",)),
        ),
        goals=(Goal("oneport / nginx", ratio("oneport", "nginx", "first_byte"), at_most=1.15),),
    ),
    Row(
        "P8 big", "v2: from connecting to the first byte of a big file, digest remembered",
        shown=(("first_byte", "ms", 1e3),),
        contestants=(
            Contestant("oneport", first_byte("oneport", "v2")),
            Contestant("nginx", first_byte("nginx"), ("nginx",)),
        ),
        goals=(Goal("oneport / nginx", ratio("oneport", "nginx", "first_byte"), at_most=1.3),),
    ),
    Row(
        "P9 v2", "v2: processor time of the server for each GiB sent, digest remembered",
        shown=(("cpu_per_gib", "s server CPU/GiB", 1.0), SECONDS),
        contestants=(
            Contestant("oneport", sends("oneport", "v2")),
            Contestant("nginx", sends("nginx"), ("nginx",)),
        ),
        goals=(
            Goal("server CPU, oneport / nginx", ratio("oneport", "nginx", "cpu_per_gib"), at_most=1.0),
            Goal("seconds, oneport / nginx", ratio("oneport", "nginx")),
        ),
    ),
    Row(
        "P10", "v2: two connections for one big file beside one, to memory",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("two", oneport("-j", "2")),
            Contestant("one", oneport("-j", "1")),
        ),
        goals=(Goal("one / two", ratio("one", "two"), at_least=1.35),),
    ),
    Row(
        "P11", "v2: one big file to memory within TLS, beside one without",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("TLS", oneport_tls),
            Contestant("plain", oneport()),
        ),
        goals=(Goal("plain / TLS", ratio("plain", "TLS"), at_least=0.7),),
    ),
    Row(
        "P12", "v2: one big file to a disk, verified and flushed",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport(on_disk=True, sync=True)),
            Contestant("cp, sync -d", copy_and_sync, ("cp", "sync")),
        ),
        goals=(Goal("cp, sync -d / oneport", ratio("cp, sync -d", "oneport"), at_least=1.0),),
    ),
    Row(
        "link", "v2: over a line of 25 ms each way and 125,000,000 bytes/s, from start to end of the program",
        shown=(SECONDS, CLIENT_CPU, SERVER_CPU),
        contestants=(
            Contestant("oneport", oneport(through="link_to_oneport", name="link.bin")),
            Contestant("nginx+curl", curl(through="link_to_nginx", name="link.bin"), ("nginx", "curl")),
        ),
        goals=(
            Goal("oneport's share of the link", link_share("oneport"), at_least=90, unit=" %"),
            Goal("nginx+curl's share of the link", link_share("nginx+curl"), unit=" %"),
        ),
    ),
)
