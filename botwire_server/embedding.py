"""Text to vectors: the embedded model, an OpenAI-compatible endpoint, or none.

Where vectors come from is the operator's choice; see `vector` for what they are.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from botwire_server.endpoint import Endpoint, EndpointSpec
from botwire_server.errors import Unavailable, Unusable
from botwire_server.lazy import numpy as np
from botwire_server.metrics import EmbedderCounters
from botwire_server.vector import Model, Vector, from_numbers, normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

DEFAULT = "wordllama"
NONE = "none"

# What the embedded model is made of, and how to get it.
_NEEDED = {
    "wordllama": "wordllama==0.2.2.post0",
    "tokenizers": "tokenizers>=0.20",
    "safetensors": "safetensors>=0.4",
}
# Fewer characters than this are embedded sooner than handed to a thread.
BRIEF_CHARACTERS = 4_000
# Texts in one request to an endpoint.
ENDPOINT_BATCH = 64


class Embedded(NamedTuple):
    """Vectors of one model, one for each text; None for a text that says nothing to it."""

    model: Model
    vectors: list[Vector | None]


class Embedder(Protocol):
    """Makes vectors. `name` is its model's; `model` is None while the dimension is unknown."""

    name: str

    @property
    def model(self) -> Model | None:
        """The model, as soon as its dimension is known."""

    async def embed(self, texts: Sequence[str]) -> Embedded | None:
        """Vectors for texts, or None where there is no model. Raises `Unavailable`."""

    async def close(self) -> None:
        """Release what it holds."""


def embedder(setting: str, key: str | None = None, *, seconds: float = 30.0) -> Embedder:
    """The one that `--embedder` names; raise `Unusable` where there is none."""
    if setting == DEFAULT:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if not missing:
            return WordLlama()
        log.warning(
            "the embedded model is not installed (%s): memories are found by their words. To find "
            "them by meaning: pip install '%s', and restart",
            ", ".join(missing),
            "' '".join(_NEEDED[name] for name in missing),
        )
        return Nothing()
    if setting == NONE:
        return Nothing()
    if not setting.startswith("openai:"):
        raise Unusable(
            f"--embedder must be {DEFAULT}, {NONE} or openai:MODEL@URL, such as "
            "openai:nomic-embed-text@http://localhost:11434/v1."
        )
    spec = EndpointSpec.parse(setting, setting="--embedder", key=key)
    return Remote(Endpoint(spec, purpose="embedding", seconds=seconds))


