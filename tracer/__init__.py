# SPDX-License-Identifier: Apache-2.0
"""fourwave: how every TCP connection of a Linux host said goodbye."""

from __future__ import annotations

__version__ = "0.1.0"
