# SPDX-License-Identifier: Apache-2.0
"""Measure what a census costs beside ss, in one run: time, memory, and what traffic feels.

    python tests/bench/census.py [--time-wait N] [--connections N] [--rounds N]

Each round takes a census and runs ss, in turn, over the same sockets of the same namespace.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import load, meters
from tests.bench.timetable import on_timetable
from tests.truth.netns import namespace
from tracer.kernel.census import CensusSource
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.truth.netns import Namespace
    from tracer.batch import Batch

ROOT: Final = Path(__file__).resolve().parents[2]
CROWD: Final = Path(__file__).with_name("crowd.py")
PER_PROCESS: Final = 9000  # connections: two descriptors each
TIMETABLE_S: Final = 1.0
ROUND_TRIPS: Final = ("--connections=4", "--threads=2", "--request=64", "--response=64")


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long `work` took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def side_by_side(
    source: CensusSource, ns: Namespace, options: str, rounds: int, *, owners: bool
) -> dict[str, Any]:
    """Take turns with `ss OPTIONS | wc -l` and return medians and their ratio."""
    command = ns.command("sh", "-c", f"ss {options} | wc -l")

    def take() -> Batch:
        return source.take({ns.inum}, owners=owners, users=owners)

    take()
    before = meters.memory_kb((os.getpid(),))
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(milliseconds(take))
        theirs.append(
            milliseconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
        )
    census = decode_census(take().data)
    return {
        "sockets": int(census.states["count"].sum()),
        "owners": len(census.owners),
        "census_ms": round(statistics.median(ours), 1),
        f"ss {options} ms": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
        "memory_kb_before": before,
        "memory_kb_after": meters.memory_kb((os.getpid(),)),
    }


def of_time_wait(source: CensusSource, count: int, rounds: int) -> dict[str, Any]:
    """Measure on so many sockets in TIME_WAIT."""
    with namespace("bench") as ns:
        load.fill_time_wait(ns, count)
        return side_by_side(source, ns, "-tan", rounds, owners=False)


@contextmanager
def crowd(ns: Namespace, connections: int) -> Iterator[None]:
    """So many connections, both ends, half of them in CLOSE_WAIT."""
    with ExitStack() as stack:
        started = []
        for number in range(-(-connections // PER_PROCESS)):
            count = min(PER_PROCESS, connections - number * PER_PROCESS)
            command = ns.command(sys.executable, str(CROWD), str(count), str(number))
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            started.append(stack.enter_context(process))
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield
        for process in started:
            process.communicate(b"")


def of_owners(source: CensusSource, connections: int, rounds: int) -> dict[str, Any]:
    """Measure with the owner of every socket."""
    with namespace("bench") as ns:
        ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
        with crowd(ns, connections):
            return side_by_side(source, ns, "-tanp", rounds, owners=True)


def of_traffic(
    source: CensusSource, connections: int, requests: int, rounds: int
) -> dict[str, Any]:
    """Measure round trips of other connections, alone and beside a census a second.

    And beside a thread that computes for as long as a census does: what the processor's time
    alone costs. Blocks of the three take turns, forward and backward.
    """
    with namespace("bench") as ns:
        ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
        options = ["--host-netns", "--port=9", *ROUND_TRIPS, f"--requests={requests}"]
        command = ns.command(str(load.PROGRAM), *options)
        with crowd(ns, connections):
            spent_ms: list[float] = []

            def census() -> None:
                began = time.process_time()
                milliseconds(lambda: source.take({ns.inum}, owners=True))
                spent_ms.append((time.process_time() - began) * 1000)

            census()
            arms = {"alone": lambda: None, "census": census, "computing": lambda: compute(spent_ms)}
            trips: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
            for number in range(rounds):
                for name in list(arms)[:: 1 if number % 2 else -1]:
                    with on_timetable(TIMETABLE_S, arms[name]):
                        trips[name].append(round_trips(command))
    return {
        "sockets": 2 * connections,
        "census_cpu_ms": round(statistics.median(spent_ms), 1),
        "blocks": rounds,
        **{
            f"{which}_us {name}": spread([one[which] for one in blocks])
            for which in ("p50", "p99")
            for name, blocks in trips.items()
        },
    }


def compute(spent_ms: list[float]) -> None:
    """Keep a processor busy for as long as a census does."""
    end = time.thread_time() + statistics.median(spent_ms) / 1000
    while time.thread_time() < end:
        pass


def spread(values: list[float]) -> list[float]:
    """Return the smallest, the quartiles and the largest."""
    return [min(values), *statistics.quantiles(values, method="inclusive"), max(values)]


def of_memory(sizes: Iterable[int]) -> dict[str, Any]:
    """Measure what the views take, at most, over so many connections, both ends."""
    made: dict[str, Any] = {}
    for connections in sizes:
        with namespace("bench") as ns:
            ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
            with crowd(ns, connections):
                views = {view: peak_mb(ns, view) for view in ("census", "ports", "leaks")}
        made[f"{2 * connections} sockets"] = views
    return made


def peak_mb(ns: Namespace, view: str) -> float:
    """Return how large the process of a view ever was, after three looks."""
    command = [sys.executable, "-m", "tracer", view, "--json", "--watch", "0.2"]
    with subprocess.Popen(
        [*command, "--netns", ns.name], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        totals = (line for line in process.stdout if "took_ns" in line or "_total" in line)
        for _ in range(3):
            next(totals)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()
        process.stdout.read()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 1024, 1)


def round_trips(command: list[str]) -> dict[str, float]:
    """Return the percentiles the generator prints."""
    done = subprocess.run(command, capture_output=True, check=True)
    trips: dict[str, float] = json.loads(done.stdout)["round_trip_us"]
    return trips


def main() -> None:
    """Print one JSON object per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time-wait", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["time_wait", "owners", "traffic", "memory"])
    wished = parser.parse_args()
    load.build()
    with CensusSource(CensusSource.load()) as source:
        print(json.dumps({"mechanism": source.mechanism, "reason": source.reason}), flush=True)
        tests: dict[str, Callable[[], dict[str, Any]]] = {
            "time_wait": lambda: of_time_wait(source, wished.time_wait, wished.rounds),
            "owners": lambda: of_owners(source, wished.connections, wished.rounds),
            "traffic": lambda: of_traffic(
                source, wished.connections // 10, wished.requests, wished.rounds
            ),
            "memory": lambda: of_memory(
                (500, wished.connections // 10, wished.connections, 10 * wished.connections)
            ),
        }
        for name in [wished.only] if wished.only else tests:
            print(json.dumps({name: tests[name]()}), flush=True)


if __name__ == "__main__":
    main()