class Measured:
    """An embedder whose calls are counted. Having none costs no time, and is not counted."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name = embedder.name
        self.counters = EmbedderCounters()

    @property
    def model(self) -> Model | None:
        """See `Embedder`."""
        return self._embedder.model

    async def embed(self, texts: Sequence[str]) -> Embedded | None:
        """See `Embedder`."""
        counters = self.counters
        began = time.perf_counter()
        try:
            found = await self._embedder.embed(texts)
        except Exception:
            counters.failures += 1
            counters.failing = True
            raise
        if found is not None:
            counters.failing = False
            counters.seconds.add(time.perf_counter() - began)
            counters.texts += len(texts)
        return found

    async def close(self) -> None:
        """See `Embedder`."""
        await self._embedder.close()


class Nothing:
    """No model: keywords only."""

    name = NONE
    model = None

    async def embed(self, texts: Sequence[str]) -> Embedded | None:
        """None."""
        return None

    async def close(self) -> None:
        """Nothing to release."""


class WordLlama:
    """The model in the wheel of `wordllama`: the mean of 256-d word vectors, 50 µs a text.

    Its two files are read without importing that package, which would take over logging, pad
    every batch to its longest text, and try to download a tokenizer that lies beside it.
    """

    name = "wordllama-256"
    model = Model("wordllama-256", 256)

    def __init__(self) -> None:
        self._loading: asyncio.Future[None] | None = None
        self._tokenizer: Any = None
        self._weights: NDArray[np.float32]

    async def embed(self, texts: Sequence[str]) -> Embedded | None:
        """Vectors; off the loop where it takes longer."""
        if self._tokenizer is None:
            await self._loaded()
        if sum(map(len, texts)) <= BRIEF_CHARACTERS:
            vectors = self._embed(texts)
        else:
            vectors = await asyncio.to_thread(self._embed, texts)
        return Embedded(self.model, vectors)

    async def close(self) -> None:
        """Nothing to release."""

    async def _loaded(self) -> None:
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        await asyncio.shield(self._loading)

    def _load(self) -> None:
        try:
            found = importlib.util.find_spec("wordllama")
            if found is None or found.origin is None:
                raise ImportError("wordllama")
            folder = Path(found.origin).parent
            tokenizer = import_module("tokenizers").Tokenizer.from_file(
                str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
            )
            tokenizer.no_padding()
            tokenizer.no_truncation()
            safetensors = import_module("safetensors.numpy")
            tensors = safetensors.load_file(folder / "weights" / "l2_supercat_256.safetensors")
            self._weights = np.ascontiguousarray(tensors["embedding.weight"], dtype=np.float32)
        except Exception as error:
            log.error("the embedded model does not load: %s", type(error).__name__)
            raise Unavailable(
                "The embedded model cannot be loaded; the operator of this server can reinstall "
                "it with `pip install 'wordllama==0.2.2.post0'`."
            ) from error
        self._tokenizer = tokenizer  # last: it says that the rest is there

    def _embed(self, texts: Sequence[str]) -> list[Vector | None]:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [normalised(self._mean(encoding.ids)) for encoding in encoded]

    def _mean(self, ids: list[int]) -> NDArray[np.float32]:
        if not ids:
            return np.zeros(self.model.dimension, dtype=np.float32)
        mean: NDArray[np.float32] = self._weights[ids].mean(axis=0)
        return mean


class Remote:
    """An OpenAI-compatible /embeddings endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._dimension: int | None = None
        self.name = f"openai:{endpoint.model}"

    @property
    def model(self) -> Model | None:
        """The model, as soon as the endpoint has answered once."""
        return None if self._dimension is None else Model(self.name, self._dimension)

    async def embed(self, texts: Sequence[str]) -> Embedded | None:
        """Vectors, some texts at a time."""
        vectors: list[Vector | None] = []
        for start in range(0, len(texts), ENDPOINT_BATCH):
            vectors += await self._ask(texts[start : start + ENDPOINT_BATCH])
        assert self.model is not None
        return Embedded(self.model, vectors)

    async def close(self) -> None:
        """Release its connections."""
        await self._endpoint.close()

    async def _ask(self, texts: Sequence[str]) -> list[Vector | None]:
        answer = await self._endpoint.post(
            "/embeddings",
            {"model": self._endpoint.model, "input": list(texts), "encoding_format": "float"},
        )
        if len(texts) > 8:
            vectors = await asyncio.to_thread(_read_answer, answer, len(texts))
        else:
            vectors = _read_answer(answer, len(texts))
        if vectors is None:
            raise self._endpoint.unexpected()
        dimension = len(vectors[0]) // 4
        if self._dimension is not None and self._dimension != dimension:
            log.warning("the embedding endpoint's dimension changed to %d", dimension)
        self._dimension = dimension
        return list(vectors)


def _read_answer(answer: dict[str, Any], wanted: int) -> list[Vector] | None:
    """The vectors in an endpoint's answer, or None where it holds something else."""
    try:
        data = sorted(answer["data"], key=lambda item: item["index"])
        vectors = [from_numbers(item["embedding"]) for item in data]
    except (LookupError, TypeError, ValueError):
        return None
    if len(vectors) != wanted or not all(vectors) or len(set(map(len, vectors))) != 1:
        return None
    return vectors
