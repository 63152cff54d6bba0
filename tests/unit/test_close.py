# SPDX-License-Identifier: Apache-2.0
"""The JSON object of the contract: its keys, its nulls and its figures."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest

from tests.unit import builders as b
from tracer.classify import classify
from tracer.close import Close, Closer, DelayedAck, Opener, closes_from, to_json
from tracer.close_text import harmless, wall_time
from tracer.tcp import ActorFlag, ConnFlag, HostFacts, RstFlag, SkFlag
from tracer.tcp import TcpState as S

CONTRACT_KEYS = [
    "v",
    "at",
    "family",
    "netns",
    "laddr",
    "lport",
    "raddr",
    "rport",
    "opened",
    "kind",
    "handshake",
    "fin_ack",
    "evidence",
    "cause",
    "rst_reason",
    "err",
    "sigpipe",
    "time_wait",
    "opener",
    "closer",
    "cgroup",
    "tx_bytes",
    "rx_bytes",
    "unread_bytes",
    "unacked_bytes",
    "unsent_bytes",
    "data_lost",
    "delayed_ack",
    "timeline_us",
    "close_wait_us",
    "teardown_us",
    "lifetime_us",
    "why",
]
MERGED = {"ato_us": 40_000, "pingpong": True, "quick": 16, "fate": "merged", "after_us": 34}
CONTRACT_EVENTS = {
    "established",
    "accepted",
    "fin_sent",
    "fin_acked",
    "fin_received",
    "ack_sent",
    "rst_sent",
    "rst_received",
    "closed",
}


def mapped(address: str) -> list[int]:
    """Return an IPv4 address as the record holds it."""
    return [*bytes(10), 0xFF, 0xFF, *ipaddress.ip_address(address).packed]


def test_sigpipe_is_true_or_not_known() -> None:
    """No record can tell that none was raised."""
    close = b.close_of(b.reset(flags=b.OPENED | ConnFlag.SIGPIPE))
    assert close.sigpipe is True
    assert close.why.endswith("; a send raised SIGPIPE")
    assert b.close_of(b.reset()).sigpipe is None


def test_the_keys_are_the_contracts() -> None:
    """Exactly these, in this order."""
    assert [f.name for f in fields(Close)] == CONTRACT_KEYS
    assert list(json.loads(to_json(b.close_of(b.passive())))) == CONTRACT_KEYS


def every_row() -> list[Close]:
    """Return a close of each builder, and many of noise with actors and cgroups."""
    noise = b.noise(np.random.default_rng(11), 2_000)
    noise["closer"]["flags"] = noise["opener"]["flags"] = ActorFlag.VALID
    names = {int(number): f'/"{number}"\\' for number in noise["cgroup_id"][::2]}
    makers = (b.passive, b.active, b.orphan, b.crossing, b.aborted, b.reset, b.timeout, b.attempt)
    made = np.concatenate([noise, *(make() for make in makers)])
    return closes_from(made, classify(made, b.HOST), b.HOST, names, 10**18)


def test_the_json_is_what_json_would_write() -> None:
    """The encoder for these objects alone differs from the standard one in time only."""
    for close in every_row():
        standard = json.dumps(asdict(close), separators=(",", ":"), ensure_ascii=False)
        assert to_json(close) == standard


def test_a_three_way_close() -> None:
    """Everything a passive close has to show."""
    made = b.passive(
        saddr=mapped("10.0.0.1"),
        daddr=mapped("192.0.2.7"),
        netns=4026531840,
        closer__comm=b"nginx",
        bytes_sent=4_000,
        cgroup_id=77,
        ack_pingpong=1,
        ack_quick=16,
    )
    close = b.close_of(made, names={77: "/system.slice/nginx.service"}, clock=1_795_000_000 * 10**9)
    assert json.loads(to_json(close)) == {
        "v": 1,
        "at": "2026-11-18T11:06:46.001000000Z",
        "family": 4,
        "netns": 4026531840,
        "laddr": "10.0.0.1",
        "lport": 40_000,
        "raddr": "192.0.2.7",
        "rport": 80,
        "opened": "passive",
        "kind": "passive",
        "handshake": "three_way",
        "fin_ack": "fin",
        "evidence": "counters",
        "cause": None,
        "rst_reason": None,
        "err": None,
        "sigpipe": None,
        "time_wait": False,
        "opener": None,
        "closer": {"pid": 4711, "comm": "nginx", "uid": 1000, "how": "close"},
        "cgroup": "/system.slice/nginx.service",
        "tx_bytes": 4_000,
        "rx_bytes": 100,
        "unread_bytes": 0,
        "unacked_bytes": 0,
        "unsent_bytes": 0,
        "data_lost": False,
        "delayed_ack": MERGED,
        "timeline_us": {
            "established": 30,
            "fin_received": 1_000_000,
            "fin_sent": 1_000_034,
            "ack_sent": 1_000_034,
            "fin_acked": 1_001_000,
            "closed": 1_001_000,
        },
        "close_wait_us": 34,
        "teardown_us": 1_000,
        "lifetime_us": 1_001_000,
        "why": (
            "three segments: the peer's FIN waited 34 µs, nothing was left to send, and "
            "the application closed before the 40 ms delayed ACK"
        ),
    }


def test_an_active_close() -> None:
    close = b.close_of(
        b.active(
            opener__flags=ActorFlag.VALID, opener__tgid=12, opener__comm=b"curl", bytes_received=501
        )
    )
    assert (close.opened, close.kind, close.time_wait) == ("active", "active", True)
    assert close.opener == Opener(pid=12, comm="curl")
    assert close.rx_bytes == 500
    assert close.delayed_ack is None
    assert close.close_wait_us is None
    assert close.timeline_us == {
        "established": 30,
        "fin_sent": 1_000_000,
        "fin_acked": 1_001_000,
        "fin_received": 1_001_000,
        "ack_sent": 1_001_000,
        "closed": 1_001_000,
    }


def test_a_reset_names_nobody() -> None:
    close = b.close_of(b.reset(**b.by_process(), uid=5))
    assert (close.kind, close.err, close.cause, close.closer) == (
        "reset",
        "ECONNRESET",
        "peer",
        None,
    )
    assert close.teardown_us == 0


def test_data_after_close_is_no_rst_from_the_peer() -> None:
    """tcp_reset() runs there because we refuse the data; the peer sent data, not a RST."""
    made = b.aborted(
        **b.fin_wait1(rst_flags=b.REPLY_AFTER | RstFlag.RECEIVED), rst_received_ns=b.CLOSED_NS
    )
    close = b.close_of(made)
    assert close.cause == "data_after_close"
    assert list(close.timeline_us) == ["established", "fin_sent", "closed", "rst_sent"]
    assert close.teardown_us == 1_000


def test_a_rst_from_the_peer_is_in_the_timeline() -> None:
    assert list(b.close_of(b.reset()).timeline_us) == ["established", "rst_received", "closed"]


def test_a_bystander_opens_nothing() -> None:
    flags = ActorFlag.VALID | ActorFlag.IN_SOFTIRQ
    assert b.close_of(b.reset(opener__flags=flags)).opener is None


def test_an_abort_has_a_rst_after_its_close() -> None:
    close = b.close_of(
        b.aborted(unread=5, rst_flags=b.ACTIVE_AFTER | RstFlag.HAS_REASON, rst_reason=11)
    )
    assert (close.kind, close.cause, close.unread_bytes) == ("abort", "unread_data", 5)
    assert close.rst_reason == "SK_RST_REASON_TCP_ABORT_ON_CLOSE"
    assert list(close.timeline_us) == ["established", "closed", "rst_sent"]
    assert close.teardown_us == 0


@pytest.mark.parametrize(
    ("rst_flags", "reasons"),
    [
        (RstFlag.SENT_ACTIVE, b.RST_REASONS),
        (RstFlag.SENT_ACTIVE | RstFlag.HAS_REASON, {}),
        (RstFlag.HAS_REASON, b.RST_REASONS),
    ],
)
def test_no_reason_is_made_up(rst_flags: RstFlag, reasons: dict[int, str]) -> None:
    """Older kernels give none, and a RST that was not ours has none."""
    made = b.record(rst_flags=rst_flags, rst_reason=11)
    assert b.close_of(made, HostFacts(hz=250, rst_reasons=reasons)).rst_reason is None


@pytest.mark.parametrize(
    ("unread", "sk_flags", "expected"),
    [(0, SkFlag.DONE, 0), (1, SkFlag.DONE, 0), (6, SkFlag.DONE, 5), (5, 0, 5)],
)
def test_an_unread_fin_is_not_a_byte(unread: int, sk_flags: int, expected: int) -> None:
    assert b.close_of(b.record(unread=unread, sk_flags=sk_flags)).unread_bytes == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"at_close__unacked": 1}, 0),
        ({"at_close__unacked": 101}, 100),  # TCP Fast Open: data went with the SYN
        ({"at_close__unacked": 1, "old_state": S.SYN_RECV}, 0),  # the SYNs crossed
        (
            {"at_close__unacked": 1, "old_state": S.SYN_RECV, "flags": ConnFlag.OPENED_PASSIVE},
            1,
        ),
    ],
)
def test_a_syn_is_not_a_byte(fields: dict[str, int], expected: int) -> None:
    assert b.close_of(b.attempt(**fields)).unacked_bytes == expected


def test_a_socket_may_be_its_own_peer() -> None:
    """A client that connects to its own port until the server is up finds itself one day."""
    ends = {"lport": 40_000, "rport": 40_000, "saddr": mapped("10.0.0.1")}
    assert "its own port" in b.close_of(b.crossing(daddr=mapped("10.0.0.1"), **ends)).why
    assert "its own port" not in b.close_of(b.crossing(daddr=mapped("10.0.0.2"), **ends)).why


def test_a_socket_older_than_the_tracer() -> None:
    close = b.close_of(
        b.passive_four(
            flags=0, opened_ns=0, established_ns=0, states_seen=b.mask(S.ESTABLISHED, S.CLOSE_WAIT)
        )
    )
    assert (close.opened, close.lifetime_us) == (None, None)
    assert close.timeline_us["fin_received"] == 0


@pytest.mark.parametrize(
    ("exit_code", "how"), [(9, "signal:9"), (3 << 8, "exit"), (0x8B, "signal:11")]
)
def test_a_death_is_told_apart(exit_code: int, how: str) -> None:
    made = b.passive(closer__flags=ActorFlag.VALID | ActorFlag.EXITING, closer__exit_code=exit_code)
    closer = b.close_of(made).closer
    assert closer == Closer(pid=4711, comm="", uid=1000, how=how)


def test_the_tick_is_the_hosts() -> None:
    close = b.close_of(b.passive(ack_ato_jiffies=40), HostFacts(hz=1000))
    assert close.delayed_ack == DelayedAck(
        ato_us=40_000, pingpong=False, quick=0, fate="merged", after_us=34
    )


def test_ipv6_is_written_short() -> None:
    raw = list(ipaddress.ip_address("2001:db8::1").packed)
    close = b.close_of(b.active(family=6, saddr=raw, daddr=raw))
    assert (close.family, close.laddr, close.raddr) == (6, "2001:db8::1", "2001:db8::1")


def test_time_between_close_wait_and_a_reset() -> None:
    made = b.reset(
        old_state=S.CLOSE_WAIT,
        states_seen=b.mask(S.ESTABLISHED, S.CLOSE_WAIT),
        fin_received_ns=b.FIN_NS,
    )
    assert b.close_of(made).close_wait_us == 1_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1_795_188_993_123_456_789, "2026-11-20T15:36:33.123456789Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_wall_time(ns: int, text: str) -> None:
    assert wall_time(ns) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"nginx\0\0junk", "nginx"),
        (b"", ""),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"a\nb\tc", "a\\nb\\tc"),
        ("grün".encode(), "grün"),
        (b"gr\xc3", "gr\\xc3"),
        ("a\u202eb\u2028c\x9bd".encode(), "a\\u202eb\\u2028c\\x9bd"),
    ],
)
def test_names_cannot_drive_a_terminal(raw: bytes, text: str) -> None:
    assert harmless(raw) == text


def test_a_cgroup_path_is_bounded_and_harmless() -> None:
    close = b.close_of(b.passive(cgroup_id=1), names={1: "/\x1b" + "x" * 5_000})
    assert close.cgroup is not None
    assert close.cgroup.startswith("/\\x1bxx")
    assert len(close.cgroup) < 1_100


def test_an_unknown_cgroup_is_null() -> None:
    assert b.close_of(b.passive(cgroup_id=1), names={1: None}).cgroup is None
    assert b.close_of(b.passive(cgroup_id=1)).cgroup is None


def test_noise_makes_lines() -> None:
    """Whatever a damaged recording holds: one line of JSON with the contract's keys."""
    made = b.noise(np.random.default_rng(5), 2_000)
    for close in closes_from(made, classify(made, b.HOST), b.HOST, {}, 10**18):
        line = to_json(close)
        assert line.isprintable()
        shown: dict[str, Any] = json.loads(line)
        assert list(shown) == CONTRACT_KEYS
        assert set(shown["timeline_us"]) <= CONTRACT_EVENTS
        assert all(us >= 0 for us in shown["timeline_us"].values())
        assert shown["why"]


def test_gap_still_shows_what_is_known() -> None:
    close = b.close_of(b.record(flags=ConnFlag.GAP | ConnFlag.OPENED_ACTIVE))
    assert (close.kind, close.handshake, close.cause) == ("unknown", None, "unknown")
    assert close.lifetime_us == 1_001_000


def test_who_accepted_is_the_opener_and_when_is_on_the_timeline() -> None:
    close = b.close_of(b.accepted(250))
    assert close.opener == Opener(321, "nginx")
    assert close.timeline_us["accepted"] == close.timeline_us["established"] + 250


@pytest.mark.parametrize(
    "fields",
    [{"opener__flags": 0}, {"opener__uid": 0xFFFF_FFFF}],
    ids=["never seen", "too long to tell"],
)
def test_an_accept_without_its_time_is_not_on_the_timeline(fields: dict[str, int]) -> None:
    assert "accepted" not in b.close_of(b.accepted(250, **fields)).timeline_us
