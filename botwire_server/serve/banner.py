"""What a start says: where data lies, the addresses, the mode, and how to point a client.

For people, or as one line of JSON for who collects logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botwire_server import __version__
from botwire_server.config import Config
from botwire_server.logs import LogFormat, json_line

INSECURE = (
    "--insecure-open: while no key exists, everybody who reaches this port can read, change and "
    "delete everything."
)
_LOST = (
    "It could not be written down, so it is lost: `botwire-server keys create default` makes one."
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What there is to say of one.

    `client_url` is None where only a Unix socket leads here. `first_key` is the key that this start
    made; `key_file` is where a first key lies that nobody has taken away.
    """

    config: Config
    public_url: str | None
    urls: list[str]
    client_url: str | None
    local: bool
    keyed: bool
    first_key: str | None
    key_file: Path | None
    figures: list[str]

    def said(self, style: LogFormat, *, watched: bool) -> str:
        """All of it. With `watched`, a person looks on: the key is shown, and only now."""
        return self._json(watched=watched) if style == "json" else self._text(watched=watched)

    @property
    def _mode(self) -> str:
        if self.keyed:
            return "keys: every request needs an API key"
        who = "this machine only" if self.local else "EVERYBODY who reaches this port"
        return f"open: no key needed, {who}"

    def _json(self, *, watched: bool) -> str:
        fields: dict[str, Any] = {
            "version": __version__,
            "data": str(self.config.data_dir),
            "addresses": self.urls,
            "url": self.public_url or self.client_url,
            "mode": self._mode,
        }
        if self.figures:
            fields["metrics"] = self.figures
        message = "serving"
        if self.first_key is not None and watched:
            fields["first_key"] = self.first_key
        elif self.key_file is not None:
            fields["first_key_file"] = str(self.key_file)
        elif self.first_key is not None:
            message = f"serving; the first key was made. {_LOST}"
        lines = [json_line("info", message, **fields)]
        if self.config.insecure_open:
            lines.insert(0, json_line("warning", INSECURE))
        return "\n".join(lines)

    def _text(self, *, watched: bool) -> str:
        first, *more = self.urls
        lines = [
            *([f"WARNING: {INSECURE}"] if self.config.insecure_open else []),
            f"botwire-server {__version__}",
            f"  data     {self.config.data_dir}",
            f"  address  {first}",
            *(f"           {each}" for each in more),
            *([f"  public   {self.public_url}"] if self.public_url else []),
            f"  mode     {self._mode}",
            *(f"  metrics  {at}" for at in self.figures),
            "",
            *self._pointing(watched=watched),
            "",
            *self._of_the_first_key(watched=watched),
        ]
        return "\n".join(lines)

    def _pointing(self, *, watched: bool) -> list[str]:
        url = self.public_url or self.client_url
        key = self.first_key if watched and self.first_key else "KEY" if self.keyed else None
        if url is None:
            path = self.urls[0].removeprefix("unix:")
            header = f" -H 'Authorization: Bearer {key}'" if key else ""
            return [
                "Point a proxy at it, or try it:",
                f"  curl --unix-socket {path}{header} http://localhost/stats/memory",
            ]
        return [
            "Point a client at it:",
            f"  export BOTWIRE_URL={with_key(url, key)}",
            "  pip install botwire",
            '  python -c \'from botwire import Memory; m = Memory("hello"); '
            """m.set("name", "Ada"); print(m.get("name"))'""",
        ]

    def _of_the_first_key(self, *, watched: bool) -> list[str]:
        made = [
            "This address can be reached from other machines, so keys are required. There was",
        ]
        if self.first_key is not None and watched:
            made += ["none: tenant default was made, and its first key, which is shown only now:"]
            return [*made, f"  {self.first_key}", ""]
        if self.first_key is not None and self.key_file is None:
            return [*made, "none: tenant default was made, and its first key.", _LOST, ""]
        if self.first_key is not None:
            made += ["none: tenant default was made, and its first key, which only you may read:"]
            return [*made, f"  cat {self.key_file}", "Remove the file once you have it.", ""]
        if self.key_file is not None:
            return [f"The first key still lies in {self.key_file}: take it, remove the file.", ""]
        return []


def with_key(url: str, key: str | None) -> str:
    """A client's URL with its key in it."""
    return url if key is None else url.replace("://", f"://{key}@", 1)
