# SPDX-License-Identifier: Apache-2.0
"""Whether this process may load programs."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

from tracer.kernel import bpf
from tracer.kernel.stages import StageError, refused

__all__ = ("allow_locked_memory", "check_privilege", "missing")

_CAP_BITS = {"CAP_BPF": 39, "CAP_PERFMON": 38}
_CAP_SYS_ADMIN = 21
_LRU_HASH = 9


def allow_locked_memory() -> None:
    """Let this process lock what it wants, as BCC does: before Linux 5.11 maps count as locked."""
    with suppress(OSError, ValueError):
        resource.setrlimit(
            resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )


def check_privilege() -> None:
    """Raise StageError when this process lacks what loading needs."""
    names = missing()
    if names:
        raise StageError("privilege", f"this process lacks {' and '.join(names)}", 1)
    _try_map()


# The capabilities of a user namespace's root look like the host's; only a trial tells. No kernel
# gives this kind of map to who lacks CAP_BPF (htab_map_alloc_check()).
def _try_map() -> None:
    try:
        os.close(bpf.create_map(_LRU_HASH, 4, 4, 1, 0, "trial"))
    except bpf.LoadError as error:
        raise refused(error) from error


def missing() -> list[str]:
    """Return the capabilities that loading needs and this process lacks."""
    held = int(_status_field("CapEff"), 16)
    if held >> _CAP_SYS_ADMIN & 1:
        return []
    return [name for name, bit in _CAP_BITS.items() if not held >> bit & 1]


def _status_field(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return "0"
