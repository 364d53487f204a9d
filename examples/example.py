"""What the examples have in common: a folder, free ports, processes that end.

The files beside an example name fixed ports, as yours would. Here each is exchanged for
a free one, the same in every file, so that examples run on any machine and side by
side.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from router import testing

STOP_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 90.0


class Example:
    """Owner of a temporary folder and of the processes of one example."""

    def __init__(self, sources: Path) -> None:
        self._sources = sources
        self._folder = tempfile.TemporaryDirectory(prefix="example-")
        self.directory = Path(self._folder.name)
        self._ports: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def write(self, name: str) -> Path:
        """A file of the example in the folder, with free ports."""
        text = (self._sources / name).read_text()
        path = self.directory / name
        path.write_text(re.sub(r"\b(?:80|99)\d\d\b", self._free, text))
        return path

    def address(self, port: int) -> str:
        """Where the port of the files really is."""
        return f"127.0.0.1:{self._port(str(port))}"

    def start(
        self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in the folder; its output goes to `<name>.log`."""
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                env={**os.environ, **(more or {})},
            )
        self._processes[name] = process
        return process

    def router(self, name: str, ops_port: int) -> subprocess.Popen[bytes]:
        """Serve `<name>.yaml` and wait until it is ready."""
        self.write(f"{name}.yaml")
        serve = [sys.executable, "-P", "-m", "router", "serve", f"{name}.yaml"]
        process = self.start(name, serve)
        self.wait_http(name, f"http://{self.address(ops_port)}/readyz")
        return process

    def wait_http(self, name: str, url: str) -> None:
        """Wait until a page answers 200; the process's words if it ends instead."""

        def answers() -> bool:
            if self._processes[name].poll() is not None:
                raise RuntimeError(f"{name} ended:\n{self.log(name)}")
            with suppress(URLError, OSError), urlopen(url, timeout=2) as page:
                return bool(page.status == 200)
            return False

        testing.wait_until(answers, f"{name} ready", READY_TIMEOUT_S)

    def log(self, name: str) -> str:
        """What a process said so far."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def metric(self, ops_port: int, name: str) -> float:
        """The sum of a metric's samples."""
        with urlopen(f"http://{self.address(ops_port)}/metrics", timeout=10) as page:
            text = page.read().decode()
        return sum(
            value for found, _, value in testing.samples(text, name) if found == name
        )

    def _free(self, match: re.Match[str]) -> str:
        return self._port(match.group())

    def _port(self, port: str) -> str:
        if port not in self._ports:
            self._ports[port] = str(testing.free_ports(1)[0])
        return self._ports[port]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if error[0] is not None:
            for name in self._processes:
                print(f"--- {name} said:\n{self.log(name)[-3000:]}", file=sys.stderr)
        self._folder.cleanup()
