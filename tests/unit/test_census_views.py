# SPDX-License-Identifier: Apache-2.0
"""Tables and JSON lines of leaks, ports and listeners: widths, escapes, keys, filters."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit import censuses as c
from tracer.census import STATES
from tracer.detectors.accept_waits import AcceptWait
from tracer.detectors.census_filter import CensusFilter
from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.finding import unit_of
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.local_ports import LocalPorts
from tracer.detectors.port_failures import PortFailure
from tracer.detectors.socket_states import socket_states
from tracer.detectors.stale import stale, still
from tracer.detectors.time_wait import TimeWait
from tracer.origins import Frame, How, Origin, Origins
from tracer.outputs import census as counts
from tracer.outputs import findings as form
from tracer.outputs import killing, leaks, listeners, ports
from tracer.outputs import origins as stacks
from tracer.outputs.screen import Screen
from tracer.outputs.table import Column, lines
from tracer.outputs.text import cut
from tracer.tcp import WAITED_MAX_US, TcpState

if TYPE_CHECKING:
    from tracer.census import Census
    from tracer.detectors.close_wait_leak import CloseWaitReport

DOCS = Path(__file__).parents[2] / "docs"
LONG_V6 = "2001:db8:1111:2222:3333:4444:5555:6666"
PAGES = ("leaks", "ports", "listeners", "census")
FAILED = [PortFailure(1, "10.0.0.9", 5432, 7, "web", 1_000)]
HOSTILE = b"\x1b[31mevil\n\xff"


@pytest.fixture
def busy() -> Census:
    """Two namespaces, long addresses, hostile names, big numbers."""
    leaking = np.concatenate([c.close_wait(20 + i / 10, unread=9) for i in range(2_000)])
    far = np.concatenate([
        c.outbound(30 + i, netns=2, laddr=LONG_V6, raddr=LONG_V6, family=6, rport=65_535)
        for i in range(30)
    ])  # fmt: skip
    listener = c.listener(65_535, laddr=LONG_V6, family=6, accept_queue=4_097,
                          accept_queue_limit=4_096, drops=4_000_000_000)  # fmt: skip
    owners = [
        c.held_by(one, 4_194_303, 4_194_304, comm=HOSTILE) for one in (leaking, far, listener)
    ]
    remaining = [2_000] * 12
    towards = c.ports(raddr=LONG_V6, laddr=LONG_V6, family=6, rport=65_535, in_use=4_000,
                      time_wait=24_000, remaining=remaining)  # fmt: skip
    service = c.ports(inbound=1, lport=443, time_wait=1_000_000, remaining=[83_333] * 12, netns=2)
    states = np.concatenate([
        c.row(STATES, netns=1 + i % 2, cgroup_id=4 + i % 3, state=8, substate=8, count=10**9)
        for i in range(6)
    ])  # fmt: skip
    many = replace(c.FACTS, sockstat={"orphan": 131_072}, max_orphans=131_072)
    spaces = {1: many, 2: replace(c.FACTS, name="a-namespace-with-a-long-name\x1b[0m")}
    return c.census(
        0, [leaking, far, c.listener(80), listener], owners, [towards, service],
        namespaces=spaces, processes={4_194_303: c.process()}, truncated={"sockets": 12},
        states=states, cgroups={5: "/system.slice/\x1b[1mweb.service", 6: None},
    )  # fmt: skip


WAITS = listeners.Waits(
    {(1, 80): AcceptWait(accepted=1_000, p50_us=60, p99_us=1_200, max_us=3_000_000, beyond=0)}
)


FRAME = Frame("evil\udcff\x1b[31m" + "long" * 40, "module\n", 12)
STACK = Origin(How.ACCEPTED, 4_194_304, HOSTILE, 1_999, (FRAME,) * 11, gone=True)


def with_stacks(report: CloseWaitReport) -> leaks.Leaks:
    """Return what there is to show, with the same stack for each group but the last."""
    origins: list[Origins | None] = [Origins((STACK,), 2_000, 1)] * len(report.findings)
    return leaks.Leaks(report, report.findings, [*origins[1:], None][: len(origins)], {})


def views(census: Census, width: int) -> dict[str, list[str]]:
    found, destinations = CloseWaitLeak().look(census), LocalPorts().look(census)
    heard, (services, totals) = ListenOverflow().look(census), TimeWait().look(census)
    served = [service for service in services if service.lport]
    failures = FAILED if len(census.ports) else None
    stale_ones = stale(census, CensusFilter(), [TcpState.CLOSE_WAIT], 0)
    return {
        "leaks": leaks.as_lines(with_stacks(found), census, width, color=False),
        "ports": ports.as_lines(
            ports.Ports(destinations, served, totals, failures), census, width, color=False
        ),
        "listeners": listeners.as_lines(heard, heard.findings, census, WAITS, width, color=False),
        "kill": killing.as_lines(stale_ones, census, 20, width, color=False),
        "census": counts.as_lines(socket_states(census), census, width, "sockets", 2, color=False),
    }


@pytest.mark.parametrize("width", [79, 119])
@pytest.mark.parametrize("view", ["leaks", "ports", "listeners", "kill", "census"])
def test_fits_and_is_harmless(busy: Census, view: str, width: int) -> None:
    """Whatever the names and numbers, no line is wider, and none moves the cursor."""
    shown = views(busy, width)[view]
    assert max(map(len, shown)) <= width
    assert all(line.isprintable() for line in shown)
    if view != "kill":
        assert any("LEFT OUT 12 sockets" in line for line in shown)


def test_json_lines_hold_what_the_docs_promise(busy: Census) -> None:
    """One object a line, version and type first, nothing but JSON's own types."""
    found, destinations = CloseWaitLeak(listed=2).look(busy), LocalPorts().look(busy)
    heard, (services, totals) = ListenOverflow().look(busy), TimeWait().look(busy)
    text = [
        *leaks.as_json(with_stacks(found), busy),
        *ports.as_json(ports.Ports(destinations, services[1:], totals, FAILED), busy),
        *listeners.as_json(heard, heard.findings, busy, WAITS),
        *killing.as_json(busy.sockets[:2], busy, None, str),
        *counts.as_json(socket_states(busy), busy, "sockets", 20),
    ]
    objects = [json.loads(line) for line in text]
    assert all(list(one)[:2] == ["v", "type"] for one in objects)
    assert {one["type"] for one in objects} == {
        "close_wait_group", "close_wait_total", "local_ports", "port_failure", "time_wait",
        "time_wait_total", "listener", "listen_total", "kill", "netns_states", "cgroup_states",
        "states_total",
    }  # fmt: skip
    assert all(line.count("\n") == 1 for line in text)
    pages = "".join((DOCS / f"{page}.md").read_text() for page in PAGES)
    told = set(re.findall(r"`([a-z0-9_]+)`", pages))
    assert {key for one in objects for key in keys_of(one)} - {"v", "type"} <= told


