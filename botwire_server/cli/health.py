"""`botwire-server health`: does the server of this data directory answer where it serves?"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import orjson

from botwire_server.addresses import EVERY, EVERY_IPV4, UNIX
from botwire_server.cli.common import show_json
from botwire_server.cli.settings import option
from botwire_server.cli.terminal import say
from botwire_server.config import Config
from botwire_server.errors import Unavailable
from botwire_server.store.lock import told

# What leads to a server that listens on every address of a family.
_OWN = {EVERY: "::1", EVERY_IPV4: "127.0.0.1"}
LARGEST_ANSWER = 65_536


class _OverUnix(http.client.HTTPConnection):
    """A connection over a Unix socket; the Host it asks for is localhost."""

    def __init__(self, path: str, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """See `HTTPConnection`."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect("\0" + self._path[1:] if self._path.startswith("@") else self._path)


@click.command()
@option("data_dir")
@click.option("--ready", is_flag=True, help="Ask /ready: whether it can work, not only lives.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long an answer may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def health(data_dir: Path | None, ready: bool, seconds: float, as_json: bool) -> None:
    """Ask the server that serves the data directory, at every address it listens on.

    It knows them from the server itself, so there is nothing to say but --data-dir: whatever port,
    family or Unix socket it is. The exit code is 0 where all of them answer well, else 1.
    """
    directory = data_dir or Config().data_dir
    facts = told(directory)
    if facts is None:
        raise Unavailable(
            f"No botwire-server is serving {directory}: start one, or name --data-dir."
        )
    addresses = facts.get("addresses") or []
    if not addresses:
        raise Unavailable(f"The botwire-server of {directory} does not serve yet.")
    path = "/ready" if ready else "/health"
    found = [_ask(address, path, seconds) for address in addresses]
    if as_json:
        show_json({"ok": all(each["ok"] for each in found), "addresses": found})
    for each in found if not as_json else ():
        say(f"{'ok' if each['ok'] else 'failing':<8} {each['address']} {each['says']}")
    if not all(each["ok"] for each in found):
        raise Unavailable("It does not answer as it should.")


def _ask(address: str, path: str, seconds: float) -> dict[str, Any]:
    try:
        status, says = _answer(address, path, seconds)
    except (OSError, http.client.HTTPException) as error:
        return {"address": address, "ok": False, "says": type(error).__name__}
    return {"address": address, "ok": status == 200, "says": says}


def _answer(address: str, path: str, seconds: float) -> tuple[int, str]:
    connection: http.client.HTTPConnection
    if address.startswith(UNIX):
        connection = _OverUnix(address.removeprefix(UNIX), timeout=seconds)
    else:
        place = urlsplit(address)
        host = unquote(place.hostname or "")
        connection = http.client.HTTPConnection(_OWN.get(host, host), place.port, timeout=seconds)
    try:
        # While no key exists a server knows itself by such names only.
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        answer = connection.getresponse()
        body = orjson.loads(answer.read(LARGEST_ANSWER))
        return answer.status, str(body.get("status", answer.status))
    except orjson.JSONDecodeError:
        raise http.client.HTTPException("no JSON") from None
    finally:
        connection.close()
