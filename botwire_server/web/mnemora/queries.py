"""From the body of a search to a query, and what an answer says about how it was found."""

from __future__ import annotations

from typing import Any, cast, get_args

from starlette.requests import Request

from botwire_server import limits
from botwire_server.embedding import Embedder
from botwire_server.store.filters import Filter, lists_within
from botwire_server.store.ranking import DEFAULT_CONTEXT, Mode
from botwire_server.store.search import Query
from botwire_server.store.tenant import Tenant
from botwire_server.store.terms import terms
from botwire_server.web.description import Body
from botwire_server.web.fields import Choice, Flag, Moment, Number, Object, Values, Whole
from botwire_server.web.mnemora.drafts import (
    COLLECTION,
    EMBEDDING,
    NAMESPACE,
    collection,
    own_embedding,
)
from botwire_server.web.mnemora.fields import Fields, Identifier, Optional, Sentence

DEFAULT_TOP_K = 10
LARGEST_TOP_K = 100
DEFAULT_THRESHOLD = 0.1

MODES = get_args(Mode)


class Contained(Object):
    """What the metadata of a result must contain."""

    def __init__(self, name: str, help: str) -> None:
        nested = {"x-max-nested-in-lists": limits.FILTER_NESTED}
        super().__init__(name, help, largest=limits.FILTER, schema=nested)

    def of(self, values: Values) -> dict[str, Any]:
        """See `Field`."""
        wanted = super().of(values)
        if lists_within(wanted) > limits.FILTER_NESTED:
            raise self.refusal(
                f"{self.name} may have {limits.FILTER_NESTED} lists and objects inside lists."
            )
        return wanted


SOUGHT = Sentence("query", "What is sought.", longest=limits.QUERY)
MODE = Choice(
    "mode",
    "How: by meaning, by words, or both.",
    MODES,
    default="hybrid",
    said="mode must be hybrid, vector or keyword.",
)
TOP_K = Whole("top_k", "Results at most.", least=1, most=LARGEST_TOP_K, default=DEFAULT_TOP_K)
THRESHOLD = Number(
    "threshold", "Least score of a result.", least=0, most=1, default=DEFAULT_THRESHOLD
)
CONTEXT = Number(
    "context",
    "How much the other memories of a result's session speak for it.",
    least=0,
    most=1,
    default=DEFAULT_CONTEXT,
)
METADATA_FILTER = Contained("metadata_filter", "What a result's metadata must contain.")
CREATED_AFTER = Moment("created_after", "Only what was stored then or later.")
CREATED_BEFORE = Moment("created_before", "Only what was stored then or earlier.", end=True)
EXPLAIN = Flag("explain", "Show how each score came about.")
AGENT_SOUGHT = Optional(Identifier("agent_id", "Only of this agent; without it, of all."))
SEARCH = Body(
    AGENT_SOUGHT,
    SOUGHT,
    MODE,
    TOP_K,
    THRESHOLD,
    CONTEXT,
    NAMESPACE,
    COLLECTION,
    METADATA_FILTER,
    CREATED_AFTER,
    CREATED_BEFORE,
    EXPLAIN,
    EMBEDDING,
    example={"agent_id": "a", "query": "how to reach the customer"},
)
# Only what makes sense for memories and for episodes.
SEARCH_BOTH = Body(
    AGENT_SOUGHT,
    SOUGHT,
    MODE,
    TOP_K,
    THRESHOLD,
    CONTEXT,
    EMBEDDING,
    example={"agent_id": "a", "query": "how to reach the customer"},
)

_NOT_BY_VECTOR = (
    "Found by keywords only: some of the vectors here are missing or were made by another model; "
    "the operator can run `botwire-server reembed`."
)


async def query_of(request: Request, fields: Fields) -> Query:
    """The query in a body, embedded if its mode asks for it and it brings no vector of its own."""
    sought = SOUGHT.of(fields)
    mode = cast(Mode, MODE.of(fields) or "hybrid")
    top_k = TOP_K.of(fields)
    threshold = THRESHOLD.of(fields)
    context = CONTEXT.of(fields)
    filter = Filter(
        collection=collection(fields),
        metadata=METADATA_FILTER.of(fields),
        created_after=CREATED_AFTER.of(fields),
        created_before=CREATED_BEFORE.of(fields),
    )
    EXPLAIN.of(fields)
    request.scope["asks"] = METADATA_FILTER.name if filter.metadata else SOUGHT.name
    embedded = own_embedding(request, fields)
    if embedded is None and mode != "keyword":
        embedder: Embedder = request.scope["embedder"]
        made = await embedder.embed([sought[: limits.EMBEDDED_QUERY]])
        if made is None and mode == "vector":
            raise MODE.refusal(
                "This server has no embedding model: bring an embedding, or ask with mode "
                "keyword or hybrid."
            )
        if made is not None:
            tenant: Tenant = request.scope["tenant"]
            tenant.count_embeddings(1)
            [vector] = made.vectors
            embedded = None if vector is None else (made.model, vector)
    return Query(
        terms=terms(sought),
        vector=None if embedded is None else embedded[1],
        model=None if embedded is None else embedded[0],
        mode=mode,
        filter=filter,
        context=DEFAULT_CONTEXT if context is None else context,
        threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
        limit=top_k or DEFAULT_TOP_K,
    )


def meta_of(request: Request, query: Query, *, by_vector: bool) -> dict[str, Any]:
    """How an answer was found, and why not as it was asked for."""
    if query.mode == "keyword" or by_vector:
        return {"mode": query.mode}
    if query.vector is None:
        return {"mode": "keyword"}
    return {"mode": "keyword", "notice": _NOT_BY_VECTOR}
