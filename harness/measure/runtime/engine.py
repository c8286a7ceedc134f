"""Questions to the Docker engine, over its local socket where that is possible: a tenth of the command line's time.

The socket is used only where the command line would use it too: ``DOCKER_HOST`` names one, or neither it nor a
context is set.  Everywhere else, and whenever the socket does not answer, the command line is asked.  Source: the API
(``ContainerInspect``, ``SystemEvents``), paths without a version.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from harness.errors import UnavailableError
from harness.measure.runtime import dockercli
from harness.measure.runtime.dockercli import CALL_S, Answer, call
from harness.measure.runtime.verdict import last_line

USUAL_SOCKET: Final = "/var/run/docker.sock"
ASKED_AGAIN_S: Final = 2.0


@dataclass(frozen=True)
class Engine:
    """What the engine says about itself."""

    cpus: int
    driver: str
    cgroup: str
    version: str


@cache
def facts_at(host: str) -> Engine:
    """What the engine at ``host`` (``DOCKER_HOST``) says about itself.

    Raises:
        UnavailableError: it does not.
    """
    wanted = "{{.NCPU}}|{{.CgroupDriver}}|{{.CgroupVersion}}|{{.ServerVersion}}"
    answer = call(["docker", "info", "--format", wanted])
    parts = answer.stdout.strip().split("|")
    if len(parts) != 4 or not parts[0].isdigit() or int(parts[0]) == 0:
        raise UnavailableError(f"the Docker engine does not describe itself: {last_line(answer.stderr)}")
    return Engine(int(parts[0]), *parts[1:])


def why_unavailable() -> str | None:
    """As ``dockercli.why_unavailable``, asked anew after two seconds: the jobs of a session are prepared at once."""
    place = os.environ.get("DOCKER_HOST", ""), os.environ.get("PATH", "")
    return _why_unavailable(place, int(time.monotonic() / ASKED_AGAIN_S))


@lru_cache(maxsize=1)
def _why_unavailable(place: tuple[str, str], moment: int) -> str | None:
    return dockercli.why_unavailable()


def container(name: str) -> Answer:
    """The engine's account of a container, one JSON object."""
    command = ["docker", "inspect", "--type", "container", "--format", "{{json .}}", name]
    return _ask(f"/containers/{quote(name, safe='')}/json", command)


def events(name: str, since: float, until: float) -> Answer:
    """What happened to a container between two moments (seconds since the epoch), one JSON object a line."""
    begin, end = f"{since:.3f}", f"{until:.3f}"
    query = urlencode({"since": begin, "until": end, "filters": json.dumps({"container": [name]})})
    command = ["docker", "events", "--since", begin, "--until", end, "--filter", f"container={name}"]
    return _ask(f"/events?{query}", [*command, "--format", "{{json .}}"])


def socket_path() -> str | None:
    """The socket that the command line would use, or ``None`` where it would use something else."""
    host = os.environ.get("DOCKER_HOST", "")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix://") else None
    return None if _context() else USUAL_SOCKET


def _context() -> str:
    """The context that is set; empty for the usual engine."""
    name = os.environ.get("DOCKER_CONTEXT", "")
    if not name:
        folder = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
        try:
            name = json.loads(Path(folder, "config.json").read_text(encoding="utf-8")).get("currentContext", "")
        except (OSError, ValueError, AttributeError):  # as the command line does: no file, no context
            name = ""
    return "" if name == "default" else name


def _ask(path: str, command: Sequence[str], timeout_s: float = CALL_S) -> Answer:
    place = socket_path()
    if place is None:
        return call(command)
    line = _Line(place, timeout_s)
    try:
        line.request("GET", path)
        response = line.getresponse()
        text = response.read().decode(errors="replace")
    except TimeoutError:
        return Answer(-1, "", f"the engine at {place} did not answer in {timeout_s:g} s", timed_out=True)
    except (OSError, http.client.HTTPException):
        return call(command)  # it knows other ways, and says best what is wrong
    finally:
        line.close()
    return Answer(0, text, "") if response.status == http.client.OK else Answer(1, "", _message(text))


def _message(text: str) -> str:
    try:
        return f"Error response from daemon: {json.loads(text)['message']}"
    except (ValueError, KeyError, TypeError):
        return text


class _Line(http.client.HTTPConnection):
    """HTTP over a local socket."""

    def __init__(self, place: str, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._place)
