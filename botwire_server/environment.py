"""The variables that steer a server: which are ours, which others set, and how they are read.

A name that begins with `BOTWIRE_SERVER_` is a setting or a mistake, and a mistake is refused.
Orchestrators write such names too: for a service called `botwire-server` Kubernetes and Docker tell
every container its addresses. Those are known by the forms of their names and values together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path

from botwire_server.errors import Unusable

PREFIX = "BOTWIRE_SERVER_"
# What names the file that holds a secret: `BOTWIRE_SERVER_EMBEDDER_KEY_FILE`.
IN_FILE = "_FILE"
LARGEST_SECRET = 65_536

# What editors and shells leave around a value: an end of line, a byte order mark.
AROUND = " \t\r\n\f\v\ufeff"
_OURS = PREFIX.rstrip("_")
_URL = re.compile(r"(?:tcp|udp|sctp)://(?P<host>\[[^]]+\]|[^:]+):\d+")


def _address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _url(value: str) -> bool:
    found = _URL.fullmatch(value)
    return found is not None and _address(found["host"].strip("[]"))


_INJECTED: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = tuple(
    (re.compile(rf"{_OURS}(?:_[A-Z0-9_]+)?_{name}"), fits)
    for name, fits in (
        ("SERVICE_HOST", _address),
        (r"SERVICE_PORT(?:_[A-Z0-9_]+)?", str.isdecimal),
        ("PORT", _url),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)(?:_START|_END)?", _url),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)_ADDR", _address),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)_PORT(?:_START|_END)?", str.isdecimal),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)_PROTO", ("tcp", "udp", "sctp").__contains__),
    )
)
# A link of Docker: its name is the path of two containers' names, its environment is copied.
_LINK = re.compile(rf"(?P<link>{_OURS}(?:_[A-Z0-9_]+)?)_NAME")
_LINKED = re.compile(r"/[^/]+/[^/]+")


def injected(environment: Mapping[str, str]) -> set[str]:
    """The names that Kubernetes or Docker has set for a service, not an operator for us."""
    links = tuple(
        f"{found['link']}_"
        for name, value in environment.items()
        if (found := _LINK.fullmatch(name)) and _LINKED.fullmatch(value.strip(AROUND))
    )
    return {
        name
        for name, value in environment.items()
        if any(form.fullmatch(name) and fits(value.strip(AROUND)) for form, fits in _INJECTED)
        or any(name == f"{link}NAME" or name.startswith(f"{link}ENV_") for link in links)
    }


def tidy(environment: MutableMapping[str, str]) -> set[str]:
    """Drop from `environment` what is not meant for us, and from our values what is around them.

    The names that were dropped.
    """
    dropped = injected(environment)
    for name in dropped:
        del environment[name]
    for name, value in list(environment.items()):
        if name.startswith(PREFIX) and value != value.strip(AROUND):
            environment[name] = value.strip(AROUND)
    return dropped


def unknown(environment: Mapping[str, str], known: set[str]) -> Iterator[tuple[str, str | None]]:
    """The names that look like settings and are none, each with the nearest that is one."""
    for name in sorted(environment):
        meant = name.strip(AROUND).upper().replace("-", "_")
        if meant.startswith(PREFIX) and name not in known:
            yield name, next(iter(get_close_matches(meant, sorted(known), n=1)), None)


def refuse_unknown(environment: Mapping[str, str], known: set[str]) -> None:
    """Raise `Unusable` for a variable nobody reads, naming the nearest."""
    for name, near in unknown(environment, known):
        hint = f"did you mean {near}?" if near else "see `botwire-server serve --help`."
        raise Unusable(f"There is no setting {name.strip(AROUND)}: {hint}")


def secret(environment: Mapping[str, str], name: str) -> str | None:
    """The secret in the variable `name`, or in the file that `name`_FILE names; None for neither.

    Raises `Unusable`, which names the variable and never what it holds.
    """
    value, path = environment.get(name), environment.get(name + IN_FILE)
    if not path:
        return value or None
    if value:
        raise Unusable(f"{name} and {name}{IN_FILE} are both set: keep one of them.")
    return _read(path, variable=name + IN_FILE)


def _read(path: str, *, variable: str) -> str:
    told = f"{variable} names {path}, which"
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_SECRET + 1)
        text = content.decode().strip(AROUND)
    except FileNotFoundError:
        raise Unusable(f"{told} does not exist: put the secret there, or name its file.") from None
    except IsADirectoryError:
        raise Unusable(f"{told} is a directory: name the file in it.") from None
    except PermissionError:
        raise Unusable(f"{told} this user may not read: give it the right to.") from None
    except UnicodeDecodeError:
        raise Unusable(f"{told} holds no text: put the secret there as UTF-8.") from None
    except (OSError, ValueError):
        raise Unusable(f"{told} cannot be read: name a file that can.") from None
    if len(content) > LARGEST_SECRET:
        raise Unusable(f"{told} is larger than {LARGEST_SECRET} bytes: that is no secret.")
    if not text:
        raise Unusable(f"{told} is empty: put the secret there.")
    return text
