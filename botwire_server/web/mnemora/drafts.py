"""From a request's body to a memory that can be stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from botwire_server import limits
from botwire_server.embedding import Embedder
from botwire_server.errors import Invalid
from botwire_server.store import chunks
from botwire_server.store.memories import Draft
from botwire_server.store.tenant import Tenant
from botwire_server.vector import GIVEN, Model, Vector, from_numbers
from botwire_server.web.description import Body
from botwire_server.web.fields import Field, Object, Values
from botwire_server.web.mnemora.fields import (
    AGENT,
    Fields,
    Identifier,
    Items,
    Optional,
    Sentence,
    numbered,
)

DEFAULT_COLLECTION = "default"
# More than this is split off the loop.
BRIEF_CHARACTERS = 50_000


async def draft(request: Request, fields: Fields) -> Draft:
    """A memory of a body. Its text is embedded, if it brings no vector of its own."""
    [made] = await _embedded(request, [_draft(request, fields)])
    return made


async def drafts(request: Request, items: Sequence[Fields]) -> list[Draft]:
    """Memories of the items of a batch."""
    # A thousand vectors are many numbers to look at.
    return await _embedded(request, await asyncio.to_thread(_drafts, request, items))


class Collection(Field[str | None]):
    """What the contract calls `namespace`; None where it is missing."""

    def __init__(self, name: str, help: str) -> None:
        schema = {"type": "string", "minLength": 1, "maxLength": limits.COLLECTION}
        super().__init__(name, help, schema)

    def of(self, values: Values) -> str | None:
        """See `Field`."""
        value = values.get(self.name)
        if value is not None and not (
            isinstance(value, str) and 1 <= len(value) <= limits.COLLECTION
        ):
            raise self.refusal(
                f"{self.name} must be a string of 1 to {limits.COLLECTION} characters."
            )
        return value


NAMESPACE = Collection("namespace", "The collection inside the agent; `default` when storing.")
COLLECTION = Collection("collection", "Another word for `namespace`: give one of them.")
EMBEDDING = Field[Any](
    "embedding",
    "A vector of its own, as long as the server's model makes them.",
    {
        "type": "array",
        "items": {"type": "number"},
        "minItems": 1,
        "maxItems": limits.DIMENSION,
    },
)
CONTENT = Sentence("content", "The text.", longest=limits.TEXT)
METADATA = Object("metadata", "Whatever belongs to it.", largest=limits.METADATA)
SESSION = Optional(Identifier("session_id", "The session it comes from."))
NEW = Body(
    AGENT,
    CONTENT,
    NAMESPACE,
    COLLECTION,
    METADATA,
    SESSION,
    EMBEDDING,
    example={"agent_id": "a", "content": "The customer prefers e-mail."},
)
ITEMS = Items(NEW)
BATCH = Body(ITEMS, example={"items": [NEW.example]})


def collection(fields: Fields) -> str | None:
    """The collection under either of its names; None where it is missing."""
    values = {NAMESPACE.of(fields), COLLECTION.of(fields)} - {None}
    if len(values) > 1:
        raise NAMESPACE.refusal(
            "namespace and collection are two words for one thing; give one of them."
        )
    return values.pop() if values else None


def own_embedding(request: Request, fields: Fields) -> tuple[Model, Vector] | None:
    """The `embedding` that a body brings, and whose it is taken for; None where it is missing."""
    numbers = EMBEDDING.of(fields)
    if numbers is None:
        return None
    embedder: Embedder = request.scope["embedder"]
    model = embedder.model
    try:
        vector = from_numbers(numbers)
        if model is not None and len(numbers) != model.dimension:
            raise ValueError(f"must have {model.dimension} numbers; this one has {len(numbers)}")
    except ValueError as error:
        raise EMBEDDING.refusal(f"embedding {error.args[0]}.") from None
    name = GIVEN if model is None else model.name
    return Model(name, len(numbers)), vector


def _drafts(request: Request, items: Sequence[Fields]) -> list[Draft]:
    made = []
    for number, item in enumerate(items):
        try:
            made.append(_draft(request, item))
        except Invalid as error:
            raise numbered(number, error) from None
    return made


def _draft(request: Request, fields: Fields) -> Draft:
    own = own_embedding(request, fields)
    return Draft(
        content=CONTENT.of(fields),
        metadata=METADATA.of(fields),
        collection=collection(fields) or DEFAULT_COLLECTION,
        session_id=SESSION.of(fields),
        model=None if own is None else own[0],
        vectors=() if own is None else (own[1],),
    )


async def _embedded(request: Request, drafts: list[Draft]) -> list[Draft]:
    """The drafts with their vectors; chunks of all of them are embedded together."""
    embedder: Embedder = request.scope["embedder"]
    if sum(len(made.content) for made in drafts) < BRIEF_CHARACTERS:
        pieces = _pieces(drafts)
    else:
        pieces = await asyncio.to_thread(_pieces, drafts)
    texts = [piece for some in pieces for piece in some]
    if not texts:
        return drafts
    tenant: Tenant = request.scope["tenant"]
    await tenant.require_room_for_vectors(len(texts))
    embedded = await embedder.embed(texts)
    if embedded is None:
        return drafts
    tenant.count_embeddings(len(texts))
    vectors = iter(embedded.vectors)
    return [
        made._replace(model=embedded.model, vectors=[next(vectors) for _ in some]) if some else made
        for made, some in zip(drafts, pieces, strict=True)
    ]


def _pieces(drafts: Sequence[Draft]) -> list[list[str]]:
    return [[] if made.vectors else chunks.split(made.content) for made in drafts]
