# SPDX-License-Identifier: Apache-2.0
"""Cgroups of a test's own, which this process can enter for a while."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracer.kernel.mountinfo import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def fresh(*names: str) -> Iterator[list[Path]]:
    """Make cgroups, which this process leaves at the end for where it was; skips where none can."""
    there = read_mounts("/proc/self/mountinfo")
    mounts = [Path(os.fsdecode(mount.point)) for mount in there if mount.fstype == b"cgroup2"]
    if not mounts:
        pytest.skip("no cgroup2 is mounted here")
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    home = next(mounts[0] / line.removeprefix("0::/") for line in lines if line.startswith("0::"))
    made = [mounts[0] / f"fw-{os.getpid()}-{name}" for name in names]
    with contextlib.ExitStack() as stack:
        for path in made:
            try:
                path.mkdir()
            except OSError as error:
                pytest.skip(f"no cgroup can be made here: {error}")
            stack.callback(path.rmdir)
        stack.callback(enter, home)
        yield made


def enter(cgroup: Path) -> None:
    """Move this process; what it starts from then on is in there, too."""
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
