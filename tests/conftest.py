# SPDX-License-Identifier: Apache-2.0
"""What every ring of tests shares: tests marked `kernel` say why where they cannot run.

With FOURWAVE_KERNEL_TESTS=1 such a skip is a failure, so that a machine meant for them cannot
pass by not running them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("fourwave", deadline=None)
hypothesis.settings.load_profile("fourwave")

ROOT = Path(__file__).resolve().parent.parent
# Programs that packaging/prepare put there, where the host has none.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(ROOT / ".venv/bin")])
SBIN_PATH = os.pathsep.join(["/usr/sbin", "/sbin", os.environ.get("PATH", "/usr/bin:/bin")])
TOOLS = {"ip": "iproute2", "tcpdump": "tcpdump"}
MODULES = {"dpkt": "the test dependency group", "tracer.cli": "the package itself"}
FORCE = "FOURWAVE_KERNEL_TESTS"

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def missing_for_kernel_tests() -> list[str]:
    """Return what this host lacks for the tests marked `kernel`, each with where to get it."""
    lacks = [] if os.geteuid() == 0 else ["root"]
    for tool, package in TOOLS.items():
        if shutil.which(tool, path=SBIN_PATH) is None:
            lacks.append(f"{tool} (package {package})")
    for module, origin in MODULES.items():
        if importlib.util.find_spec(module) is None:
            lacks.append(f"Python module {module} ({origin})")
    lacks += [path for path in ("/sys/kernel/btf/vmlinux",) if not Path(path).exists()]
    return lacks


def skip_or_fail(reason: str) -> None:
    """Skip the running test, or fail it when the kernel tests are asked for."""
    if os.environ.get(FORCE) == "1":
        pytest.fail(f"{reason} ({FORCE}=1 makes this a failure)", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Gate the tests marked `kernel`."""
    if item.get_closest_marker("kernel") is not None:
        lacks = missing_for_kernel_tests()
        if lacks:
            skip_or_fail(f"this host lacks {', '.join(lacks)}")
