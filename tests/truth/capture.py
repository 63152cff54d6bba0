# SPDX-License-Identifier: Apache-2.0
"""tcpdump in a namespace: ready when it listens, complete when its last packet is on disk.

Completeness is not a matter of waiting long enough. At the end a marker datagram is sent into
the captured device and the file is read until the marker is there: everything that passed
before it is there as well. A packet the kernel dropped is an error of the test, not a verdict.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.pace import allowed_s
from tests.truth.wire import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.netns import Side

TCPDUMP = shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin:/bin")
SNAPLEN_BYTES = 128
BUFFER_KIB = 65536
MARKER_PORT = 9
STOP_S = allowed_s(10.0)
_DROPPED = re.compile(r"(\d+) packets? dropped by (kernel|interface)")


class CaptureError(Exception):
    """The capture is incomplete, so it can prove nothing."""


class Capture:
    """One running tcpdump on `side.device`, writing to `path`."""

    def __init__(self, side: Side, path: Path, peer_address: str) -> None:
        """Start it and return when it listens; `peer_address` is where the marker is sent."""
        self.path = path
        self._side = side
        self._peer_address = peer_address
        command = side.ns.command(
            *(TCPDUMP or "tcpdump", "-i", side.device, "-w", str(path), "-n", "-U"),
            *("-s", str(SNAPLEN_BYTES), "-B", str(BUFFER_KIB), "--immediate-mode", "-Z", "root"),
            *("-Q", "inout", "tcp", "or", "udp", "port", str(MARKER_PORT)),
        )
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._await_listening()

    def _await_listening(self) -> None:
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if "listening on" in line:
                return
        raise CaptureError(f"tcpdump did not start: {said.strip()}")

    def finish(self) -> Path:
        """Flush, stop, check for drops; return the file. Raises CaptureError."""
        marker = os.urandom(16)
        with self._side.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(marker, (self._peer_address, MARKER_PORT))
        wait_until(lambda: marker in self._tail(), "the capture's end marker")
        self._process.send_signal(signal.SIGINT)
        _, summary = self._process.communicate(timeout=STOP_S)
        lost = {where: int(count) for count, where in _DROPPED.findall(summary)}
        if any(lost.values()) or "kernel" not in lost:
            raise CaptureError(f"the capture lost packets: {summary.strip()}")
        return self.path

    def _tail(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - 65536))
            return file.read()

    def abandon(self) -> None:
        """Stop it without asking anything of it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(STOP_S)
        if self._process.stderr is not None:
            self._process.stderr.close()


@contextlib.contextmanager
def capture(side: Side, path: Path, peer: Side) -> Iterator[Capture]:
    """Run a capture on `side`; the body calls `finish` once the traffic is over."""
    running = Capture(side, path, peer.address[4])
    try:
        yield running
    finally:
        running.abandon()
