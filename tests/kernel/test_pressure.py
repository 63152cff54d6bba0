# SPDX-License-Identifier: Apache-2.0
"""Too much at once, and too little room: what is lost is counted, to the last close."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.bench import load
from tests.bench.census import crowd
from tests.bench.contenders import ACCOUNTS
from tests.pace import allowed_s
from tests.serve.served import make_closes, until
from tests.truth.netns import namespace
from tracer.batch import BatchKind
from tracer.kernel.source import KernelSource, Sizes
from tracer.recording import RecordingSource
from tracer.wire import decode_closes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace

pytestmark = pytest.mark.kernel

ROOT: Final = Path(__file__).parents[2]
ENDS_PER_CONNECTION: Final = 2
AFTERWARDS: Final = 500  # connections


@pytest.fixture(scope="module", autouse=True)
def _generator() -> None:
    load.build()


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace with ports enough."""
    with namespace("pressure") as made:
        made.sysctl("ipv4/ip_local_port_range", "1024 65000")
        made.sysctl("ipv4/tcp_max_tw_buckets", "65536")
        yield made


def make(ns: Namespace, *options: str) -> int:
    """Run the load in the namespace; return how many closes it made."""
    made = load.run("--host-netns", "--order=client", "--port=9", *options, prefix=ns.command())
    assert made["errors"] == 0
    return int(made["connections"]) * ENDS_PER_CONNECTION


