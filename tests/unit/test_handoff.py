# SPDX-License-Identifier: Apache-2.0
"""The hand-over: one message, its descriptors by name, and an end that is seen."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracer.kernel import handoff

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give the two ends; the first is the resident's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def open_fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def new_file(path: Path, text: str) -> int:
    path.write_text(text)
    return os.open(path, os.O_RDONLY)


def test_descriptors_arrive_by_name_and_work(pair: Pair, tmp_path: Path) -> None:
    ours, theirs = pair
    sent = {name: new_file(tmp_path / name, name) for name in ("ring", "counts", "link")}
    handoff.send(theirs, {"programs": ["a"], "ring_bytes": 4096}, sent)
    for fd in sent.values():
        os.close(fd)  # the loader is gone; what was handed over stays

    result = handoff.receive(ours)

    assert result is not None
    manifest, fds = result
    assert manifest == {"programs": ["a"], "ring_bytes": 4096}
    assert {name: os.read(fd, 100).decode() for name, fd in fds.items()} == {
        name: name for name in sent
    }
    for fd in fds.values():
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_a_manifest_alone_arrives(pair: Pair) -> None:
    ours, theirs = pair
    handoff.send(theirs, {"error": {"stage": "btf"}}, {})
    assert handoff.receive(ours) == ({"error": {"stage": "btf"}}, {})


def test_the_most_descriptors_fit(pair: Pair) -> None:
    ours, theirs = pair
    handoff.send(theirs, {}, {str(n): 1 for n in range(handoff.FDS_MAX)})
    result = handoff.receive(ours)
    assert result is not None
    assert len(set(result[1].values())) == handoff.FDS_MAX
    for fd in result[1].values():
        os.close(fd)


def test_the_largest_message_fits(pair: Pair) -> None:
    ours, theirs = pair
    text = "x" * (handoff.MESSAGE_MAX - len(json.dumps({"a": "", "fds": []})))
    handoff.send(theirs, {"a": text}, {})
    assert handoff.receive(ours) == ({"a": text}, {})


def test_the_end_of_the_stream_is_none(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    assert handoff.receive(ours) is None


@pytest.mark.parametrize(
    ("manifest", "fds"),
    [
        ({"a": "x" * handoff.MESSAGE_MAX}, {}),
        ({}, {str(n): 1 for n in range(handoff.FDS_MAX + 1)}),
    ],
)
def test_too_much_is_refused_before_it_is_sent(
    pair: Pair, manifest: dict[str, Any], fds: dict[str, int]
) -> None:
    ours, theirs = pair
    with pytest.raises(ValueError, match="too large"):
        handoff.send(theirs, manifest, fds)
    theirs.close()
    assert handoff.receive(ours) is None


def test_a_resident_that_is_gone_is_an_error(pair: Pair) -> None:
    ours, theirs = pair
    ours.close()
    with pytest.raises(OSError, match="Broken pipe"):
        handoff.send(theirs, {}, {})


def test_silence_ends_at_the_deadline(pair: Pair) -> None:
    ours, _theirs = pair
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        handoff.receive(ours)


@pytest.mark.parametrize(
    "message",
    [
        b"hello",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b'{"fds": 3}',
        b'{"fds": ["a", "b"]}',
        b'{"fds": []}',
    ],
)
def test_what_is_no_manifest_is_refused_and_its_descriptors_closed(
    pair: Pair, message: bytes
) -> None:
    """One descriptor comes with each: none of these messages names just one."""
    ours, theirs = pair
    socket.send_fds(theirs, [message], [1])
    before = open_fds()
    with pytest.raises(ValueError, match="not a manifest"):
        handoff.receive(ours)
    assert open_fds() == before
