# SPDX-License-Identifier: Apache-2.0
"""How a failure of the loader child is told to the resident."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.kernel import bpf
    from tracer.kernel.btf import BtfError

__all__ = ("StageError", "refused", "unreadable")


class StageError(Exception):
    """A stage failed; becomes the message to the resident."""

    def __init__(self, stage: str, message: str, code: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.report = {"stage": stage, "message": message, "errno": code, "detail": detail}


def refused(error: bpf.LoadError) -> StageError:
    """Return what to report when the kernel refuses a program."""
    return StageError("load", error.words, error.errno or 0, error.log[-2000:])


def unreadable(error: BtfError) -> StageError:
    """Return what to report when the kernel's types cannot be used."""
    return StageError(error.stage, str(error))
