"""`/openapi.json`, and `/docs`, where a person reads and tries it in a browser.

Neither needs a key and neither tells anything of what is stored. Everything that the page loads
comes from this server (`assets/`, refreshed by `scripts/swagger-ui`): each file has a route of its
own, so that no path of a request ever becomes a path of a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Refusal
from botwire_server.web.body import header
from botwire_server.web.description import OBJECT, STRING, Answer, Shape, operation
from botwire_server.web.dialect import Dialect, Resource
from botwire_server.web.openapi import document

ASSETS = Path(__file__).parent / "assets"

# What the page loads, and whence. Its address in the page names its content: see `_page`.
FILES: Mapping[str, tuple[Path, str]] = {
    "swagger-ui-bundle.js": (
        ASSETS / "swagger-ui" / "swagger-ui-bundle.js",
        "text/javascript; charset=utf-8",
    ),
    "swagger-ui.css": (ASSETS / "swagger-ui" / "swagger-ui.css", "text/css; charset=utf-8"),
    "favicon-32x32.png": (ASSETS / "swagger-ui" / "favicon-32x32.png", "image/png"),
    "docs.js": (ASSETS / "docs.js", "text/javascript; charset=utf-8"),
    "docs.css": (ASSETS / "docs.css", "text/css; charset=utf-8"),
}

# Swagger UI draws its icons from data: URLs in its style sheet.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GUARDS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REVALIDATE = "no-cache"
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class File:
    """Something that is served as it is."""

    content: bytes
    media_type: str

    @property
    def version(self) -> str:
        """Says whether two contents differ."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    def answer(self, request: Request, *, caching: str) -> Response:
        """The file, or 304 where the client has it."""
        etag = f'"{self.version}"'
        headers = {**_GUARDS, "ETag": etag, "Cache-Control": caching}
        if etag in (header(request, b"if-none-match") or ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def dialects(
    apis: Sequence[Dialect],
    *,
    refuse: Callable[[Refusal, str], Response],
    refusal: Shape,
    public_url: str | None = None,
) -> list[Dialect]:
    """What serves the document of these dialects and the page. Refuses as it is told to.

    `public_url` is where clients find them, if not where the document is.
    """
    handlers = _Handlers(apis, public_url)
    page = Answer("The page.", STRING, media_type="text/html")
    file = Answer("The file.", STRING, media_type="application/octet-stream")
    routes = [
        Resource(
            "/docs",
            GET=operation(handlers.page, "get_docs", "Read this in a browser", answers={200: page}),
        ),
        *(
            Resource(
                f"/docs/{name}",
                GET=operation(handlers.file, "get_file", "What it loads", answers={200: file}),
            )
            for name in FILES
        ),
    ]
    described = Resource(
        "/openapi.json",
        GET=operation(
            handlers.document,
            "get_document",
            "The document",
            answers={200: Answer("The document.", OBJECT)},
        ),
    )
    return [
        Dialect(
            title="Documentation",
            prefix=prefix,
            routes=some,
            refuse=refuse,
            refusal=refusal,
            public=frozenset(resource.path for resource in some),
        )
        for prefix, some in (("/docs", routes), ("/openapi.json", [described]))
    ]


class _Handlers:
    """Reads files and makes the document when they are first asked for."""

    def __init__(self, apis: Sequence[Dialect], public_url: str | None) -> None:
        self._apis = apis
        self._public_url = public_url
        self._kept: dict[str, File] = {}

    async def page(self, request: Request) -> Response:
        return (await self._file("docs.html", self._page)).answer(request, caching=_REVALIDATE)

    async def document(self, request: Request) -> Response:
        found = await self._file("openapi.json", self._document)
        return found.answer(request, caching=_REVALIDATE)

    async def file(self, request: Request) -> Response:
        name = request.scope["route"].path.rpartition("/")[2]
        found = await self._file(name, lambda: _read(name))
        named = request.scope["query_string"] == b"v=" + found.version.encode()
        return found.answer(request, caching=_FOR_GOOD if named else _REVALIDATE)

    async def _file(self, name: str, make: Callable[[], File]) -> File:
        if name not in self._kept:
            self._kept[name] = await asyncio.to_thread(make)
        return self._kept[name]

    def _document(self) -> File:
        return File(
            orjson.dumps(document(self._apis, public_url=self._public_url)), "application/json"
        )

    def _page(self) -> File:
        """The page, in which the address of each file names its content."""

        def address(found: re.Match[str]) -> str:
            return f"docs/{found[1]}?v={_read(found[1]).version}"

        source = (ASSETS / "docs.html").read_text()
        text = re.sub(r"{([\w.-]+)}", address, source)
        return File(text.encode(), "text/html; charset=utf-8")


def _read(name: str) -> File:
    path, media_type = FILES[name]
    return File(path.read_bytes(), media_type)
