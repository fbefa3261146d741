"""From the body of a search to a query, and what an answer says about how it was found."""

from __future__ import annotations

from typing import Any, get_args

from starlette.requests import Request

from botwire_server.embedding import Embedder
from botwire_server.errors import Invalid
from botwire_server.store.filters import Filter
from botwire_server.store.ranking import DEFAULT_CONTEXT, Mode
from botwire_server.store.search import Query
from botwire_server.store.tenant import Tenant
from botwire_server.store.terms import terms
from botwire_server.web.body import number
from botwire_server.web.mnemora.drafts import collection, own_embedding
from botwire_server.web.mnemora.fields import Fields, mapping, moment, text, whole

DEFAULT_TOP_K = 10
LARGEST_TOP_K = 100
DEFAULT_THRESHOLD = 0.1
# What of a query is embedded: a longer one is a document, and its beginning says what it is about.
LONGEST_EMBEDDED = 8_000

_NOT_BY_VECTOR = (
    "Found by keywords only: some of the vectors here are missing or were made by another model; "
    "the operator can run `botwire-server reembed`."
)


async def query_of(request: Request, fields: Fields) -> Query:
    """The query in a body, embedded if its mode asks for it and it brings no vector of its own."""
    sought = text(fields, "query")
    mode = _mode(fields)
    top_k = whole(fields, "top_k", least=1, most=LARGEST_TOP_K)
    threshold = number(fields, "threshold", least=0, most=1)
    context = number(fields, "context", least=0, most=1)
    filter = Filter(
        collection=collection(fields),
        metadata=mapping(fields, "metadata_filter"),
        created_after=_moment(fields, "created_after"),
        created_before=_moment(fields, "created_before", end=True),
    )
    explain = fields.get("explain")
    if explain is not None and not isinstance(explain, bool):
        raise Invalid("explain must be true or false.", where=("body", "explain"))
    embedded = own_embedding(request, fields)
    if embedded is None and mode != "keyword":
        embedder: Embedder = request.scope["embedder"]
        made = await embedder.embed([sought[:LONGEST_EMBEDDED]])
        if made is None and mode == "vector":
            raise Invalid(
                "This server has no embedding model: bring an embedding, or ask with mode "
                "keyword or hybrid.",
                where=("body", "mode"),
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


def _mode(fields: Fields) -> Mode:
    given = fields.get("mode")
    if given is None:
        return "hybrid"
    for mode in get_args(Mode):
        if given == mode:
            return mode  # type: ignore[no-any-return]
    raise Invalid("mode must be hybrid, vector or keyword.", where=("body", "mode"))


def _moment(fields: Fields, name: str, *, end: bool = False) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid(
            f"{name} must be an ISO 8601 time, such as 2026-11-20T10:46:51+00:00.",
            where=("body", name),
        )
    return moment({name: value}, name, end=end)
