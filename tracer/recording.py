# SPDX-License-Identifier: Apache-2.0
"""Recordings: the raw batches of a run, in a file that outlives the kernel they came from.

Layout, little endian::

    magic    8 bytes  b"FOURWAVE"
    version  u32      FORMAT_VERSION
    length   u32      of the header, at most HEADER_MAX_BYTES
    crc32    u32      of the header
    header   JSON     everything that is constant: kernel, hz, reset reasons, record size, clock
    frame*            kind u32, length u32, mono_ns u64, crc32 u32, data

The checksum of a frame is that of its other three fields and the data.
The last frame has kind END and no data. A file without it was cut short: by a
full disk, by SIGKILL, by a copy. What stands before the damage is whole, because
every frame carries its own checksum, and is read; the rest is not guessed at.

A recording holds the addresses of peers and the names of processes: it is made
for its owner alone (mode 0600).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from tracer.batch import Batch, BatchKind
from tracer.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

MAGIC: Final = b"FOURWAVE"
FORMAT_VERSION: Final = 1
HEADER_MAX_BYTES: Final = 1 << 20
FRAME_MAX_BYTES: Final = 1 << 28  # the largest ring the source makes, and to spare
END: Final = 0  # frame kind; never a BatchKind

PREFIX: Final = struct.Struct("<8sIII")
FRAME: Final = struct.Struct("<IIQI")
FRAME_CHECKED: Final = struct.Struct("<IIQ")  # the part of FRAME under the checksum

KNOWN_KINDS: Final = frozenset(int(kind) for kind in BatchKind)


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a recording stops making sense: `offset` in bytes, `what` in words."""

    offset: int
    what: str

    def __str__(self) -> str:
        """One clause, for a message."""
        return f"at byte {self.offset}: {self.what}"


