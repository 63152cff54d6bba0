# SPDX-License-Identifier: Apache-2.0
"""Closes made in a namespace, and every one of them in the rows of top."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.looks import until
from tests.truth.netns import namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
COUNT = 23


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace of its own."""
    with namespace("top") as made:
        yield made


def test_every_close_is_in_a_row(ns: Namespace) -> None:
    """The service's closes and the clients', by port; SIGINT ends with 0."""
    command = [sys.executable, "-m", "tracer", "top", "--json", "--every", "0.2"]
    view = subprocess.Popen(
        [*command, "--netns", str(ns.inum)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert view.stdout is not None
    assert view.stderr is not None
    with view.stdout, view.stderr, ns.socket() as server:
        assert view.stderr.readline().startswith("ready")
        server.bind(("127.0.0.1", 0))
        server.listen(COUNT)
        port = server.getsockname()[1]
        for _ in range(COUNT):
            with ns.socket() as client:
                client.connect(("127.0.0.1", port))
                conn, _ = server.accept()
                client.close()
                assert conn.recv(1) == b""
                conn.close()
        rows: dict[tuple[int | None, int | None], int] = {}

        def look() -> dict[tuple[int | None, int | None], int]:
            row = json.loads(view.stdout.readline())  # type: ignore[union-attr]
            key = row["lport"], row["rport"]
            rows[key] = rows.get(key, 0) + row["closes"]
            return rows

        until(look, lambda seen: seen == {(port, None): COUNT, (None, port): COUNT})
        view.send_signal(signal.SIGINT)
        assert view.wait(20) == 0
