# SPDX-License-Identifier: Apache-2.0
"""What is installed beside the program says what the program does."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.conftest import skip_or_fail
from tracer.cli import cli
from tracer.privileges import NAMESPACES

if TYPE_CHECKING:
    from types import ModuleType

PACKAGING = Path(__file__).parents[2] / "packaging"
NEEDED = {"CAP_BPF", "CAP_PERFMON", *NAMESPACES}


@pytest.fixture(scope="module")
def manual() -> ModuleType:
    """Give the generator."""
    spec = importlib.util.spec_from_file_location("manual", PACKAGING / "manual.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_generated_pages_are_up_to_date(manual: ModuleType) -> None:
    """`make docs` writes them again."""
    for path, text in manual.pages().items():
        assert path.read_text() == text, path.name


def test_the_manual_has_every_command_and_option() -> None:
    text = (PACKAGING / "fourwave.1").read_text().replace(r"\-", "-")
    for name, command in cli.commands.items():
        assert f".SS fourwave {name}" in text
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in text


def unit() -> dict[str, str]:
    lines = (PACKAGING / "fourwave.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))


def test_the_unit_grants_what_is_needed_and_no_more() -> None:
    assert set(unit()["AmbientCapabilities"].split()) == NEEDED
    assert unit()["CapabilityBoundingSet"] == unit()["AmbientCapabilities"]
    assert unit()["Type"] == "notify"


def test_the_unit_is_hardened() -> None:
    """Systemd's own measure, of which below 3 is good."""
    if not shutil.which("systemd-analyze"):
        skip_or_fail("this host lacks systemd-analyze (package systemd)")
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(PACKAGING / "fourwave.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"exposure level for fourwave.service: ([\d.]+)", checked.stdout)
    assert score is not None, checked.stderr
    assert float(score[1]) < 3


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((PACKAGING / "kubernetes.yaml").read_text()))


def daemon_set() -> dict[str, Any]:
    return next(document for document in manifests() if document["kind"] == "DaemonSet")


@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(version: str) -> None:
    """By its own schemas: a name that is mistyped is ignored by a cluster, and so by nobody."""
    for document in manifests():
        kubernetes_validate.validate(document, version, strict=True)
    mistyped = daemon_set()
    mistyped["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostPid"):
        kubernetes_validate.validate(mistyped, version, strict=True)


def test_the_daemon_set_grants_what_is_needed() -> None:
    pod = daemon_set()["spec"]["template"]["spec"]
    granted = pod["containers"][0]["securityContext"]
    assert granted["capabilities"]["drop"] == ["ALL"]
    to_become = {"SETUID", "SETGID", "SETPCAP"}
    assert {f"CAP_{name}" for name in set(granted["capabilities"]["add"]) - to_become} == NEEDED
    assert granted.get("privileged", False) is False
    assert granted["readOnlyRootFilesystem"] is True
    assert pod["hostPID"] is True
    assert json.dumps(pod).count("/-/ready") == 1