def keys_of(value: object) -> set[str]:
    """Return all keys of an object and of those within; data under `left_out` is not ours."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if not isinstance(value, dict):
        return set()
    inner = [keys_of(one) for key, one in value.items() if key != "left_out"]
    return set(value).union(*inner)


def test_the_wait_for_accept_is_shown_where_it_is_known() -> None:
    census = c.census(0, [c.listener(80), c.listener(81)])
    heard = ListenOverflow().look(census)
    for waits, known in ((WAITS, ["1.2ms", "-"]), (listeners.Waits(), [])):
        lines = listeners.as_lines(heard, heard.findings, census, waits, 79, color=False)
        (titles,) = (line.split() for line in lines if "LISTENER" in line)
        assert ("WAIT" in titles) == bool(known)
        shown = [line.split()[-1] for line in lines if ":80 " in line or ":81 " in line]
        assert not known or shown == known
    first, second = map(
        json.loads, list(listeners.as_json(heard, heard.findings, census, WAITS))[:2]
    )
    assert first["accept_wait"] == asdict(WAITS.by_port[1, 80])
    assert second["accept_wait"] is None


def test_a_stack_is_told_below_its_group() -> None:
    """Eight frames at most; of an interpreter's the functions of its language alone."""
    frames = (
        Frame("accept4", "libc.so.6", 19),
        Frame("py::serve:/srv/app.py", None, 11),
        Frame("eval", "python3", 1_000),
        Frame(None, "python3", 4_660),
        *(Frame(f"py::f{n}:/srv/app.py", None, 11) for n in range(9)),
    )
    origin = Origin(How.CONNECTED, 7, b"web", 40, frames, gone=False)
    shown = stacks.as_lines(Origins((origin,), 52, 12), 79)
    assert shown[:3] == [
        "    connect() by web[7], 40 of 52 sockets:",
        "        py::serve:/srv/app.py+0xb",
        "        py::f0:/srv/app.py+0xb",
    ]
    assert shown[9:] == [
        "        (2 frames more)",
        "    No stack of 12 of 52 sockets: opened before this began, or not noted.",
    ]
    native = replace(origin, frames=(frames[0], frames[3], Frame(None, None, 0x7F00)), gone=True)
    assert stacks.as_lines(Origins((native,), 1, 0), 79) == [
        "    connect() by web[7], which is gone, 40 of 1 socket:",
        "        accept4+0x13 (libc.so.6)",
        "        python3+0x1234",
        "        0x7f00",
    ]
    assert stacks.as_json(None) is None


