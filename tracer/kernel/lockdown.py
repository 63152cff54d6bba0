# SPDX-License-Identifier: Apache-2.0
"""What the kernel's lockdown forbids: at `confidentiality` no program may read its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ("CONFIDENTIALITY", "REMEDY", "mode")

CONFIDENTIALITY: Final = "confidentiality"
REMEDY: Final = (
    "boot with lockdown=integrity or none: confidentiality forbids reading kernel memory"
)
_FILE: Final = Path("/sys/kernel/security/lockdown")


def mode() -> str | None:
    """Return the mode in force, as the kernel names it; None where it is not shown."""
    try:
        text = _FILE.read_text()
    except OSError:
        return None
    return text[text.find("[") + 1 : text.find("]")]
