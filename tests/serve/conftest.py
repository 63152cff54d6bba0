# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a server that tests only ask, and a real Prometheus with our rules that scrapes it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.conftest import ROOT, skip_or_fail
from tests.serve.served import Served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOOLS: Final = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "curl": "curl",
    "openssl": "openssl",
}


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    lacks = [
        f"{tool} (package {package})" for tool, package in TOOLS.items() if not shutil.which(tool)
    ]
    if os.geteuid() != 0:
        lacks.append("root")
    if lacks:
        skip_or_fail(f"this host lacks {', '.join(lacks)}")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One server for tests that only ask, with a census every second."""
    with Served("--census", "1") as running:
        yield running


class Prometheus:
    """A real one that scrapes one target, and evaluates all rules, every second."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        result: list[dict[str, Any]] = self.get("query", query=text)["result"]
        return result

    def value(self, text: str) -> float | None:
        """Return the value of a query with one result, None when it has none yet."""
        result = self.query(text)
        return float(result[0]["value"][1]) if result else None

    def target(self) -> dict[str, Any]:
        """Return what it says of its target."""
        targets: list[dict[str, Any]] = self.get("targets")["activeTargets"]
        return targets[0]

    def get(self, what: str, **words: object) -> Any:
        """Ask the HTTP API. Raises urllib.error.HTTPError where the question is wrong."""
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def ready(self) -> bool:
        """Say whether it answers."""
        try:
            return bool(self.get("targets")["activeTargets"])
        except OSError:
            return False


@pytest.fixture(scope="module")
def prometheus(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, scraping the server."""
    folder = tmp_path_factory.mktemp("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start_prometheus(folder, port, served.port)
    made = Prometheus(port, process)
    try:
        assert until(made.ready, 30), (folder / "log").read_text()
        yield made
    finally:
        process.terminate()
        process.wait(20)


def start_prometheus(folder: Path, port: int, target: int) -> subprocess.Popen[bytes]:
    """Start it with one target."""
    job = {"job_name": "fourwave", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "dashboards" / "rules" / "*.yml")],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        )