def test_a_wait_too_long_for_its_field_is_a_lower_bound() -> None:
    census = c.census(0, [c.listener(80)])
    heard = ListenOverflow().look(census)
    long = AcceptWait(100, p50_us=60, p99_us=WAITED_MAX_US, max_us=WAITED_MAX_US, beyond=2)
    waits = listeners.Waits({(1, 80): long})
    shown = listeners.as_lines(heard, heard.findings, census, waits, 79, color=False)
    assert [line.split()[-1] for line in shown if ":80 " in line] == ["≥1.1h"]


def test_what_closes_left_out_is_told() -> None:
    """In the table and in JSON, beside what the census left out; zero is no loss."""
    census = c.census(0, [c.listener(80)], truncated={"users": 3})
    heard, (_, totals) = ListenOverflow().look(census), TimeWait().look(census)
    lost = {"openers of connections": 6, "failures of connect()": 0}
    found = ports.Ports((), (), totals, (), lost)
    waits = listeners.Waits(left_out={"waits for accept()": 5})
    told = "LEFT OUT {}: more than are told apart.".format
    shown = ports.as_lines(found, census, 79, color=False)
    assert [line for line in shown if "told apart" in line] == [told("6 openers of connections")]
    for chosen in (heard.findings, ()):
        shown = listeners.as_lines(heard, chosen, census, waits, 79, color=False)
        assert told("5 waits for accept()") in shown
    report = CloseWaitLeak().look(census)
    suspects = leaks.Leaks(report, (), (), {"stacks of sockets": 9})
    assert told("9 stacks of sockets") in leaks.as_lines(suspects, census, 79, color=False)
    (total,) = map(json.loads, leaks.as_json(suspects, census))
    assert total["left_out"] == {"users": 3, "stacks of sockets": 9}
    (total,) = map(json.loads, ports.as_json(found, census))
    assert total["left_out"] == {"users": 3, "openers of connections": 6}
    *_, total = map(json.loads, listeners.as_json(heard, (), census, waits))
    assert total["left_out"] == {"users": 3, "waits for accept()": 5}


def test_empty_views_say_so() -> None:
    shown = views(c.census(), 79)
    assert shown["leaks"] == ["No socket is in CLOSE_WAIT."]
    assert shown["ports"] == ["No local port is taken."]
    assert shown["listeners"] == ["No socket listens."]
    assert shown["census"] == [
        "There is no TCP socket.",
        "",
        "0 sockets in 1 network namespace. 1 of them has none.",
    ]


def test_what_filters_leave_nothing_of_is_not_told_to_be_nothing() -> None:
    """There are sockets and destinations, only not those."""
    counted = c.row(STATES, netns=1, state=TcpState.CLOSE_WAIT, substate=8, count=7_593)
    held = c.close_wait(60)
    census = c.census(0, [held], [c.held_by(held, 8)], ports=[c.ports(in_use=2)], states=counted)
    narrowed = CensusFilter(pids=(7,)).narrow(census)
    suspects = with_stacks(CloseWaitLeak().look(narrowed))
    assert leaks.as_lines(suspects, census, 79, color=False) == [
        "None of 7,593 sockets in CLOSE_WAIT is what was asked for."
    ]
    found = ports.Ports(LocalPorts().look(narrowed), (), (), None)
    assert ports.as_lines(found, census, 79, color=False) == [
        "None of 1 destination is what was asked for."
    ]


def test_a_census_without_any_owner_is_explained() -> None:
    """In a container the sockets are seen, and none of the processes."""
    sockets = [c.close_wait(60), c.listener()]
    for view in ("leaks", "listeners", "census"):
        alone = views(c.census(0, sockets), 79)[view]
        assert any("NOBODY was found who holds any of 2 sockets" in line for line in alone)
        owned = views(c.census(0, sockets, [c.held_by(sockets[0], 7)]), 79)[view]
        assert not any("NOBODY" in line for line in owned)
    queued = c.close_wait(60, ino=0, flags=0)
    assert not any("NOBODY" in line for line in views(c.census(0, [queued]), 79)["leaks"])


