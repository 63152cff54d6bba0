# SPDX-License-Identifier: Apache-2.0
"""What findings of all detectors have in common."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

# The names systemd and container engines give to cgroups: systemd.unit(5), and the scopes of
# docker, podman, cri-o, containerd and kubernetes' own cgroupfs layout.
_CONTAINER: Final = re.compile(
    r"^(?:docker-|libpod-|crio-|cri-containerd-)?([0-9a-f]{64})(?:\.scope)?$"
)
_UNIT: Final = re.compile(r"\.(?:service|scope|socket|slice|mount)$")
SHORT_ID: Final = 12


class Severity(IntEnum):
    """How soon somebody must look; findings are shown the gravest first."""

    OK = 0
    NOTICE = 1
    WARNING = 2
    CRITICAL = 3

    @property
    def label(self) -> str:
        """JSON value and metric label."""
        return self.name.lower()


def unit_of(cgroup: str | None) -> str | None:
    """Return the unit or container a cgroup path belongs to: the innermost that has a name."""
    if cgroup is None:
        return None
    parts = [part for part in cgroup.split("/") if part]
    for part in reversed(parts):
        if container := _CONTAINER.match(part):
            return container[1][:SHORT_ID]
        if _UNIT.search(part) and not part.endswith(".slice"):
            return part
    return parts[-1] if parts else None
