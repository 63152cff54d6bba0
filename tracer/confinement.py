# SPDX-License-Identifier: Apache-2.0
"""Landlock: a process that lets go of files, of the network, and of other processes, for good.

See https://docs.kernel.org/userspace-api/landlock.html. landlockpy knows which rights the running
kernel can take away. It may be missing, as may Landlock itself (before Linux 5.13, or not among the
`lsm=` of the command line): then nothing is taken away, and `doctor` tells.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NETWORK_ABI: Final = 4
"""The first that can refuse bind(2) and connect(2) of TCP."""
SCOPE_ABI: Final = 6
"""The first that can keep signals from other processes."""


def version() -> tuple[int, str | None]:
    """Return which Landlock there is, or 0 and why there is none."""
    try:
        from landlockpy import LandlockError, abi_version  # noqa: PLC0415 - an option
    except ImportError:
        return 0, "landlockpy is not installed"
    try:
        return abi_version(), None
    except LandlockError as error:
        return 0, f"the kernel has no Landlock: {error.strerror} (errno {error.errno})"


def confine(readable: Iterable[Path]) -> str | None:
    """Leave this thread and all it starts nothing but to read there; return why that failed.

    No file is written or run, no TCP connection is begun, no port bound; processes that are not
    confined get no signal and no connection to an abstract socket. What is open stays open.
    """
    _, reason = version()
    if reason is not None:
        return reason
    from landlockpy import AccessFS, LandlockError, Ruleset, Scope  # noqa: PLC0415

    reading = AccessFS.READ_FILE | AccessFS.READ_DIR
    try:
        with Ruleset(scoped=Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL) as rules:
            for path in readable:
                if os.access(path, os.R_OK):
                    rules.allow_path(path, reading)
            rules.restrict()
    except (LandlockError, OSError) as error:
        return f"Landlock: {error.strerror} (errno {error.errno})"
    return None


def own_code() -> set[Path]:
    """Return the folders of this program and its Python."""
    return {Path(__file__).parent, *map(Path, filter(None, sys.path))}
