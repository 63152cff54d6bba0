# SPDX-License-Identifier: Apache-2.0
"""Measure what `fourwave serve` costs: idle, and while a census goes over many sockets.

python tests/bench/serve.py [--time-wait N] [--connections N] [--idle SECONDS]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import load, meters
from tests.bench.census import crowd
from tests.serve.served import Served, until
from tests.truth.netns import namespace

SCRAPES: Final = 200
PAUSE_S: Final = 0.05


def processes(served: Served) -> dict[str, int]:
    """Return the pids of all three."""
    return {"tracer": served.process.pid, **served.children()}


def idle(seconds: float) -> dict[str, Any]:
    """Measure CPU, wake-ups and memory of a server that nobody asks, with the default timetable."""
    with Served() as served:
        time.sleep(5)
        pids = processes(served)
        closes = served.total("fourwave_closes_seen_total")
        before = {name: (meters.all_seconds(pid), meters.sleeps(pid)) for name, pid in pids.items()}
        time.sleep(seconds)
        after = {name: (meters.all_seconds(pid), meters.sleeps(pid)) for name, pid in pids.items()}
        used = {name: after[name][0] - before[name][0] for name in pids}
        woken = {name: after[name][1] - before[name][1] for name in pids}
        return {
            "cpu_percent": {n: round(spent / seconds * 100, 3) for n, spent in used.items()},
            "cpu_percent_together": round(sum(used.values()) / seconds * 100, 3),
            "wakeups_per_second": {n: round(times / seconds, 1) for n, times in woken.items()},
            "closes_meanwhile": served.total("fourwave_closes_seen_total") - closes,
            "memory_kb": memory_kb(served),
        }


def memory_kb(served: Served) -> dict[str, dict[str, int]]:
    """Return the memory of each process, and of all: what they share counts once in pss alone."""
    pids = processes(served)
    each = {name: meters.memory_kb((pid,)) for name, pid in pids.items()}
    return {**each, "together": meters.memory_kb(tuple(pids.values()))}


def crowded(time_wait: int, connections: int) -> dict[str, Any]:
    """Measure scrapes during censuses, one a second, of so many sockets."""
    with Served("--census", "1") as served, namespace("bench") as ns:
        ns.sysctl("ipv4/tcp_max_tw_buckets", "1000000")
        ns.sysctl("ipv4/tcp_tw_reuse", "0")  # on loopback a TIME_WAIT makes room after a second
        ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
        made = [
            str(load.PROGRAM),
            "--host-netns",
            f"--connections={time_wait}",
            "--order=client",
            "--port=9",
        ]
        with crowd(ns, connections):
            subprocess.run(
                ns.command(*made, "--addresses=8"), stdout=subprocess.DEVNULL, check=True
            )
            wanted = time_wait + 2 * connections
            until(lambda: served.total("fourwave_sockets") >= wanted * 0.95, 30)
            sockets = served.total("fourwave_sockets")
            took_ms, sizes = scrapes(served)
            return {
                "sockets": sockets,
                "scrape_ms": {
                    "median": statistics.median(took_ms),
                    "p99": sorted(took_ms)[len(took_ms) * 99 // 100],
                },
                "exposition_bytes": max(sizes),
                "census_seconds": served.total("fourwave_census_seconds"),
                "lost": served.total("fourwave_lost_records_total"),
                "detectors_up": served.total("fourwave_detector_up"),
                "memory_kb": memory_kb(served),
            }


def scrapes(served: Served) -> tuple[list[float], list[int]]:
    """Scrape over some censuses; return milliseconds and bytes of each."""
    took_ms, sizes = [], []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        sizes.append(len(served.get()[0]))
        took_ms.append(round((time.perf_counter() - began) * 1000, 2))
        time.sleep(PAUSE_S)
    return took_ms, sizes


def main() -> None:
    """Print one JSON object per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time-wait", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--idle", type=float, default=60)
    wished = parser.parse_args()
    load.build()
    print(json.dumps({"idle": idle(wished.idle)}), flush=True)
    print(json.dumps({"crowded": crowded(wished.time_wait, wished.connections)}), flush=True)


if __name__ == "__main__":
    main()
