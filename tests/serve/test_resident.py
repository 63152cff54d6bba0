# SPDX-License-Identifier: Apache-2.0
"""The processes themselves: what they keep, how they end, and what they survive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.serve.served import Served, make_closes, until
from tracer import confinement_syscalls
from tracer.kernel.mountinfo import read_mounts
from tracer.privileges import NAMESPACES, NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

HELPER_KEEPS = sum(1 << NUMBERS[name] for name in NAMESPACES)
GIVEN = ("CAP_BPF", "CAP_PERFMON", *NAMESPACES)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_nobody_keeps_more_than_it_needs(served: Served) -> None:
    """No process is root; only the one without a network has capabilities, and only three."""
    assert until(lambda: served.total("fourwave_detector_up", detector="census") == 1)
    pids = {"tracer": served.process.pid, **served.children()}
    assert set(pids) == {"tracer", "web", "census"}
    for name, pid in pids.items():
        facts = status(pid)
        assert "0" not in facts["Uid"].split(), name
        assert facts["NoNewPrivs"] == "1"
        assert int(facts["CapBnd"], 16) == 0
        assert int(facts["CapPrm"], 16) == (HELPER_KEEPS if name == "census" else 0), name
        filtered = name == "web" and confinement_syscalls.missing() is None
        assert facts["Seccomp"] == ("2" if filtered else status(os.getpid())["Seccomp"]), name


def descriptors(pid: int) -> set[str]:
    return {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_the_helper_holds_nothing_of_the_tracers(served: Served) -> None:
    """No listening socket, no ring, no link of a program that would keep it attached."""
    helper = served.children()["census"]
    links = descriptors(helper)
    ours = descriptors(served.process.pid)
    sockets = {link for link in links if link.startswith("socket:")}
    assert len(sockets) == 1
    assert not sockets & ours


def test_an_orderly_end_tells_what_was_counted() -> None:
    with Served("--census", "0") as running:
        make_closes(50)
        children = running.children()
        assert running.stop() == 0
        assert "closes" in running.said()
        assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()))


def test_a_kill_leaves_nothing_and_a_restart_begins_anew() -> None:
    with Served("--census", "1") as running:
        make_closes(100)
        assert until(lambda: running.total("fourwave_closes_total") >= 200)
        created = created_s(running)
        children = running.children()
        running.stop(signal.SIGKILL)
        assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()))
        address = f"127.0.0.1:{running.port}"
    with Served("--census", "0", "--listen", address) as again:
        assert created_s(again) > created
        assert again.total("fourwave_build_info") == 1


def created_s(running: Served) -> float:
    text = running.get(Accept="application/openmetrics-text; version=1.0.0")[0].decode()
    lines = [line for line in text.splitlines() if line.startswith("fourwave_closes_created")]
    return float(lines[0].split()[-1])


def test_an_overrun_ring_is_counted() -> None:
    """A tracer that does not come by loses closes, knows how many, and its totals add up."""
    with Served("--census", "0", "--ring-bytes", "8192") as running:
        os.kill(running.process.pid, signal.SIGSTOP)
        make_closes(300)
        os.kill(running.process.pid, signal.SIGCONT)
        assert until(lambda: running.total("fourwave_closes_seen_total") >= 600)
        assert running.total("fourwave_lost_records_total", where="ring_full") > 0

        def adds_up() -> bool:
            seen = running.total("fourwave_closes_seen_total")
            counted = running.total("fourwave_closes_total")
            return seen == counted + running.total("fourwave_lost_records_total")

        assert until(adds_up)
        assert "lost:" in running.said()


def test_tracing_goes_on_without_the_web_process() -> None:
    """It is started again; what closed meanwhile is counted."""
    with Served("--census", "0", "--user", "root") as running:
        first = running.children()["web"]
        os.kill(first, signal.SIGKILL)
        make_closes(100)
        assert until(lambda: running.children().get("web", first) != first)
        assert until(lambda: answers(running))
        assert running.total("fourwave_closes_total") >= 200


def answers(running: Served) -> bool:
    try:
        return running.total("fourwave_closes_total") >= 200
    except OSError:
        return False


def test_tracing_goes_on_without_the_census() -> None:
    """What it would tell is gone, and detectors say so; closes are counted as before."""
    with Served("--census", "1") as running:
        assert until(lambda: running.total("fourwave_detector_up", detector="census") == 1)
        os.kill(running.children()["census"], signal.SIGKILL)
        assert until(lambda: running.total("fourwave_detector_up", detector="census") == 0)
        assert running.total("fourwave_detector_up", detector="closes") == 1
        before = running.total("fourwave_closes_total")
        make_closes(100)
        assert until(lambda: running.total("fourwave_closes_total") >= before + 200)


LEAKER = r"""
import ctypes, socket, sys
sys.stdin.readline()
ctypes.CDLL(None).prctl(15, b'x"\n\\\xff}{', 0, 0, 0)
server = socket.create_server(("127.0.0.1", 0), backlog=64)
held = []
for _ in range(20):
    client = socket.create_connection(server.getsockname())
    held.append(server.accept()[0])
    client.close()