def test_where_time_waits_reach_their_limit_comes_first() -> None:
    """Also when every destination there is fine; and how many are not shown is told."""
    spaces = {1: c.FACTS, 2: replace(c.FACTS, max_tw_buckets=10)}
    rows = [c.ports(in_use=99), c.ports(netns=2, time_wait=10, remaining=[10] + [0] * 11)]
    census = c.census(ports=rows, namespaces=spaces)
    found, (services, totals) = LocalPorts().look(census), TimeWait().look(census)
    assert [finding.netns for finding in found] == [1, 2]
    assert services[0].lport is None
    chosen = ports.Ports(found, (), totals, None, not_shown={"destination": 7, "service": 0})
    shown = ports.as_lines(chosen, census, 79, color=False)
    assert [line[:7] for line in shown if line.startswith("netns")] == ["netns 2", "netns 1"]
    assert "(7 destinations not shown)" in shown
    assert not any("0 services" in line for line in shown)


def test_a_namespace_that_is_not_there_is_told() -> None:
    shown = views(c.census(truncated={"namespaces": 1}), 79)["census"]
    assert shown[-1] == "LEFT OUT 1 network namespace: not found, or not to be entered."


def test_all_younger_is_said() -> None:
    sockets = [c.close_wait(1) for _ in range(12)]
    census = c.census(0, sockets, [c.held_by(np.concatenate(sockets), 7)])
    assert views(census, 79)["leaks"] == ["No CLOSE_WAIT older than 10s: 12 sockets, all younger."]


# --- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (CensusFilter(), 5),
        (CensusFilter(ports=(80,)), 3),
        (CensusFilter(ports=(5432,)), 2),
        (CensusFilter(pids=(7,)), 3),
        (CensusFilter(comms=("ser*",)), 2),
        (CensusFilter(comms=("nob*",)), 0),
        (CensusFilter(raddrs=(ipaddress.IPv6Network("::ffff:10.0.0.0/104"),), pids=(7,)), 3),
        (CensusFilter(ports=(80,), pids=(8,)), 0),
    ],
)
def test_filter(chosen: CensusFilter, expected: int) -> None:
    """Of a socket in the accept queue, its listener's holders are asked."""
    accepted, queued = [c.close_wait(60) for _ in range(2)], c.close_wait(60, ino=0, flags=0)
    pool, listener = [c.outbound(60) for _ in range(2)], c.listener()
    owners = [
        c.held_by(np.concatenate([*accepted, listener]), 7, comm=b"web"),
        c.held_by(np.concatenate(pool), 8),
    ]
    census = c.census(0, [*accepted, queued, *pool, listener], owners)
    narrowed = chosen.narrow(census).sockets
    assert (narrowed["state"] == TcpState.CLOSE_WAIT).sum() == expected
    assert (narrowed["state"] == TcpState.LISTEN).sum() == 1


def test_a_process_narrows_destinations_and_services() -> None:
    """Those it is connected to, and those it listens on."""
    listener = c.listener(80)
    census = c.census(
        sockets=[listener, c.listener(81)],
        owners=[c.held_by(listener, 7)],
        ports=[
            c.ports(in_use=2),
            c.ports(in_use=1, raddr="10.0.0.8"),
            *(c.ports(inbound=1, lport=port, rport=0, raddr="::", laddr="::") for port in (80, 81)),
        ],
        users=[c.user(2, 7), c.user(1, 8, raddr="10.0.0.8")],
    )
    narrowed = CensusFilter(pids=(7,)).narrow(census)
    assert narrowed.ports["in_use"].tolist() == [2, 0]
    assert narrowed.ports["lport"].tolist() == [0, 80]
    assert narrowed.users["tgid"].tolist() == [7]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (CensusFilter(), True),
        (CensusFilter(ports=(5432,), pids=(7,), comms=("w*",)), True),
        (CensusFilter(ports=(80,)), False),
        (CensusFilter(pids=(8,)), False),
        (CensusFilter(comms=("x*",)), False),
        (CensusFilter(raddrs=(ipaddress.IPv6Network("::ffff:10.0.0.0/104"),)), True),
        (CensusFilter(raddrs=(ipaddress.IPv6Network("::ffff:11.0.0.0/104"),)), False),
    ],
)
def test_filter_of_failures(chosen: CensusFilter, *, expected: bool) -> None:
    """The same words as for sockets."""
    assert chosen.admits(FAILED[0]) is expected


