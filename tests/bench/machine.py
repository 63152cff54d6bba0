# SPDX-License-Identifier: Apache-2.0
"""What machine the figures hold for."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Name kernel, processors, memory and Python."""
    models = _fields("/proc/cpuinfo", "model name")
    memory_kb = _fields("/proc/meminfo", "MemTotal")
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "model": models[0] if models else None,
        "memory_mb": int(memory_kb[0].split()[0]) // 1024,
        "python": platform.python_version(),
    }


def described(facts: dict[str, Any]) -> str:
    """Return it as one line."""
    return (
        f"Linux {facts['kernel']} {facts['architecture']}, {facts['processors']} x "
        f"{facts['model']}, {facts['memory_mb'] / 1024:.0f} GB, Python {facts['python']}"
    )


def _fields(path: str, name: str) -> list[str]:
    lines = Path(path).read_text().splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
