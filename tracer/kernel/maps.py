# SPDX-License-Identifier: Apache-2.0
"""Whole BPF hashes as arrays: a few system calls, no Python object per element."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.kernel import bpf, bpf_attr

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ("look_up", "read_all", "take_all")

_LOOKUP = 1
_LOOKUP_BATCH, _LOOKUP_AND_DELETE_BATCH = 24, 25
_STEP = 4096  # elements per call; a bucket of the hash must fit


def look_up(fd: int, key: int, key_bytes: int, value_bytes: int) -> bytes | None:
    """Return the value of one element, None when there is none. Raises LoadError."""
    wanted = ctypes.create_string_buffer(key.to_bytes(key_bytes, "little"), key_bytes)
    value = ctypes.create_string_buffer(value_bytes)
    attr = bpf_attr.Element(map_fd=fd, key=ctypes.addressof(wanted), value=ctypes.addressof(value))
    try:
        bpf.call(_LOOKUP, attr, "read a map")
    except bpf.LoadError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    return value.raw


def read_all(
    fd: int, key: np.dtype[Any], value: np.dtype[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the keys of a hash and its values, in the same order. Raises LoadError."""
    return _batches(_LOOKUP_BATCH, fd, key, value)


def take_all(
    fd: int, key: np.dtype[Any], value: np.dtype[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Empty a hash; return its keys and its values, in the same order. Raises LoadError."""
    return _batches(_LOOKUP_AND_DELETE_BATCH, fd, key, value)


# Linux commit 057996380a42 ("bpf: Add batch ops to all htab bpf map") (in v5.6).
def _batches(
    command: int, fd: int, key: np.dtype[Any], value: np.dtype[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    keys, values = [np.empty(0, key)], [np.empty(0, value)]
    position, more = ctypes.create_string_buffer(8), True
    first = True
    while more:
        some_keys, some_values = np.empty(_STEP, key), np.empty(_STEP, value)
        attr = bpf_attr.Batch(
            in_batch=0 if first else ctypes.addressof(position),
            out_batch=ctypes.addressof(position),
            keys=some_keys.ctypes.data,
            values=some_values.ctypes.data,
            count=_STEP,
            map_fd=fd,
        )
        more = _next(command, attr)
        first = False
        keys.append(some_keys[: attr.count])
        values.append(some_values[: attr.count])
    return np.concatenate(keys), np.concatenate(values)


# Whether there is more: ENOENT says that this was the last step.
def _next(command: int, attr: bpf_attr.Batch) -> bool:
    try:
        bpf.call(command, attr, "read a map")
    except bpf.LoadError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
