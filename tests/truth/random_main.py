# SPDX-License-Identifier: Apache-2.0
"""Random teardowns from the command line: `python -m tests.truth.random_main --help`.

Prints what every network showed; exits with 1 when a record and the packets disagree.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.truth.netns import loopback, veth_pair
from tests.truth.random_check import run_random
from tests.truth.watch import Watch, only_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.truth.netns import Net
    from tests.truth.random_check import Outcome

NETS = {"loopback": loopback, "veth": veth_pair}
# What is captured at once; also how many connections at most are made again after a failure.
ROUND = 2_000
REPEATS = 200


@contextlib.contextmanager
def traced(name: str) -> Iterator[tuple[Net, Watch]]:
    """Make a network and a tracer that shows what happens there."""
    with NETS[name](f"random-{name}"[:9]) as net, Watch(only_in(net.inums)) as watch:
        yield net, watch


def told(outcome: Outcome, watch: Watch) -> bool:
    """Print the outcome; whether nothing is wrong with it."""
    wrong = outcome.wrong(watch)
    text = outcome.text() if wrong or outcome.unknown else outcome.run.report.summary()
    print(f"{outcome.net}: {text}\n  {outcome.tally()}", flush=True)
    for line in wrong:
        print(f"  WRONG: {line}", flush=True)
    return not wrong


def run_network(name: str, seed: int, indices: Sequence[int]) -> bool:
    """Run in rounds; whether all was right."""
    right = True
    with traced(name) as (net, watch):
        for start in range(0, len(indices), ROUND):
            with tempfile.TemporaryDirectory() as folder:
                some = indices[start : start + ROUND]
                right &= told(run_random(net, Path(folder), watch, seed, some), watch)
    return right


def main(words: list[str]) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="random_main", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000, help="connections, over all networks")
    parser.add_argument("--index", type=int, help=f"this connection alone, {REPEATS} times")
    parser.add_argument("--net", choices=NETS, help="this network alone")
    options = parser.parse_args(words)
    names = [options.net] if options.net else list(NETS)
    each = options.count // len(names)
    right = True
    for place, name in enumerate(names):
        indices = range(place * each, (place + 1) * each)
        if options.index is not None:
            right &= run_network(name, options.seed, [options.index] * REPEATS)
        else:
            right &= run_network(name, options.seed, indices)
    return not right


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
