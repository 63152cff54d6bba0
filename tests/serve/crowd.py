# SPDX-License-Identifier: Apache-2.0
"""A network namespace of its own with hardly any room for TIME_WAITs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM: Final = 3
_CLOSES: Final = """
import pathlib, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
pathlib.Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text(sys.argv[1])
server = socket.create_server(("127.0.0.1", 0), backlog=64)
for count in sys.stdin:
    for _ in range(int(count)):
        client = socket.create_connection(server.getsockname())
        there = server.accept()[0]
        client.close()
        there.recv(1)
        there.close()
    print(count, flush=True)
"""


@dataclass(frozen=True)
class Crowd:
    """A process in the namespace."""

    process: subprocess.Popen[str]

    def close(self, count: int) -> None:
        """Open so many connections, each closed by who opened it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline(), "the process in the namespace failed"


@contextlib.contextmanager
def crowded() -> Iterator[Crowd]:
    """Keep the namespace for as long as the block lasts."""
    words = ["unshare", "--net", sys.executable, "-c", _CLOSES, str(ROOM)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Crowd(process)
