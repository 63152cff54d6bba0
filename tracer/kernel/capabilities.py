# SPDX-License-Identifier: Apache-2.0
"""Whether this process may load programs."""

from __future__ import annotations

from pathlib import Path

from tracer.kernel.stages import StageError

__all__ = ("check_privilege", "missing")

_CAP_BITS = {"CAP_BPF": 39, "CAP_PERFMON": 38}
_CAP_SYS_ADMIN = 21


def check_privilege() -> None:
    """Raise StageError when this process lacks what loading needs."""
    names = missing()
    if names:
        raise StageError("privilege", f"this process lacks {' and '.join(names)}", 1)


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
