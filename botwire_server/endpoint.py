"""A client for OpenAI-compatible endpoints: one JSON POST, guarded.

Only the operator's configuration says where it goes. It follows no redirect, reads no proxy or
credentials from the environment, stops reading at a limit, and gives up in time. Whatever goes
wrong is `Unavailable` with a sentence; the cause goes to the log.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import orjson

from botwire_server.environment import AROUND, PREFIX
from botwire_server.errors import Unavailable, Unusable
from botwire_server.logs import describe

log = logging.getLogger(__name__)

SECONDS = 30.0
MOST_BYTES = 32 * 1024 * 1024

_KEY = re.compile("[!-~]+")
_SPEC = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://[^\s/?#@][^\s?#@]*)")


@dataclass(frozen=True)
class EndpointSpec:
    """Which model at which URL, as `openai:MODEL@URL` says it, and the key to go there with."""

    model: str
    url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, spec: str, *, setting: str, key: str | None = None) -> Self:
        """Read `openai:MODEL@URL`; raise `Unusable` naming `setting`."""
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise Unusable(
                f"{setting} must look like openai:MODEL@URL, such as "
                "openai:nomic-embed-text@http://localhost:11434/v1; a key goes into its variable, "
                "not into the URL."
            )
        return cls(match["model"], match["url"].rstrip("/"), _clean(key, setting=setting))


def _clean(key: str | None, *, setting: str) -> str | None:
    """A key without what files and editors leave around it; raise `Unusable` for none at all."""
    key = (key or "").strip(AROUND)
    if key and (not _KEY.fullmatch(key) or key[0] in "\"'"):
        name = f"{PREFIX}{setting.removeprefix('--').upper()}_KEY"
        raise Unusable(
            f"{setting}-key ({name}) holds what no key does: spaces, "
            "quotation marks around it, control characters or letters beyond ASCII. Write the bare "
            "key."
        )
    return key or None


class Endpoint:
    """One endpoint. `purpose` names it in messages ("embedding", "summarizer")."""

    def __init__(
        self,
        spec: EndpointSpec,
        *,
        purpose: str,
        seconds: float = SECONDS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.model = spec.model
        self._purpose = purpose
        self._seconds = seconds
        self._most_bytes = most_bytes
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # What is unpacked could be a thousand times what was counted.
            "Accept-Encoding": "identity",
        }
        if spec.key:
            headers["Authorization"] = f"Bearer {spec.key}"
        self._url = spec.url
        self._client = httpx.AsyncClient(
            headers=headers, timeout=seconds, follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        """Release its connections. May be called again."""
        await self._client.aclose()

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST `body` to `path` under the endpoint's URL; the JSON object it answers.

        Raises `Unavailable`.
        """
        try:
            async with asyncio.timeout(self._seconds):
                status, content = await self._exchange(path, orjson.dumps(body))
        except (TimeoutError, httpx.TimeoutException):
            raise self._unavailable(f"did not answer within {self._seconds:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("%s endpoint: %s", self._purpose, describe(error))
            raise self._unavailable("cannot be reached") from None
        if status != 200:
            raise self._unavailable(f"answered with status {status}")
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise self._unavailable("answered something else than JSON") from None
        if not isinstance(answer, dict):
            raise self._unavailable("answered something else than a JSON object")
        return answer

    async def _exchange(self, path: str, body: bytes) -> tuple[int, bytes]:
        async with self._client.stream("POST", self._url + path, content=body) as response:
            content = bytearray()
            async for part in response.aiter_raw(65_536):
                content += part
                if len(content) > self._most_bytes:
                    raise self._unavailable(f"answered more than {self._most_bytes} bytes")
            return response.status_code, bytes(content)

    def unexpected(self) -> Unavailable:
        """What to raise for an answer of the wrong shape."""
        return self._unavailable("answered in an unexpected shape")

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(
            f"The configured {self._purpose} endpoint {what}; try again later, or tell the "
            "operator of this server."
        )
