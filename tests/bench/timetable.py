# SPDX-License-Identifier: Apache-2.0
"""Something done again and again beside what is measured."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def on_timetable(every_s: float, work: Callable[[], object]) -> Iterator[None]:
    """Do it that often meanwhile, in a thread; what it raises ends it there."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every_s):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
