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
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from tests.conftest import ROOT, skip_or_fail
from tests.serve.served import Served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES: Final = ROOT / "dashboards" / "rules"
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
    """A real one that scrapes, and evaluates rules, every second."""

    def __init__(self, folder: Path, config: dict[str, Any], *options: str) -> None:
        """Start it on a free port, with all it writes in a folder; wait until it answers."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self._process = start_prometheus(folder, self.address, config, *options)
        if not until(self.ready, 30):
            self.stop()
            raise RuntimeError((folder / "log").read_text())

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

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
            return bool(self.get("status/runtimeinfo"))
        except OSError:
            return False


@pytest.fixture(scope="module")
def prometheus(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, scraping the server, with all rules."""
    targets = [f"127.0.0.1:{served.port}"]
    config = {
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": [{"job_name": "fourwave", "static_configs": [{"targets": targets}]}],
    }
    with Prometheus(tmp_path_factory.mktemp("prometheus"), config) as made:
        assert until(lambda: made.get("targets")["activeTargets"])
        yield made


def start_prometheus(
    folder: Path, address: str, config: dict[str, Any], *options: str
) -> subprocess.Popen[bytes]:
    """Start it; what is not in `config` is done every second."""
    often = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {**config, "global": {**often, **config.get("global", {})}}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
                *options,
            ],
            stderr=log,
        )
