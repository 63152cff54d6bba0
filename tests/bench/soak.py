# SPDX-License-Identifier: Apache-2.0
"""Mixed load for many minutes: memory stays, descriptors stay, and every close is counted.

    python -m tests.bench.soak [--minutes N] [--rate N]

`serve` is scraped every second; beside it `watch --summary` counts the generator's own
namespace. Prints one JSON object a minute and one at the end; exits with 1 when something grew
or does not add up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.bench import load, meters
from tests.bench.contenders import CONTENDERS, FOURWAVE, Contender, Running, running
from tests.truth.netns import namespace

SECONDS_PER_LOAD: Final = 5
ORDERS: Final = "client,server,half-close,reset,server-reset"
WARM_UP: Final = 0.2  # of the time: caches and arenas find their size
GROWTH_MAX_KB: Final = 2048
DRAIN_SECONDS: Final = 1.0


def descriptors(process: Running) -> int:
    """Return how many its processes have open."""
    return sum(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for pid in process.pids)


def look(residents: dict[str, Running], made: int) -> dict[str, Any]:
    """Return memory and descriptors of each."""
    return {
        "closes_made": made,
        **{
            name: {
                "anonymous_kb": meters.memory_kb(process.pids)["anonymous"],
                "descriptors": descriptors(process),
            }
            for name, process in residents.items()
        },
    }


def soak(
    seconds: float, rate: int, residents: dict[str, Running], prefix: list[str]
) -> list[dict[str, Any]]:
    """Load in turns, `rate` connections a second; return what was seen after each."""
    looks: list[dict[str, Any]] = []
    made, end, told = 0, time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < end:
        options = (
            f"--order={ORDERS}",
            f"--rate={rate}",
            "--request=64",
            "--response=512",
            "--port=9",
        )
        done = load.run("--host-netns", f"--seconds={SECONDS_PER_LOAD}", *options, prefix=prefix)
        made += 2 * done["connections"]
        looks.append(look(residents, made))
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(json.dumps(looks[-1]), flush=True)
    time.sleep(DRAIN_SECONDS)
    return looks


def complaints(looks: list[dict[str, Any]], counted: dict[str, int], shown: int) -> list[str]:
    """Return what grew, and what does not add up."""
    found = []
    warm = looks[int(len(looks) * WARM_UP)]
    for name in [name for name in looks[-1] if name != "closes_made"]:
        first, last = warm[name], looks[-1][name]
        if last["anonymous_kb"] - first["anonymous_kb"] > GROWTH_MAX_KB:
            grown = f"{first['anonymous_kb']} to {last['anonymous_kb']} kB"
            found.append(f"{name}: anonymous memory grew from {grown}")
        if last["descriptors"] > first["descriptors"]:
            grown = f"{first['descriptors']} to {last['descriptors']}"
            found.append(f"{name}: descriptors grew from {grown}")
    made = looks[-1]["closes_made"]
    if counted.get("unaccounted"):
        found.append(f"unaccounted: {counted['unaccounted']}")
    if shown != made:
        found.append(f"{made} closes made, {shown} counted, {counted.get('lost', 0)} lost")
    return found


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="(%(default)s)")
    parser.add_argument("--rate", type=int, default=0, help="connections a second; 0: all it can")
    options = parser.parse_args()
    load.build()
    serve = next(one for one in CONTENDERS if one.scraped)
    with namespace("soak") as ns, tempfile.TemporaryDirectory() as scratch:
        ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
        folders = [Path(scratch, name) for name in ("serve", "watch")]
        for folder in folders:
            folder.mkdir()
        command = (*FOURWAVE, "watch", "--summary", "--netns", str(ns.inum))
        watch = Contender("watch", command, ours=True)
        with running(serve, folders[0]) as server, running(watch, folders[1]) as watcher:
            residents = {"serve": server, "watch": watcher}
            looks = soak(options.minutes * 60, options.rate, residents, ns.command())
        counted = watcher.accounts()
    shown = counted.pop("shown", 0)
    found = complaints(looks, counted, shown)
    last = {"first": looks[0], "last": looks[-1], "watch": counted, "shown": shown}
    print(json.dumps({**last, "complaints": found}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