class RecordingWriter:
    """Append batches to a new file; every batch is in the file when `write` returns.

    `path` "-" is standard output. An existing file is refused unless `force`.
    Raises RecordingError, also from `write` when the disk is full: the file then
    ends after the last whole batch, and can be replayed.
    """

    def __init__(self, path: str, header: dict[str, Any], *, force: bool = False) -> None:
        self.path = path
        self.batches = 0
        self.size_bytes = 0
        self._fd = _open_new(path, force=force)
        self._append(_encode_header(header))

    def write(self, batch: Batch) -> None:
        """Append one batch. An empty one carries nothing and is left out."""
        if batch.data:
            self._append(_encode_frame(int(batch.kind), batch.mono_ns, batch.data))
            self.batches += 1

    def close(self) -> None:
        """Write the end mark and push everything to the disk. Safe to call twice."""
        if self._fd < 0:
            return
        try:
            self._append(_encode_frame(END, 0, b""))
            self._sync()
        finally:
            self._release()

    def _append(self, chunk: bytes) -> None:
        try:
            _write_all(self._fd, chunk)
        except BrokenPipeError:
            self._release()
            raise
        except OSError as error:
            self._cut_to_whole_frames()
            self._release()
            raise RecordingError(self._write_failed(error)) from error
        self.size_bytes += len(chunk)

    # A pipe cannot be cut; its reader sees a torn frame and says so.
    def _cut_to_whole_frames(self) -> None:
        try:
            os.ftruncate(self._fd, self.size_bytes)
        except OSError:
            return

    # Pipes and some file systems cannot sync: EINVAL is their answer, not a failure.
    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
                raise RecordingError(self._write_failed(error)) from error

    def _write_failed(self, error: OSError) -> str:
        kept = f"{self.batches} batches before are whole and can be replayed"
        return f"cannot write {self.path}: {_reason(error)}; {kept}"

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Own the file until the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; an error already on its way is not covered up by a second one."""
        with contextlib.suppress(RecordingError) if error else contextlib.nullcontext():
            self.close()


class RecordingSource:
    """Read a recording; iterating yields its batches up to the end or to the damage.

    `path` "-" is standard input. `header` is the recording's context. After the
    iteration `damage` says where and why reading stopped, or is None. Raises
    RecordingError when there is no recording to read at all.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.damage: Damage | None = None
        self._file = _open_existing(path)
        try:
            self.header, header_bytes = _read_header(self._file, path)
        except BaseException:
            self.close()
            raise
        self._offset = PREFIX.size + header_bytes
        self.batches = 0

    def __iter__(self) -> Iterator[Batch]:
        """Yield each whole batch in the order of the file."""
        while (batch := self._next()) is not None:
            self.batches += 1
            yield batch

    def _next(self) -> Batch | None:
        head = self._file.read(FRAME.size)
        if len(head) < FRAME.size:
            return self._damaged(_cut_message(len(head)))
        kind, length, mono_ns, crc32 = FRAME.unpack(head)
        if length > FRAME_MAX_BYTES:
            return self._damaged(f"a batch of {length} bytes is larger than any fourwave writes")
        data = self._file.read(length)
        if len(data) < length:
            return self._damaged(f"the file ends inside a batch ({len(data)} of {length} bytes)")
        if zlib.crc32(data, zlib.crc32(head[: FRAME_CHECKED.size])) != crc32:
            return self._damaged("the checksum of a batch does not fit its bytes")
        return self._accept(kind, mono_ns, data)

    def _accept(self, kind: int, mono_ns: int, data: bytes) -> Batch | None:
        if kind == END:
            return self._damaged("something follows the end mark") if self._file.read(1) else None
        if kind not in KNOWN_KINDS:
            return self._damaged(f"batch kind {kind} is not known to this version")
        self._offset += FRAME.size + len(data)
        return Batch(BatchKind(kind), mono_ns, data)

    def _damaged(self, what: str) -> Batch | None:
        self.damage = Damage(self._offset, what)
        return None

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def __enter__(self) -> Self:
        """Own the file until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _cut_message(left: int) -> str:
    if left:
        return f"the file ends inside a batch's head ({left} of {FRAME.size} bytes)"
    return "the file ends without its end mark: the recorder was interrupted, or the file was cut"


def _encode_header(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    return PREFIX.pack(MAGIC, FORMAT_VERSION, len(text), zlib.crc32(text)) + text


def _encode_frame(kind: int, mono_ns: int, data: bytes | memoryview) -> bytes:
    head = FRAME_CHECKED.pack(kind, len(data), mono_ns)
    return b"".join((head, zlib.crc32(data, zlib.crc32(head)).to_bytes(4, "little"), data))


def _open_new(path: str, *, force: bool) -> int:
    if path == "-":
        return os.dup(sys.stdout.fileno())
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError as error:
        message = f"{path} exists already; name another file, or overwrite it with --force"
        raise RecordingError(message) from error
    except OSError as error:
        raise RecordingError(f"cannot create {path}: {_reason(error)}") from error


def _open_existing(path: str) -> IO[bytes]:
    if path == "-":
        return sys.stdin.buffer
    try:
        return Path(path).open("rb", buffering=1 << 16)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {_reason(error)}") from error


# The header and its length in bytes.
def _read_header(file: IO[bytes], path: str) -> tuple[dict[str, Any], int]:
    try:
        prefix = file.read(PREFIX.size)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {_reason(error)}") from error
    if len(prefix) < PREFIX.size or not prefix.startswith(MAGIC):
        message = f"{path} is not a fourwave recording; make one with: fourwave record FILE"
        raise RecordingError(message)
    _, version, length, crc32 = PREFIX.unpack(prefix)
    _check_version(path, version)
    if length > HEADER_MAX_BYTES:
        raise RecordingError(f"{path} is damaged: a header of {length} bytes is impossible")
    text = file.read(length)
    if len(text) < length or zlib.crc32(text) != crc32:
        raise RecordingError(f"{path} is damaged: the header's checksum does not fit its bytes")
    return _parse_header(path, text), length


def _check_version(path: str, version: int) -> None:
    if version != FORMAT_VERSION:
        raise RecordingError(
            f"{path} is a recording of format {version}, this fourwave reads format "
            f"{FORMAT_VERSION}; replay it with the version that made it, or a newer one"
        )


# The checksum fits, so this is wrong on purpose: nested too deep, or not an object.
def _parse_header(path: str, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path} is damaged: the header is not JSON") from error
    if not isinstance(header, dict):
        raise RecordingError(f"{path} is damaged: the header is not a JSON object")
    return header


# A signal or a full pipe may end a write early: go on until all of it is out.
def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]


def _reason(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "")
    return f"{error.strerror} ({name})" if name else str(error)
