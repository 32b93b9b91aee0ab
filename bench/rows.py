"""The rows of the benchmark: what is compared, and what must come out.

A row is one entry in `ROWS`. In each round every contestant runs once, one after the other, and
every goal is one number computed from that round alone; so what disturbs the machine for a while
disturbs both sides of a ratio.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stage import HERE, Stage, found

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


def oneport_get(stage: Stage) -> Sample:
    target, port = stage.target(), stage.server("oneport").port
    command = [stage.programs.client, "get", "-s", f"127.0.0.1:{port}", "--no-sync", "-d", target,
               "--log-dir", target / "logs", "big.bin"]
    return stage.receive(command, target / "big.bin")


def seed_get(stage: Stage) -> Sample:
    target, port = stage.target(), stage.server("seed").port
    command = [sys.executable, HERE / "seed_client.py", "big.bin", "127.0.0.1", str(port)]
    return stage.receive(command, target / "client_downloads" / "big.bin", cwd=target)


def md5_alone(stage: Stage) -> Sample:
    return stage.run([stage.programs.md5_alone, stage.files / "big.bin"])


def md5sum(stage: Stage) -> Sample:
    return stage.run(["md5sum", stage.files / "big.bin"])


def curl_get(stage: Stage) -> Sample:
    target, port = stage.target(), stage.server("nginx").port
    command = ["curl", "-sf", "-o", target / "big.bin", f"http://127.0.0.1:{port}/big.bin"]
    return stage.receive(command, target / "big.bin")


def rsync_get(stage: Stage) -> Sample:
    target, port = stage.target(), stage.server("rsync").port
    command = [found("rsync"), f"rsync://127.0.0.1:{port}/files/big.bin", f"{target}/"]
    return stage.receive(command, target / "big.bin")


def copy(stage: Stage) -> Sample:
    target = stage.target()
    return stage.receive(["cp", stage.files / "big.bin", target / "big.bin"], target / "big.bin")


def crowd(server: str) -> Callable[[Stage], Sample]:
    return lambda stage: stage.crowd(server, "crowd.bin", stage.sizes.crowd_clients)


def sends(server: str) -> Callable[[Stage], Sample]:
    def run(stage: Stage) -> Sample:
        sample = stage.crowd(server, "big.bin", clients=1, turns=stage.sizes.sends)
        return {**sample, "cpu_per_gib": sample["server_cpu"] / sample["gib"]}
    return run


def first_byte(server: str) -> Callable[[Stage], Sample]:
    return lambda stage: stage.crowd(server, "big.bin", 1, stage.sizes.first_bytes, first_byte=True)


SECONDS = ("seconds", "s", 1.0)
CLIENT_CPU = ("client_cpu", "s client CPU", 1.0)
SERVER_CPU = ("server_cpu", "s server CPU", 1.0)
SERVER_RSS = ("server_rss", "MiB server peak", 1 / MIB)

ROWS = (
    Row(
        "P3", "v1 (MD5): one big file to memory, verified, digest remembered",
        shown=(SECONDS, CLIENT_CPU),
        contestants=(
            Contestant("oneport", oneport_get),
            Contestant("seed pair", seed_get),
            Contestant("md5 alone", md5_alone),
            Contestant("md5sum", md5sum, ("md5sum",)),
            Contestant("nginx+curl", curl_get, ("nginx", "curl")),
            Contestant("rsync daemon", rsync_get, ("rsync",)),
            Contestant("cp", copy, ("cp",)),
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
)
