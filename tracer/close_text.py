# SPDX-License-Identifier: Apache-2.0
"""Numbers and bytes of a record as text: times, addresses, names, errors."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from tracer.tcp import TcpState

# include/uapi/asm-generic/errno*.h, so that a recording reads alike on any system.
ERRNO_NAMES = {
    1: "EPERM", 4: "EINTR", 5: "EIO", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 14: "EFAULT",
    19: "ENODEV", 22: "EINVAL", 32: "EPIPE", 64: "ENONET", 71: "EPROTO", 74: "EBADMSG",
    90: "EMSGSIZE", 92: "ENOPROTOOPT", 93: "EPROTONOSUPPORT", 95: "EOPNOTSUPP", 98: "EADDRINUSE",
    99: "EADDRNOTAVAIL", 100: "ENETDOWN", 101: "ENETUNREACH", 102: "ENETRESET",
    103: "ECONNABORTED", 104: "ECONNRESET", 105: "ENOBUFS", 106: "EISCONN", 107: "ENOTCONN",
    108: "ESHUTDOWN", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 112: "EHOSTDOWN",
    113: "EHOSTUNREACH", 114: "EALREADY", 115: "EINPROGRESS",
}  # fmt: skip

STATE_NAMES: Final = {int(state): state.name for state in TcpState}

CGROUP_PATH_CHARS_MAX: Final = 1024
"""A cgroup path is cut to this: names are the host's, a line must stay a line."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_S: Final = 1_000_000_000


def wall_time(realtime_ns: int) -> str:
    """Return RFC 3339 in UTC with nanoseconds."""
    seconds, ns = divmod(realtime_ns, _NS_PER_S)
    return f"{_wall_second(seconds)}.{ns:09d}Z"


@lru_cache(maxsize=16)
def _wall_second(seconds: int) -> str:
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=1024)
def address(packed: bytes, family: int) -> str:
    """Return 16 bytes as text; family 4 is mapped into ::ffff:0:0/96."""
    if family == 4:
        return ".".join(map(str, packed[12:]))
    return str(ipaddress.IPv6Address(packed))


@lru_cache(maxsize=1024)
def comm(raw: bytes) -> str:
    """Return task_struct.comm as harmless text."""
    return harmless(raw)


@lru_cache(maxsize=256)
def cgroup_path(path: str | None) -> str | None:
    """Return the path, cut and harmless; None where it is not known."""
    if path is None:
        return None
    return harmless(path[:CGROUP_PATH_CHARS_MAX].encode("utf-8", "surrogateescape"))


def harmless(raw: bytes) -> str:
    """Return the kernel's bytes up to NUL as text that a terminal only prints.

    Names are whatever a process chose: invalid UTF-8, control characters, line
    separators and writing direction marks are escaped.
    """
    text = raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return "".join(map(_printable, text))


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def errno_name(number: int) -> str | None:
    """Return ECONNRESET for 104, None for 0."""
    return ERRNO_NAMES.get(number, f"errno {number}") if number else None


def state_name(state: int) -> str:
    """Return FIN_WAIT1 for 4."""
    return STATE_NAMES.get(state) or f"state {state}"
