# SPDX-License-Identifier: Apache-2.0
"""How long to wait for what must come: longer on an emulated processor, in this one place.

It is for deadlines alone: what passes never waits for one. Times that TCP itself keeps, and what
a verdict must be, are the same everywhere.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ("EMULATED", "allowed_s")

EMULATED: Final = os.environ.get("FOURWAVE_EMULATED") == "1"
_SLOWER: Final = 6.0 if EMULATED else 1.0


def allowed_s(seconds: float) -> float:
    """Return the deadline for what a real processor does within so many seconds."""
    return seconds * _SLOWER
