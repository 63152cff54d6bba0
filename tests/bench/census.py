# SPDX-License-Identifier: Apache-2.0
"""Measure what a census costs beside ss, in one run: time, memory, and what traffic feels.

    python tests/bench/census.py [--docs] [--only NAME] [--time-wait N] [--connections N]

Each round takes a census and runs ss, in turn, over the same sockets of the same namespace. There
are as many rounds as there is time for. --docs writes the tables into docs/census.md.
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

from tests.bench import census_page, load, meters, pairs
from tests.bench.timetable import on_timetable
from tests.truth.netns import namespace
from tracer import memory
from tracer.kernel.census import CensusSource
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.truth.netns import Namespace
    from tracer.batch import Batch

BY_DEFAULT: Final = ("time_wait", "owners", "traffic", "memory")
ROOT: Final = Path(__file__).resolve().parents[2]
CROWD: Final = Path(__file__).with_name("crowd.py")
PER_PROCESS: Final = 9000  # connections: two descriptors each
LEAST_ROUNDS: Final = 3
SIDE_BY_SIDE_S: Final = 30.0  # a TIME_WAIT lasts for sixty
TRAFFIC_S: Final = 45.0
TIMETABLE_S: Final = 0.5
LOOKS: Final = 3
VIEWS: Final = ("census", "ports", "leaks")
# A client and its server share a processor: a wake-up across processors takes four times as long
# in a virtual machine, and who is where would be all that is measured.
ROUND_TRIPS: Final = (
    "--host-netns",
    "--threads=1",
    "--connections=1",
    "--request=64",
    "--response=64",
)
PORT: Final = 9
LOADS: Final = {"spare": 1, "busy": os.cpu_count() or 1}  # so many processors


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long `work` took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def rounds(limit_s: float) -> Iterator[int]:
    """Count as long as there is time; a few there are at any rate."""
    began, number = time.monotonic(), 0
    while number < LEAST_ROUNDS or time.monotonic() - began < limit_s:
        yield number
        number += 1


def side_by_side(
    source: CensusSource, ns: Namespace, options: str, *, owners: bool
) -> dict[str, Any]:
    """Take turns with `ss OPTIONS | wc -l` and return medians and their ratio."""
    command = ns.command("sh", "-c", f"ss {options} | wc -l")

    def take() -> Batch:
        return source.take({ns.inum}, owners=owners, users=owners)

    census = decode_census(take().data)
    before = meters.memory_kb((os.getpid(),))["rss"]
    ours, theirs, lines = [], [], []
    for _ in rounds(SIDE_BY_SIDE_S):
        ours.append(milliseconds(take))
        theirs.append(milliseconds(lambda: lines.append(subprocess.check_output(command))))
    return {
        "sockets": int(census.states["count"].sum()),
        "owners": len(census.owners),
        "ss_options": options,
        "ss_lines": int(lines[0]) - 1,  # a title
        "rounds": len(ours),
        "census_ms": statistics.median(ours),
        "ss_ms": statistics.median(theirs),
        "ratio": pairs.interval([a / b for a, b in zip(ours, theirs, strict=True)]),
        "rss_kb": [before, meters.memory_kb((os.getpid(),))["rss"]],
    }


def of_time_wait(source: CensusSource, count: int) -> dict[str, Any]:
    """Measure on so many sockets in TIME_WAIT."""
    with namespace("bench") as ns:
        load.fill_time_wait(ns, count)
        return side_by_side(source, ns, "-tan", owners=False)


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


@contextmanager
def crowded(connections: int) -> Iterator[Namespace]:
    """Run the block beside a crowd in a namespace of its own."""
    with namespace("bench") as ns:
        ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
        with crowd(ns, connections):
            yield ns


def of_owners(source: CensusSource, connections: int) -> dict[str, Any]:
    """Measure with the owner of every socket."""
    with crowded(connections) as ns:
        return side_by_side(source, ns, "-tanp", owners=True)


def of_traffic(source: CensusSource, connections: int, requests: int) -> dict[str, Any]:
    """Measure round trips of other connections, alone and beside a census a second.

    And beside a thread that computes for as long as a census does: what the processor's time
    alone costs. With a processor to spare, and with none.
    """
    spent_ms: list[float] = []
    with crowded(connections) as ns:

        def census() -> None:
            began = time.process_time()
            source.take({ns.inum}, owners=True)
            spent_ms.append((time.process_time() - began) * 1000)

        def compute() -> None:
            end = time.thread_time() + statistics.median(spent_ms) / 1000
            while time.thread_time() < end:
                pass

        census()
        arms = {"alone": lambda: None, "census": census, "computing": compute}
        trips = {
            name: _trips(_round_trips(ns, cpus, requests), arms) for name, cpus in LOADS.items()
        }
    return {
        "sockets": 2 * connections,
        "census_cpu_ms": statistics.median(spent_ms),
        "loads": trips,
    }


# Blocks take turns, forward and backward.
def _trips(
    measure: Callable[[], dict[str, float]], arms: dict[str, Callable[[], None]]
) -> dict[str, Any]:
    blocks: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for number in rounds(TRAFFIC_S):
        for name in list(arms)[:: 1 if number % 2 else -1]:
            with on_timetable(TIMETABLE_S, arms[name]):
                blocks[name].append(measure())
    alone = blocks["alone"]
    return {
        name: {
            "blocks": len(mine),
            **{which: pairs.interval([one[which] for one in mine]) for which in mine[0]},
            "p99_ratio": pairs.interval(
                [one["p99"] / other["p99"] for one, other in zip(mine, alone, strict=True)]
            ),
        }
        for name, mine in blocks.items()
    }


def _round_trips(ns: Namespace, cpus: int, requests: int) -> Callable[[], dict[str, float]]:
    options = (*ROUND_TRIPS, f"--requests={requests}")
    commands = [
        ns.command("taskset", "-c", str(cpu), str(load.PROGRAM), *options, f"--port={PORT + cpu}")
        for cpu in range(cpus)
    ]

    def measure() -> dict[str, float]:
        loads = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
        told = [json.loads(one.communicate()[0])["round_trip_us"] for one in loads]
        return {which: statistics.mean(one[which] for one in told) for which in told[0]}

    return measure


def of_memory(sizes: Iterable[int]) -> dict[str, Any]:
    """Measure what the views take, at most, over so many connections, both ends."""
    made: dict[str, Any] = {}
    for connections in sizes:
        with crowded(connections) as ns:
            made[f"{2 * connections}"] = {view: peak_mb(ns, view) for view in VIEWS}
    return made


def peak_mb(ns: Namespace, view: str) -> float:
    """Return how large the process of a view ever was, after some looks."""
    command = [sys.executable, "-m", "tracer", view, "--json", "--watch", "0.2"]
    with subprocess.Popen(
        [*command, "--netns", ns.name], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        totals = (line for line in process.stdout if "took_ns" in line or "_total" in line)
        for _ in range(LOOKS):
            next(totals)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()
        process.stdout.read()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print one JSON object per measurement, and at the end the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--time-wait", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--only", choices=[*BY_DEFAULT, "large"], help="large: ten times as many")
    parser.add_argument("--docs", action="store_true", help="write docs/census.md too")
    wished = parser.parse_args()
    load.build()
    memory.keep_little()
    with CensusSource(CensusSource.load()) as source:
        print(json.dumps({"mechanism": source.mechanism, "reason": source.reason}), flush=True)
        tests: dict[str, Callable[[], dict[str, Any]]] = {
            "time_wait": lambda: of_time_wait(source, wished.time_wait),
            "owners": lambda: of_owners(source, wished.connections),
            "traffic": lambda: of_traffic(source, wished.connections // 10, wished.requests),
            "memory": lambda: of_memory((500, wished.connections // 10, wished.connections)),
            "large": lambda: of_memory((4 * wished.connections, 10 * wished.connections)),
        }
        made: dict[str, Any] = {}
        for name in [wished.only] if wished.only else BY_DEFAULT:
            made[name] = tests[name]()
            print(json.dumps({name: made[name]}), flush=True)
    census_page.show(made)
    if wished.docs:
        census_page.write(made)


if __name__ == "__main__":
    main()
