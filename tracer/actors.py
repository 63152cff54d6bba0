# SPDX-License-Identifier: Apache-2.0
"""Whether struct actor names who did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracer.tcp import ActorFlag

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_VALID: Final = int(ActorFlag.VALID)
_LOOKED_AT: Final = int(ActorFlag.VALID | ActorFlag.IN_SOFTIRQ)


def are_known(actors: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Say which rows of ACTOR_DTYPE name somebody: in softirq `current` is a bystander."""
    known: npt.NDArray[np.bool_] = (actors["flags"] & _LOOKED_AT) == _VALID
    return known
