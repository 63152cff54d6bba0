# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: where they are found, and what /proc says of one."""

from __future__ import annotations

import os
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tracer.kernel import netns, netns_facts, processes

MOUNTINFO: Final = """\
22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
90 28 0:4 net:[4026532281] /run/netns/blue rw shared:12 - nsfs nsfs rw
91 28 0:4 net:[4026532282] /run/docker/netns/a\\040b rw - nsfs nsfs rw
92 28 0:4 mnt:[4026532283] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
short line
"""


def test_mounted_namespaces_are_found(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    assert dict(netns._mounted(str(path), "")) == {
        4026532281: "/run/netns/blue",
        4026532282: "/run/docker/netns/a b",
    }
    seen_by_another = dict(netns._mounted(str(path), "/proc/7/root"))
    assert seen_by_another[4026532281] == "/proc/7/root/run/netns/blue"


def test_the_own_namespace_comes_first() -> None:
    inum = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - follows the link
    found = netns.find()
    assert next(iter(found.items())) == (inum, "/proc/self/ns/net")


def test_names_are_those_of_ip_netns() -> None:
    assert netns.name_of("/run/netns/blue") == "blue"
    assert netns.name_of("/var/run/netns/blue") == "blue"
    assert netns.name_of("/proc/1/ns/net") is None


def test_work_is_done_in_another_thread_and_its_error_comes_back() -> None:
    def fail() -> None:
        raise OSError(1, "no")

    assert netns.in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(OSError, match="no"):
        netns.in_thread(fail)


def test_a_path_that_leads_elsewhere_by_now_is_gone() -> None:
    """A process's number may be another process's: its namespace is looked at before."""
    other = netns.own() + 1

    def enter() -> None:
        with netns.entered(other, "/proc/self/ns/net"):
            pass

    with pytest.raises(FileNotFoundError):
        netns.in_thread(enter)


def test_a_descriptor_that_is_another_by_now_is_gone(tmp_path: Path) -> None:
    """Closed, a FIFO nobody writes to, a file, a socket of elsewhere: nothing is waited for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with (
        socket.socket() as sock,
        (tmp_path / "file").open("w") as file,
        os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)) as pipe,
    ):
        numbers = [sock.fileno(), file.fileno(), pipe.fileno(), 1 << 19]
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
        for number in numbers:
            with pytest.raises(FileNotFoundError):
                netns.in_thread(partial(_enter, f"/proc/{os.getpid()}/fd/{number}"))
        assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208


@pytest.mark.parametrize("kind", ["closed", "file"])
def test_what_changes_under_our_hands_is_gone(kind: str, tmp_path: Path) -> None:
    """It was a socket when it was looked at."""
    with (tmp_path / "file").open("w") as file:
        number = file.fileno() if kind == "file" else 1 << 19
        with pytest.raises(FileNotFoundError):
            netns._of_socket(os.getpid(), number)


def _enter(path: str) -> None:
    with netns.entered(netns.own() + 1, path):
        pass


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", ()),
        ("\n", ()),
        ("8080\n", ((8080, 8080),)),
        ("8080,9148-9150\n", ((8080, 8080), (9148, 9150))),
    ],
)
def test_reserved_ports(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert netns_facts._ranges(text) == ranges


def test_tables_are_pairs_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Tcp: MaxConn ActiveOpens\nTcp: -1 12\nUdp: In\nUdp: 3\n"
    monkeypatch.setattr(netns_facts, "_text", lambda _path: text)
    assert netns_facts._table("snmp", "Tcp") == {"ActiveOpens": 12}
    assert netns_facts._table("snmp", "TcpExt") == {}


def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns_facts, "_text", lambda _path: "")
    facts = netns_facts.read_facts("/proc/1/ns/net")
    assert facts.port_range is None
    assert facts.somaxconn is None
    assert facts.reserved_ports == ()
    assert facts.sockstat == {}


def test_facts_of_this_process() -> None:
    stat = Path("/proc/self/stat").read_text()
    started_ns = processes.start_ticks(stat) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    found = processes.read_processes({os.getpid(): started_ns, 1 << 30: 1})
    assert list(found) == [os.getpid()]
    mine = found[os.getpid()]
    assert mine.exe == os.readlink("/proc/self/exe")  # noqa: PTH115 - as it is
    assert mine.uid == os.geteuid()
    assert mine.open_fds is not None
    assert mine.open_fds >= 3


def test_another_process_of_that_number_tells_nothing() -> None:
    """As in a container, whose /proc has numbers of its own."""
    assert processes.read_processes({os.getpid(): 1}) == {}


def test_limits_and_cgroups_are_read_as_they_are_written() -> None:
    limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            {}  524288  files\n"
    assert processes._nofile(limits.format("1024")) == 1024
    assert processes._nofile(limits.format("unlimited")) is None
    assert processes._nofile("") is None
    assert processes._cgroup("1:name=systemd:/x\n0::/system.slice/a.service\n") == (
        "/system.slice/a.service"
    )
    assert processes._cgroup("1:cpu:/\n") is None
