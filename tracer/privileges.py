# SPDX-License-Identifier: Apache-2.0
"""Give privilege up for good: another user, few capabilities or none, and no way back.

capabilities(7) says how they survive a change of user; the numbers are those of
include/uapi/linux/capability.h and prctl.h.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import pwd
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NUMBERS: Final = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
FOLLOWING: Final = ((), ("CAP_BPF",), ("CAP_BPF", "CAP_PERFMON"), ("CAP_SYS_ADMIN",))
"""What reading rings and counters and running the sweep may take, the least first.

Nothing where having a descriptor is enough for bpf(2); 5.10 refuses the whole call without CAP_BPF.
"""
NAMESPACES: Final = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
"""What a census is for: other namespaces, other users' descriptors, handles of cgroups."""
_BPF: Final = ("CAP_BPF", "CAP_PERFMON")
CENSUS: Final = (NAMESPACES, (*NAMESPACES, *_BPF), (), _BPF)
"""With BPF where iterators ask for more than their descriptors.

Without NAMESPACES a census sees its own namespace and its own user's processes.
"""
USERS: Final = ("fourwave", "nobody")
"""Whom root becomes when nobody else is named: the first that exists."""

_VERSION_3: Final = 0x20080522
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 8, 24, 38, 47
_AMBIENT_CLEAR_ALL: Final = 4
_CAP_SETPCAP: Final = 8
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    """A user to become; its supplementary groups are not taken over."""

    name: str
    uid: int
    gid: int


def account(name: str | None) -> Account | None:
    """Return the user to become; None when this process is not root and stays who it is.

    Raises UsageError for a user that does not exist, or that this process may not become.
    """
    if os.geteuid() != 0:
        if name is not None:
            raise UsageError(f"--user {name}: only root may become another user")
        return None
    for candidate in (name,) if name else USERS:
        try:
            entry = pwd.getpwnam(candidate)
        except KeyError:
            continue
        return Account(candidate, entry.pw_uid, entry.pw_gid)
    raise UsageError(f"no user {name or ' or '.join(USERS)} on this host: name one with --user")


def drop(to: Account | None, keep: Iterable[str] = ()) -> None:
    """Become that user with these capabilities alone, of which none is in force before it is asked.

    `settle()` decides which of them stay. Nothing this process starts gets any.
    Raises HostError when the kernel refuses.
    """
    wanted = frozenset(keep) & held()
    # Modules that Python loads at their first use; by then their files may be out of reach.
    for codec in ("ascii", "idna", "latin-1", "unicode_escape", "utf-8"):
        codecs.lookup(codec)
    # A core file would hold passwords and addresses.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _status_mask("CapEff") >> _CAP_SETPCAP & 1:
        _shrink_bounding_set()
    if to is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
        _become(to)
        _prctl(_PR_SET_KEEPCAPS, 0)
    _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _set(permitted=wanted, effective=frozenset())


def _become(to: Account) -> None:
    try:
        os.setgroups([])
        os.setresgid(to.gid, to.gid, to.gid)
        os.setresuid(to.uid, to.uid, to.uid)
    except OSError as error:
        raise HostError(
            f"cannot become user {to.name}: {error.strerror} (errno {error.errno})\n"
            "  what to do: root needs CAP_SETUID and CAP_SETGID for it; or start as that user"
        ) from error


def settle(trial: Callable[[], object], ladder: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Keep the first set of capabilities with which `trial` works, and give up all others.

    A rung that is not held is left out. Raises HostError when none is enough.
    """
    failure: OSError | None = None
    for rung in ladder:
        if not held() >= set(rung):
            continue
        _set(permitted=held(), effective=frozenset(rung))
        try:
            trial()
        except OSError as error:
            failure = error
            continue
        _set(permitted=frozenset(rung), effective=frozenset(rung))
        return rung
    raise HostError(
        f"without root the kernel refuses what is needed ({failure}); run with --user root"
    )


def names(ladder: Iterable[tuple[str, ...]]) -> frozenset[str]:
    """Return all capabilities of a ladder."""
    return frozenset(name for rung in ladder for name in rung)


def held() -> frozenset[str]:
    """Return the capabilities this process may put in force, of those we know."""
    return _names(_status_mask("CapPrm"))


def _names(mask: int) -> frozenset[str]:
    return frozenset(name for name, number in NUMBERS.items() if mask >> number & 1)


def _status_mask(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value, 16)
    return 0


# What is not in it cannot come back, not even through a file with capabilities.
def _shrink_bounding_set() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, number)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _set(permitted: frozenset[str], effective: frozenset[str]) -> None:
    masks = [sum(1 << NUMBERS[name] for name in names) for names in (effective, permitted)]
    low, high = ([mask >> shift & 0xFFFFFFFF for mask in masks] for shift in (0, 32))
    data = (_Data * 2)(_Data(*low, 0), _Data(*high, 0))
    _check(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), data), "capset")


def _prctl(option: int, argument: int) -> None:
    result = _libc.prctl(option, ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3)
    _check(result, f"prctl {option}")


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise HostError(f"cannot give up privilege: {what}: {os.strerror(code)} (errno {code})")
