# SPDX-License-Identifier: Apache-2.0
"""A census as bytes: tracer/wire_census.py says how they lie, and reads them."""

from __future__ import annotations

import json
import struct
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.census import ARRAYS, CENSUS_VERSION

if TYPE_CHECKING:
    from tracer.census import Census, NetnsFacts, ProcessFacts

__all__ = ("encode_census",)


def encode_census(census: Census) -> bytes:
    """Return the bytes of a CENSUS batch."""
    arrays = {name: getattr(census, name) for name in ARRAYS}
    header = {
        "mono_ns": census.mono_ns,
        "took_ns": census.took_ns,
        "mechanism": census.mechanism,
        "reason": census.reason,
        "arrays": {name: [array.itemsize, len(array)] for name, array in arrays.items()},
        "namespaces": {inum: _plain(facts) for inum, facts in census.namespaces.items()},
        "processes": {tgid: _plain(facts) for tgid, facts in census.processes.items()},
        "cgroups": dict(census.cgroups),
        "truncated": dict(census.truncated),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    prefix = struct.pack("<II", CENSUS_VERSION, len(text))
    rows: list[Any] = [np.ascontiguousarray(array).view(np.uint8) for array in arrays.values()]
    return b"".join([prefix, text, *rows])


# dataclasses.asdict() copies what is in it, too, and takes as long as the walk of a namespace.
def _plain(facts: NetnsFacts | ProcessFacts) -> dict[str, Any]:
    return {one.name: getattr(facts, one.name) for one in fields(facts)}
