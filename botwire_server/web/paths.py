"""What the path of a request means, before any dialect looks at it."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from botwire_server.errors import Invalid


def normalize(scope: Scope) -> None:
    """Make `path` what the client meant, or raise `Invalid`.

    Slashes that a base URL with a slash at its end has doubled are taken as one; those inside a
    key stay. Bytes that are no UTF-8 would all read as U+FFFD and make two names one.
    """
    raw: bytes = scope["raw_path"]
    if raw.startswith(b"//"):
        scope["raw_path"] = raw = b"/" + raw.lstrip(b"/")
        scope["path"] = "/" + scope["path"].lstrip("/")
    if b"%" in raw:
        try:
            unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise Invalid("The path is no valid UTF-8.", where=("path",)) from None
        # The routes' patterns end in `$`, which a line break at the end of a name would pass.
        if "\n" in scope["path"]:
            raise Invalid("The path holds a control character.", where=("path",))
