# SPDX-License-Identifier: Apache-2.0
"""Make the golden recordings again: `make golden`, on a kernel the programs run on, as root.

With names of scenarios only theirs are made. With `--judge-only` all stay, and what they are read
as now is taken for right: after a change of sentences or rules, whose effect the difference of
expected.json then shows.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.golden.replay import FOLDER, SUFFIX, path_of, write_expected
from tests.truth.bench import settle
from tests.truth.mixed import SCENARIOS
from tests.truth.netns import loopback
from tests.truth.sockets import Flavour
from tests.truth.wire import wired_pair
from tracer.batch import Batch, BatchKind
from tracer.recording import RecordingSource, RecordingWriter
from tracer.tcp import RecordType
from tracer.wire import CLOSE_DTYPE, decode_closes, encode_closes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.truth.netns import Net
    from tests.truth.scenario import Scenario
    from tests.truth.wire import Wire
    from tracer.wire import Records

ROOT = FOLDER.parents[1]
ON_WIRE = (Flavour.V4, Flavour.V6)


@dataclass(frozen=True, slots=True)
class Take:
    """When and where one scenario was played, and how many ends it had."""

    name: str
    inums: frozenset[int]
    start_ns: int
    end_ns: int
    ends: int


def play(entry: Scenario, flavour: Flavour, net: Net, wire: Wire | None = None) -> Take:
    """Make one connection of a scenario."""
    start_ns = time.monotonic_ns()
    made = entry.run(net, flavour, 1, wire=wire)
    settle(net)
    return Take(entry.name, net.inums, start_ns, time.monotonic_ns(), sum(one.ends for one in made))


def play_all(names: Collection[str]) -> Iterator[Take]:
    """Make one connection of every scenario named, the address families in turn."""
    with loopback("golden") as net, wired_pair("golden") as wired:
        for index, entry in enumerate(SCENARIOS.values()):
            if entry.name not in names:
                continue
            if entry.wired:
                flavour = ON_WIRE[index % len(ON_WIRE)]
                yield play(entry, flavour, wired.net, wired.wire)
            else:
                yield play(entry, list(Flavour)[index % len(Flavour)], net)


def record(path: Path, names: Collection[str]) -> list[Take]:
    """Play these scenarios while `fourwave record` runs."""
    command = [sys.executable, "-m", "tracer", "record", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            assert said.startswith("ready"), said
            takes = list(play_all(names))
        finally:
            process.send_signal(signal.SIGINT)
        sys.stderr.write(process.stderr.read())
    assert process.returncode == 0
    return takes


def split(path: Path, takes: list[Take]) -> None:
    """Write a recording of its own for every take: its closes and its resets, nothing else."""
    with RecordingSource(str(path)) as source:
        header = source.header
        batches = [batch for batch in source if batch.kind is BatchKind.CLOSES]
    records = np.concatenate([decode_closes(bytes(batch.data)) for batch in batches])
    header["kernel_release"] = header["kernel_release"].partition("-")[0]
    names = header["rst_reasons"]
    for take in takes:
        mine = cut(records, take)
        used = {str(number) for number in mine["rst_reason"].tolist()}
        header["rst_reasons"] = {number: names[number] for number in sorted(used & set(names))}
        with RecordingWriter(str(path_of(take.name)), header, force=True) as writer:
            mono_ns = int(mine["closed_ns"].max())
            writer.write(Batch(BatchKind.CLOSES, mono_ns, encode_closes(mine)))
        path_of(take.name).chmod(0o644)  # made for everybody, unlike other recordings


def cut(records: Records, take: Take) -> Records:
    """Return the records of one take; what names the host is taken out."""
    when = (records["closed_ns"] >= take.start_ns) & (records["closed_ns"] <= take.end_ns)
    closes = records["type"] == RecordType.CLOSE
    mine = closes & when & np.isin(records["netns"], list(take.inums))
    resets = ~closes & np.isin(records["cookie"], records["cookie"][mine])
    assert np.count_nonzero(mine) == take.ends, f"{take.name}: {np.count_nonzero(mine)} closes"
    found: Records = np.array(records[mine | resets], dtype=CLOSE_DTYPE)
    found["cgroup_id"] = 0
    return found


def main(words: list[str]) -> int:
    """Make them all."""
    parser = argparse.ArgumentParser(prog="make golden", description=__doc__)
    parser.add_argument("--judge-only", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these scenarios alone")
    options = parser.parse_args(words)
    if not options.judge_only:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole")
            takes = record(whole, options.names or SCENARIOS)
            for old in FOLDER.glob(f"*{SUFFIX}"):
                if not options.names or old.stem not in SCENARIOS:
                    old.unlink()
            split(whole, takes)
    write_expected()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