def test_ages_are_marked_unless_the_bounds_are_close() -> None:
    """A look every minute knows little of what came between."""
    shown = [
        form.age(*bounds) for bounds in [(500, 1400), (500, 1600), (60_000, 62_000), (9, None)]
    ]
    assert [text.startswith("≥") for text in shown] == [False, True, False, True]


# --- what may be ended ---------------------------------------------------------------------------


def test_only_the_silent_are_stale() -> None:
    sockets = [
        c.close_wait(100, lport=1),
        c.close_wait(200, lport=2),
        c.close_wait(200, lport=3, age_sent_ms=5),
        c.close_wait(200, lport=4, age_received_ms=-1, age_sent_ms=-1),
        c.close_wait(200, lport=5, state=TcpState.ESTABLISHED),
        c.close_wait(200, lport=6, state=TcpState.FIN_WAIT2),
    ]
    found = stale(c.census(0, sockets), CensusFilter(), [TcpState.CLOSE_WAIT], 60_000)
    assert found["lport"].tolist() == [2, 1]


def test_what_changed_meanwhile_is_left_alone() -> None:
    before = np.concatenate([c.close_wait(100) for _ in range(4)])
    after = before[1:].copy()
    after["state"][0] = TcpState.LAST_ACK
    after["cookie"][1] += 1_000_000
    assert still(before, after)["cookie"].tolist() == [int(before["cookie"][3])]


def test_a_socket_without_a_cookie_is_never_ended() -> None:
    before = c.close_wait(100, cookie=0)
    assert len(still(before, before)) == 0


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (None, None),
        ("/", None),
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/worker", "nginx.service"),
        ("/user.slice/user-0.slice/session-3.scope", "session-3.scope"),
        (f"/system.slice/docker-{'ab' * 32}.scope", "abababababab"),
        (f"/kubepods/burstable/pod1/{'0' * 64}", "000000000000"),
        ("/batch/job", "job"),
    ],
)
def test_unit_of_a_cgroup(cgroup: str | None, unit: str | None) -> None:
    assert unit_of(cgroup) == unit


def test_table_cuts_what_may_be_cut() -> None:
    columns = [Column("NAME", least=5), Column("COUNT", right=True)]
    shown = lines(columns, [["a-long-name", "1"], ["b", "22"]], 13, color=False)
    assert shown == ["NAME    COUNT", "a-lon…      1", "b          22"]


@pytest.mark.parametrize(
    ("whole", "shown"),
    [
        ("127.0.0.1:34249", "127.0…:34249"),
        ("[2001:db8::1]:443", "[2001:d…:443"),
        ("\\x1b[31mEV[22082]", "\\x1b…[22082]"),
        ("postgres[4194304] +3", "…[4194304] +3"),
        (":443 from 10.0.0.1", ":443 from 1…"),
        ("kworker-events", "kworker-eve…"),
    ],
)
def test_a_port_and_a_pid_are_never_cut(whole: str, shown: str) -> None:
    """They are what one goes on with."""
    width = max(12, len("…[4194304] +3")) if "+3" in whole else 12
    assert cut(whole, width) == shown


def test_a_column_that_says_nothing_gives_way_first() -> None:
    """Only where there is no room, and only where all its cells say nothing."""
    columns = [Column("TO", least=4), Column("LOST", idle="0"), Column("OUT", idle="-")]
    rows = [["127.0.0.1:34249", "0", "-"], ["127.0.0.1:80", "0", "9s"]]
    assert lines(columns, rows, 26, color=False)[0] == "TO               LOST  OUT"
    assert lines(columns, rows, 25, color=False) == [
        "TO               OUT",
        "127.0.0.1:34249  -",
        "127.0.0.1:80     9s",
    ]


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        """Say so."""
        return True

    def write(self, text: str) -> None:
        """Keep it."""
        self.text += text

    def flush(self) -> None:
        """Do nothing."""


def test_screen_shows_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    Screen(terminal, repaint=True).show([f"line {i}" for i in range(9)])  # type: ignore[arg-type]
    assert terminal.text.count("\n") == 4
    assert "(6 lines more than this screen has)" in terminal.text


def test_a_narrow_screen_cuts_lines_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped ones would take two rows each; the terminal wraps again afterwards."""
    monkeypatch.setenv("LINES", "5")
    terminal = Terminal()
    Screen(terminal, repaint=True).show(["a line"])  # type: ignore[arg-type]
    before, _, after = terminal.text.partition("a line")
    assert before.endswith("\x1b[?7l\x1b[H")
    assert after.endswith("\x1b[?7h")
