# SPDX-License-Identifier: Apache-2.0
"""A census taken in a PID namespace of its own: it must tell of no process but the holder."""

from __future__ import annotations

import os
import socket
import sys

from tracer.kernel.census import CensusSource
from tracer.wire_census import decode_census


def main() -> int:
    """Hold a listener, and compare what a census says of whom with what is true."""
    with socket.socket() as sock, CensusSource(CensusSource.load()) as source:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        ino = os.fstat(sock.fileno()).st_ino
        census = decode_census(source.take(owners=True).data)
        held = census.owners[census.owners["ino"] == ino]
        assert len(held), "the listener has no holder"
        for tgid in held["tgid"].tolist():
            facts = census.processes.get(tgid)
            assert facts is None or facts.exe == os.path.realpath(sys.executable), (tgid, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
