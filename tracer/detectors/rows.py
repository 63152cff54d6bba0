# SPDX-License-Identifier: Apache-2.0
"""Group-bys and joins over the arrays of a census: what the detectors share.

Everything here works on whole columns: a million sockets cost a few sorts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from tracer.close_text import address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracer.census import Rows

Numbers: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


def number_groups(*columns: npt.NDArray[np.generic]) -> tuple[Numbers, Numbers]:
    """Number the rows that agree in every column.

    Returns the group of each row, shape (rows,), and the first row of each group, shape (groups,).
    """
    ids = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        if len(values) > 1:  # else it divides nothing, and the sort is saved
            ids = np.unique(ids * len(values) + place, return_inverse=True)[1]
    _, first = np.unique(ids, return_index=True)
    return ids.astype(np.int64), first.astype(np.int64)


def halves(addresses: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.generic], ...]:
    """Return addresses, shape (rows, 16), as two columns of integers."""
    pairs = np.ascontiguousarray(addresses).view(">u8").reshape(len(addresses), 2)
    return pairs[:, 0], pairs[:, 1]


def sums(ids: Numbers, groups: int, weights: npt.NDArray[np.generic]) -> Numbers:
    """Add `weights` up per group, shape (groups,)."""
    totals = np.zeros(groups, np.int64)
    np.add.at(totals, ids, weights.astype(np.int64))
    return totals


def largest(ids: Numbers, groups: int, values: npt.NDArray[np.generic]) -> Numbers:
    """Return the maximum per group, 0 for one without rows, shape (groups,)."""
    found = np.zeros(groups, np.int64)
    np.maximum.at(found, ids, values.astype(np.int64))
    return found


def service_keys(netns: npt.NDArray[np.generic], port: npt.NDArray[np.generic]) -> Numbers:
    """Return one integer per (namespace, port)."""
    keys: Numbers = (netns.astype(np.int64) << 16) | port.astype(np.int64)
    return keys


def text_of(addr: npt.NDArray[np.uint8], family: int) -> str:
    """Return the address of one row as text."""
    return address(addr.tobytes(), family)


def columns_of(rows: Rows, chosen: Mask, names: Sequence[str]) -> Rows:
    """Return some columns of the chosen rows: a copy no larger than needed."""
    dtype = np.dtype([(name, rows.dtype[name]) for name in names])
    found = np.empty(int(np.count_nonzero(chosen)), dtype)
    for name in names:
        found[name] = rows[name][chosen]
    return found


def in_state(sockets: Rows, state: int) -> Rows:
    """Return the sockets in one state."""
    found: Rows = sockets[sockets["state"] == state]
    return found
