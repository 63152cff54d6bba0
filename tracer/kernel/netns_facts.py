# SPDX-License-Identifier: Apache-2.0
"""What /proc says of the network namespace the calling thread is in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.census import NetnsFacts
from tracer.kernel.netns import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("max_orphans", "read_facts", "sockstat")

_IPV4: Final = "/proc/sys/net/ipv4/"
_NET: Final = "/proc/thread-self/net/"


def max_orphans() -> int | None:
    """Return tcp_max_orphans: the whole host's, and to be read in its first namespace alone."""
    return _number(_IPV4 + "tcp_max_orphans")


def read_facts(path: str, max_orphans: int | None = None) -> NetnsFacts:
    """Return the facts of the calling thread's namespace, which was entered by `path`.

    `max_orphans` is what this one itself does not tell.
    """
    return NetnsFacts(
        entered_by=path,
        name=name_of(path),
        port_range=_pair(_text(_IPV4 + "ip_local_port_range")),
        reserved_ports=_ranges(_text(_IPV4 + "ip_local_reserved_ports")),
        tw_reuse=_number(_IPV4 + "tcp_tw_reuse"),
        max_tw_buckets=_number(_IPV4 + "tcp_max_tw_buckets"),
        somaxconn=_number("/proc/sys/net/core/somaxconn"),
        max_orphans=max_orphans,
        tcp_ext={**_table("netstat", "TcpExt"), **_table("snmp", "Tcp")},
        sockstat=sockstat(),
    )


def sockstat() -> Mapping[str, int]:
    """Return the TCP line of sockstat; `tcp6_inuse` from sockstat6."""
    found = _pairs(_text(_NET + "sockstat"), "TCP:")
    for value in _pairs(_text(_NET + "sockstat6"), "TCP6:").values():
        found["tcp6_inuse"] = value
    return found


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text()
    return ""


def _number(path: str) -> int | None:
    with suppress(ValueError):
        return int(_text(path))
    return None


def _pair(text: str) -> tuple[int, int] | None:
    with suppress(ValueError):
        first, last = map(int, text.split())
        return first, last
    return None


# "8080,9148-9150": proc_do_large_bitmap().
def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    parts = [part.partition("-") for part in text.strip().split(",") if part]
    return tuple((int(first), int(last or first)) for first, _, last in parts)


# Pairs of lines: "TcpExt: SyncookiesSent …" and "TcpExt: 0 …". Negative: -1 for no limit.
def _table(name: str, prefix: str) -> dict[str, int]:
    lines = [line.split() for line in _text(_NET + name).splitlines()]
    names, values = ([line[1:] for line in lines if line[0] == f"{prefix}:"] + [[], []])[:2]
    pairs = zip(names, map(int, values), strict=False)
    return {name: value for name, value in pairs if value >= 0}


# "TCP: inuse 4 orphan 0 tw 12 alloc 8 mem 1".
def _pairs(text: str, prefix: str) -> dict[str, int]:
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [prefix]:
            return dict(zip(words[1::2], map(int, words[2::2]), strict=False))
    return {}
