# SPDX-License-Identifier: Apache-2.0
"""Every error fourwave raises on purpose.

FourwaveError            1  failed while running
├── UsageError           2  wrong usage
├── HostError            3  this host lacks something
├── RecordingError       1  a recording cannot be read or written
└── WireError            1  bytes that are not whole records
"""

from __future__ import annotations

from typing import ClassVar, Final

MORE_FILES: Final = "allow more open files: ulimit -n 1024"
"""The remedy for EMFILE and ENFILE, wherever they come from."""


class FourwaveError(Exception):
    """The message is for the user; `exit_code` is the process's exit status."""

    exit_code: ClassVar[int] = 1


class UsageError(FourwaveError):
    """The command line or an option makes no sense."""

    exit_code: ClassVar[int] = 2


class HostError(FourwaveError):
    """This host lacks something: the message says what failed, its errno and the remedy."""

    exit_code: ClassVar[int] = 3


class RecordingError(FourwaveError):
    """A recording is not one, is damaged, or is of a version this program cannot read."""


class WireError(FourwaveError):
    """Bytes from the ring or a recording are not whole records of this wire version."""