class Resident:
    """`fourwave watch --summary` of one namespace."""

    def __init__(self, netns: int) -> None:
        """Start it and wait until it is ready."""
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tracer", "watch", "--summary", "--netns", str(netns)],
            cwd=ROOT, stdout=self._said, stderr=self._said,
        )  # fmt: skip
        try:
            assert until(lambda: "ready" in self.said(), allowed_s(60.0)), self.said()
        except BaseException:
            self.kill()
            raise

    def said(self) -> str:
        """Return all it wrote so far."""
        place = Path(f"/proc/self/fd/{self._said.fileno()}")
        return place.read_text()

    def lost(self) -> int:
        """Return how many closes it has said it lost."""
        told = re.findall(r"^lost: ([\d,]+)", self.said(), re.MULTILINE)
        return int(told[-1].replace(",", "")) if told else 0

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it sleep meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it, whatever it does, unless it has ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._said.close()

    def stop(self) -> dict[str, int]:
        """End it; return its accounts: shown, closes, lost, unaccounted."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(allowed_s(60.0)) == 0, self.said()
        text = self.said()
        return {name: _sum(pattern.findall(text)) for name, pattern in ACCOUNTS.items()}


@pytest.fixture
def resident(ns: Namespace) -> Iterator[Resident]:
    """It ends with the test, however that ends."""
    started = Resident(ns.inum)
    yield started
    started.kill()


def _sum(numbers: list[str]) -> int:
    return sum(int(number.replace(",", "")) for number in numbers)


def assert_all_accounted(accounts: dict[str, int], made: int) -> None:
    """Every close made is shown or lost, on a host whose other traffic may be lost too."""
    missing = made - accounts["shown"]
    assert accounts["unaccounted"] == 0, accounts
    assert 0 <= missing <= accounts["lost"], (made, accounts)
    others = accounts["closes"] - made
    assert accounts["lost"] - missing <= others, (made, accounts)


def test_stopped_for_seconds_under_full_load(ns: Namespace, resident: Resident) -> None:
    """The rings run over; the kernel counts on; afterwards nothing more is lost."""
    with resident.stopped():
        made = make(ns, "--seconds=4")
    assert until(resident.lost, 10), "four seconds at full load must overflow the rings"
    lost = resident.lost()
    made += make(ns, f"--connections={AFTERWARDS}")
    time.sleep(1.5)  # a loss would be told with the next totals, once a second
    assert resident.lost() == lost
    accounts = resident.stop()
    assert accounts["shown"] >= AFTERWARDS * ENDS_PER_CONNECTION
    assert_all_accounted(accounts, made)


def test_told_to_end_under_full_load(ns: Namespace, resident: Resident) -> None:
    """What is in the rings at that moment is counted, whichever ring is being read."""
    with subprocess.Popen(
        ns.command(str(load.PROGRAM), "--host-netns", "--seconds=3"), stdout=subprocess.PIPE
    ) as generator:
        time.sleep(1.5)
        accounts = resident.stop()
        generator.wait(60)
    assert accounts["shown"] > 0
    assert accounts["unaccounted"] == 0, accounts


@pytest.mark.parametrize(
    ("sizes", "where"),
    [
        (Sizes(ring_bytes=1 << 14), "ring_full"),
        (Sizes(slots=64, conn_max=64), "conn_map_full"),
    ],
    ids=["tiny ring", "tiny tables"],
)
def test_too_little_room(ns: Namespace, sizes: Sizes, where: str) -> None:
    """Records and losses add up to the closes made, and the loss says where."""
    with KernelSource(KernelSource.load(sizes)) as source:
        if where == "ring_full":
            made = make(ns, "--seconds=1")
        else:
            with crowd(ns, 1000):
                pass
            made = 2000
        before = records_of(source, ns.inum)
        for _ in range(2):  # as a resident does every few seconds
            source.sweep()
        again = make(ns, f"--connections={AFTERWARDS}") if where == "conn_map_full" else 0
        after, totals = settled(source, ns)
    records, made = before + after, made + again
    lost = {name: totals[name] for name in ("ring_full", "conn_map_full", "unseen")}
    assert lost[where] > 0, lost
    assert records < made
    assert made - records <= sum(lost.values()), (made, records, lost)
    assert made <= totals["closes"]
    # What found no room is told once, though two programs looked for some.
    assert totals["closes"] - made <= made // 20, (made, totals)
    if again:
        # The last of the crowd may still be ending, and others on this host take places, too;
        # what found no room is counted above.
        assert after >= again // 10, "room is found again once connections have ended"


def test_the_kernel_tells_who_waits() -> None:
    """Of the first close after the ring was empty; nobody is woken up before."""
    with KernelSource(KernelSource.load()) as source:
        for _ in range(3):
            source.drain()
            threading.Timer(0.2, make_closes, [1]).start()
            began_s = time.monotonic()
            source.wait(60)
            assert source.waiting_bytes
            assert time.monotonic() - began_s < 30


def records_of(source: KernelSource, netns: int) -> int:
    """Drain; return how many records were of the namespace."""
    batch = source.drain()
    return int((decode_closes(batch.data)["netns"] == netns).sum()) if batch else 0


def unfinished(ns: Namespace) -> set[str]:
    """Return the states of sockets that have yet to end: neither listening nor in TIME_WAIT."""
    table = subprocess.check_output(ns.command("cat", "/proc/net/tcp"), text=True)
    return {line.split()[3] for line in table.splitlines()[1:]} - {"06", "0A"}


def settled(source: KernelSource, ns: Namespace) -> tuple[int, dict[str, Any]]:
    """Stop following once all has ended; return the last records and the final totals."""
    assert until(lambda: not unfinished(ns))
    source.stop_following()
    for _ in range(2):
        source.sweep()
        time.sleep(0.1)
    totals = json.loads(bytes(source.counters().data))
    return records_of(source, ns.inum), totals


def test_disk_full_while_recording(ns: Namespace, tmp_path: Path) -> None:
    """It says so and ends with 1; the file is whole up to there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "fw-pressure", disk], check=True)
    try:
        file = disk / "closes.rec"
        command = [sys.executable, "-m", "tracer", "record", str(file)]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as recorder:
            assert recorder.stderr is not None
            assert recorder.stderr.readline().startswith("ready")
            make(ns, "--connections=20000")
            said = recorder.stderr.read()
            assert recorder.wait(30) == 1, said
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert whole_records(file) > 1000
    finally:
        subprocess.run(["umount", disk], check=True)


def whole_records(path: Path) -> int:
    """Return how many closes can be read back."""
    with RecordingSource(str(path)) as recording:
        return sum(
            len(decode_closes(batch.data)) for batch in recording if batch.kind is BatchKind.CLOSES
        )
