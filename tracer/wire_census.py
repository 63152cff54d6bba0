# SPDX-License-Identifier: Apache-2.0
"""A census from bytes: what a CENSUS batch holds.

Layout, little endian::

    version  u32   CENSUS_VERSION
    length   u32   of the header, at most HEADER_MAX_BYTES
    header   JSON  all that is no array, and for each array {"name": [bytes per row, rows]}
    arrays         ARRAYS of tracer/census.py, one after the other

tracer/kernel/census_bytes.py writes it. Names in it are anybody's bytes: text is bounded here,
and escaped where it is shown.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracer.census import ARRAYS, CENSUS_VERSION, Census, NetnsFacts, ProcessFacts
from tracer.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracer.census import Rows

__all__ = ("decode_census",)

HEADER_MAX_BYTES: Final = 1 << 24
TEXT_MAX: Final = 4096  # PATH_MAX
_PREFIX: Final = struct.Struct("<II")
_U64_MAX: Final = (1 << 64) - 1


def decode_census(data: bytes | memoryview) -> Census:
    """Return the census in `data`; its arrays are views of it. Raises WireError."""
    header, start = _header(data)
    try:
        arrays = _arrays(data, start, _object(header["arrays"]))
        return Census(
            mono_ns=_count(header["mono_ns"]),
            took_ns=_count(header["took_ns"]),
            mechanism=_text(header["mechanism"]),
            reason=_maybe(_text)(header["reason"]),
            namespaces=_by_number(header["namespaces"], _netns),
            processes=_by_number(header["processes"], _process),
            cgroups=_by_number(header["cgroups"], _maybe(_text)),
            truncated=_counts(header["truncated"]),
            **arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a census that makes no sense: {error!r:.200}") from error


def _header(data: bytes | memoryview) -> tuple[dict[str, Any], int]:
    if len(data) < _PREFIX.size:
        raise WireError(f"{len(data)} bytes are no census")
    version, length = _PREFIX.unpack_from(data)
    if version != CENSUS_VERSION:
        raise WireError(f"a census of version {version}; this fourwave reads {CENSUS_VERSION}")
    end = _PREFIX.size + length
    if length > HEADER_MAX_BYTES or end > len(data):
        raise WireError(f"a census whose header of {length} bytes is not all there")
    try:
        return _object(json.loads(bytes(data[_PREFIX.size : end]))), end
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError("a census whose header is not a JSON object") from error


def _arrays(data: bytes | memoryview, at: int, shapes: dict[str, Any]) -> dict[str, Rows]:
    arrays = {}
    for name, dtype in ARRAYS.items():
        size, rows = shapes[name]
        if size != dtype.itemsize:
            raise ValueError(f"{name} of {size!r} bytes each, not {dtype.itemsize}")
        if _count(rows) * dtype.itemsize > len(data) - at:
            raise ValueError(f"{rows} {name} in {len(data) - at} bytes")
        arrays[name] = np.frombuffer(data, dtype, rows, at)
        at += rows * dtype.itemsize
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes behind the arrays")
    return arrays


def _netns(value: Any) -> NetnsFacts:
    facts = _object(value)
    numbers = (
        "tw_reuse",
        "max_tw_buckets",
        "somaxconn",
        "max_orphans",
    )
    return NetnsFacts(
        entered_by=_text(facts["entered_by"]),
        name=_maybe(_text)(facts["name"]),
        port_range=_maybe(_range)(facts["port_range"]),
        reserved_ports=tuple(_range(one) for one in facts["reserved_ports"]),
        tcp_ext=_counts(facts["tcp_ext"]),
        sockstat=_counts(facts["sockstat"]),
        **{name: _maybe(_count)(facts[name]) for name in numbers},
    )


def _process(value: Any) -> ProcessFacts:
    facts = _object(value)
    return ProcessFacts(
        comm=_text(facts["comm"]),
        exe=_maybe(_text)(facts["exe"]),
        uid=_maybe(_count)(facts["uid"]),
        nofile_soft=_maybe(_count)(facts["nofile_soft"]),
        open_fds=_maybe(_count)(facts["open_fds"]),
        cgroup=_maybe(_text)(facts["cgroup"]),
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is not an object")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _U64_MAX:
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise ValueError(f"{value!r:.80} is not a short text")
    return value


def _range(value: Any) -> tuple[int, int]:
    first, last = value
    return _count(first), _count(last)


def _maybe(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _counts(value: Any) -> dict[str, int]:
    return {_text(name): _count(number) for name, number in _object(value).items()}


def _by_number(value: Any, read: Callable[[Any], Any]) -> Mapping[int, Any]:
    return {int(number): read(one) for number, one in _object(value).items()}
