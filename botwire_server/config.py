"""Every setting of a server, once: name, type, default and help. Options win over variables.

The command line makes `--data-dir` and `BOTWIRE_SERVER_DATA_DIR` out of the field `data_dir`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from botwire_server.addresses import is_local
from botwire_server.environment import PREFIX
from botwire_server.logs import LogFormat
from botwire_server.store.driver import Durability

Profile = Literal["native", "hosted"]
LogLevel = Literal["debug", "info", "warning", "error"]
CheckpointRule = Literal["id", "version"]

HOSTED_DAILY_WRITES = 1_000
HOSTED_NAMESPACE_BYTES = 50_000_000


def _setting(default: Any, help: str, *, secret: bool = False, **more: Any) -> Any:
    if secret:
        help += (
            " Use its variable, or the one that names a file: an option shows in the list of "
            "processes."
        )
    metadata = {"help": help, "secret": secret, **more}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one server."""

    data_dir: Path = field(
        default_factory=lambda: platformdirs.user_data_path("botwire-server", appauthor=False),
        metadata={"help": "Where everything is stored.", "shown": "the user data directory"},
    )
    host: str = _setting(
        "127.0.0.1",
        "Address to listen on: one of IPv4 or IPv6; localhost, which is this machine in both; "
        "0.0.0.0 for every IPv4 address, :: for every address of both; or unix:PATH.",
    )
    port: int = _setting(8000, "Port to listen on; 0 takes a free one.", least=0, most=65_535)
    socket_mode: str = _setting("660", "Who may use a Unix socket, as for chmod.")
    socket_group: str | None = _setting(
        None, "The group a Unix socket belongs to.", shown="this user's"
    )
    public_url: str | None = _setting(
        None,
        "Where clients reach this server through a proxy, with its path, such as "
        "https://example.com/memory. It is printed, and stands in the OpenAPI document.",
        shown="",
    )
    profile: Profile = _setting(
        "native",
        "hosted: the exact names, sizes, limits and shapes of the hosted BotWire Memory, so that "
        "what works here works there.",
    )
    daily_writes: int | None = _setting(
        None,
        "Writes a namespace accepts per UTC day; 0 is no limit.",
        least=0,
        shown=f"0; {HOSTED_DAILY_WRITES} with --profile hosted",
    )
    max_namespace_bytes: int | None = _setting(
        None,
        "Bytes of keys and values a namespace holds at most; 0 is no limit.",
        least=0,
        shown=f"0; {HOSTED_NAMESPACE_BYTES} with --profile hosted",
    )
    tiers: Path | None = _setting(
        None, "TOML file with tiers of limits.", shown="tiers.toml in the data directory"
    )
    max_body_bytes: int = _setting(1_048_576, "Largest request body, in bytes.", least=1_024)
    read_seconds: int = _setting(
        5,
        "Seconds that a read may compute, and as many that it may wait for others. Beyond the "
        "first it is refused with 413, beyond the second with 503.",
        least=1,
        most=3_600,
    )
    max_answer_bytes: int = _setting(
        67_108_864,
        "Largest answer, in bytes; a longer list is refused, and read by the page.",
        least=65_536,
    )
    durability: Durability = _setting(
        "full",
        "full: an acknowledged write survives power loss. relaxed: it survives a crash of the "
        "server, and a power loss may take the last ones.",
    )
    open_namespaces: int = _setting(
        0, "Namespaces kept open at once; 0 lets the descriptor limit decide.", least=0
    )
    checkpoint_rule: CheckpointRule = _setting(
        "id",
        "How a stale PUT of a LangGraph checkpoint to /v1/state is resolved. id: the newer "
        "checkpoint stays. version: by its version, like every other document.",
    )
    summarizer: str = _setting(
        "extractive",
        "Who summarises episodes. extractive: the most central episodes themselves. "
        "openai:MODEL@URL: a model behind an OpenAI-compatible endpoint.",
    )
    summarizer_key: str | None = _setting(
        None, "The key for the summarizer's endpoint.", secret=True
    )
    embedder: str = _setting(
        "wordllama",
        "Who makes vectors of texts. wordllama: the embedded model. openai:MODEL@URL: a model "
        "behind an OpenAI-compatible endpoint. none: search by keywords only.",
    )
    embedder_key: str | None = _setting(None, "The key for the embedder's endpoint.", secret=True)
    metrics: str = _setting(
        "on",
        "Where GET /metrics answers. on: on the port of the server, to an operator's key once keys "
        "are required. HOST:PORT or unix:PATH: there, without a key and beside /health and /ready; "
        "who reaches that address may read them. off: nowhere.",
    )
    metrics_tenants: bool = _setting(
        False, "Also count by tenant in /metrics, which names them then; the first 1,000."
    )
    shutdown_seconds: int = _setting(
        10, "Seconds that requests under way get to finish at SIGTERM.", least=1, most=3_600
    )
    allow_origin: tuple[str, ...] = _setting(
        (),
        "Web pages that may ask from their visitors' browsers, by origin, such as "
        "https://app.example. Repeat it for more; in the variable, separate them by spaces.",
        shown="",
    )
    trusted_proxy: tuple[str, ...] = _setting(
        (),
        "A proxy whose X-Forwarded-For says who sent a request: an address, a network such as "
        "10.0.0.0/8, or unix for who comes through a Unix socket. Repeat it for more; in the "
        "variable, separate them by spaces.",
        shown="",
    )
    no_docs: bool = _setting(False, "Serve neither /openapi.json nor /docs.")
    log_level: LogLevel = _setting("info", "Least severe log lines; requests are info.")
    log_format: LogFormat = _setting("text", "Shape of log lines.")
    insecure_open: bool = _setting(
        False,
        "Serve beyond this machine without any API key while none exists: everybody who reaches "
        "the port can read, change and delete everything.",
    )

    @property
    def write_limit(self) -> int:
        """Writes per namespace and UTC day, 0 for no limit."""
        if self.daily_writes is not None:
            return self.daily_writes
        return HOSTED_DAILY_WRITES if self.profile == "hosted" else 0

    @property
    def size_limit(self) -> int:
        """Bytes per namespace, 0 for no limit."""
        if self.max_namespace_bytes is not None:
            return self.max_namespace_bytes
        return HOSTED_NAMESPACE_BYTES if self.profile == "hosted" else 0

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        return is_local(self.host)


def variable(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()
