# SPDX-License-Identifier: Apache-2.0
"""What is concluded from censuses: each detector looks at one after the other.

A detector is a class with a `name` and `look(census)`; it keeps what it needs of earlier ones,
bounded, and reads neither clock nor /proc. What it returns is made of frozen findings.
"""

from __future__ import annotations

from typing import Final

from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.local_ports import LocalPorts
from tracer.detectors.time_wait import TimeWait

DETECTORS: Final = (CloseWaitLeak, TimeWait, LocalPorts, ListenOverflow)