for one in held:
    one.recv(1)
print("leaking", flush=True)
sys.stdin.read()
"""


UNIT: Final = b'fw"\\}{\xff\x1b<b>.service'


@pytest.fixture
def hostile_cgroup() -> Iterator[Path]:
    """A fresh cgroup whose name is as bad as a name can be."""
    there = read_mounts("/proc/self/mountinfo")
    mounts = [mount.point for mount in there if mount.fstype == b"cgroup2"]
    if not mounts:
        pytest.skip("no cgroup2 is mounted here")
    made = Path(os.fsdecode(mounts[0])) / os.fsdecode(UNIT)
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield made
    made.rmdir()


@pytest.mark.slow
def test_a_leak_is_found_whatever_names_it_has(served: Served, hostile_cgroup: Path) -> None:
    """Twenty sockets in CLOSE_WAIT, held by a process and in a unit with hostile names."""
    leaker = subprocess.Popen(
        [sys.executable, "-c", LEAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert leaker.stdout is not None
    assert leaker.stdin is not None
    try:
        (hostile_cgroup / "cgroup.procs").write_text(str(leaker.pid))
        leaker.stdin.write(b"\n")
        leaker.stdin.flush()
        assert leaker.stdout.readline() == b"leaking\n"
        comm, unit = 'x"\\n\\\\xff}{', 'fw"\\}{\\xff\\x1b<b>.service'
        labels = {"comm": comm, "unit": unit}
        found = until(lambda: served.total("fourwave_close_wait_suspects", **labels) >= 20, 40)
        assert found, [key for key in served.series() if "suspects" in key[0]]
        assert served.total("fourwave_close_wait_oldest_seconds", comm=comm) >= 10
        assert served.total("fourwave_sockets", state="close_wait") >= 20
        page = served.get("/")[0].decode()
        assert "x&quot;" in page
        assert "&lt;b&gt;" in page
        assert "<b>" not in page
    finally:
        leaker.stdin.close()
        leaker.wait()
        leaker.stdout.close()


def test_the_service_manager_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """READY once it serves, WATCHDOG while it does, STOPPING at the end: sd_notify(3)."""
    name = f"fourwave-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(20)
        with Served("--census", "0") as running:
            first = manager.recv(4096)
            assert first.startswith(b"READY=1\n")
            assert f"MAINPID={running.process.pid}".encode() in first
            assert manager.recv(4096) == b"WATCHDOG=1"
            running.process.send_signal(signal.SIGTERM)
            assert until(lambda: manager.recv(4096) == b"STOPPING=1")


def test_it_starts_without_root(tmp_path: Path) -> None:
    """As the service does: another user from the first instruction, with five capabilities."""
    words = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in GIVEN)
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
                *(f"--inh-caps=-all,{words}", f"--ambient-caps=-all,{words}"),
                *(f"--bounding-set=-all,{words}", "--no-new-privs"),
                *(sys.executable, "-m", "tracer", "serve", "--listen", "127.0.0.1:0"),
            ],
            stderr=stderr,
        )
    try:
        assert until(lambda: "\nready" in "\n" + log.read_text(), 30), log.read_text()
        facts = status(process.pid)
        assert facts["Uid"].split() == ["65534"] * 4
        assert int(facts["CapPrm"], 16) == int(facts["CapAmb"], 16) == 0
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_root_that_may_not_become_another_is_told() -> None:
    """As in a container that was given too little."""
    words = "-setuid,-setgid"
    done = subprocess.run(
        [
            *("setpriv", f"--inh-caps={words}", f"--bounding-set={words}"),
            *(sys.executable, "-m", "tracer", "serve", "--listen", "127.0.0.1:0"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "CAP_SETUID" in done.stderr
    assert "Traceback" not in done.stderr
