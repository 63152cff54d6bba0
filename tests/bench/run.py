# SPDX-License-Identifier: Apache-2.0
"""Measure what tracing costs: untraced and traced in turn, in one run, as ratios.

Writes build/bench.json, prints the table, and with --docs writes table and plots into
docs/overhead.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import load, overhead, report
from tests.bench.contenders import CONTENDERS
from tests.bench.machine import machine
from tests.bench.measure import Plan, measure


def parse_arguments() -> argparse.Namespace:
    """Define and read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--blocks", type=int, default=10, help="per contender: untraced, traced twice, untraced"
    )
    parser.add_argument("--seconds", type=float, default=1, help="per load (%(default)s)")
    parser.add_argument("--order", default="client", help="who closes first; see closes.c")
    parser.add_argument("--threads", type=int, default=2, help="pairs of threads (%(default)s)")
    parser.add_argument("--request", type=int, default=0, help="bytes per connection (%(default)s)")
    parser.add_argument(
        "--round-trips", type=int, default=10000, help="per long connection (%(default)s)"
    )
    parser.add_argument("--starts", type=int, default=5, help="of each fourwave (%(default)s)")
    parser.add_argument(
        "--volume", type=int, default=500000, help="connections of the long run (%(default)s)"
    )
    parser.add_argument("--only", action="append", help="contenders whose name contains this")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="(%(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="keep what that file says of other contenders"
    )
    parser.add_argument("--docs", action="store_true", help="write docs/overhead.md too")
    return parser.parse_args()


def merged(earlier: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return the newer results, and the earlier ones of contenders that did not take part."""
    known = {**earlier["contenders"], **results["contenders"]}
    return {
        **results,
        "contenders": {one.name: known[one.name] for one in CONTENDERS if one.name in known},
        "volume": results["volume"] or earlier["volume"],
    }


def main() -> int:
    """Measure, write the JSON file, print the table."""
    arguments = parse_arguments()
    if os.geteuid():
        sys.exit("tests/bench/run.py: needs root: it makes network namespaces and loads BPF")
    wanted = arguments.only or [""]
    contenders = [one for one in CONTENDERS if any(word in one.name for word in wanted)]
    options = (
        f"--seconds={arguments.seconds}",
        f"--order={arguments.order}",
        f"--threads={arguments.threads}",
        f"--request={arguments.request}",
    )
    load.build()
    with tempfile.TemporaryDirectory(prefix="fourwave-bench-") as scratch:
        plan = Plan(
            blocks=arguments.blocks,
            load=options,
            round_trips=arguments.round_trips,
            starts=arguments.starts,
            volume=arguments.volume,
            scratch=Path(scratch),
        )
        results = {"machine": machine(), **measure(plan, contenders)}
    if arguments.keep and arguments.json.exists():
        results = merged(json.loads(arguments.json.read_text()), results)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.table(results))
    if arguments.docs:
        overhead.write_contenders(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
