"""The vectors of a namespace: which model's they are, and which are nearest.

A memory has one vector for each of its chunks. A search compares signs first (32 bytes a vector,
all of them in one step) and then the vectors themselves, of the best. The signs are kept by
sqlite-vec's vec0 and read in its own chunks: asking vec0 for the nearest costs four times as much.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from botwire_server.errors import Damaged
from botwire_server.lazy import numpy as np
from botwire_server.store.driver import DAMAGED, Connection
from botwire_server.vector import GIVEN, Model, Vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The number of the chunk has the lower bits of a vector's id.
CHUNK_BITS = 12

# How many of the nearest by sign are compared as they are: so many, and this part of all. Recall
# at 10 stays above 0.99; see docs/retrieval.md.
COMPARED = 400
COMPARED_PART = 50
# How many of those go on.
NEAREST = 200
# Chunks of a memory that are compared where it was found by its words.
CHUNKS_COMPARED = 2


# How far from one the square of a vector may be for rounding.
NOT_ONE = 0.01

# That of the tables that a new file has.
FIRST_DIMENSION = 256

_PUT_BITS = "INSERT INTO memory_bits (rowid, bits) VALUES (?, vec_quantize_binary(?))"


def vector_tables(dimension: int) -> tuple[str, ...]:
    """The tables for vectors of this dimension.

    `vectors` holds normalised float32 under the memory's id times 4,096 plus the number of the
    chunk; `memory_bits` their signs (padded to whole bytes), by which a search is narrowed down.
    """
    return (
        "CREATE TABLE vectors (id INTEGER PRIMARY KEY, embedding BLOB NOT NULL)",
        # A small chunk: the first vector reserves room for a whole one.
        f"""CREATE VIRTUAL TABLE memory_bits USING vec0 (
            bits bit[{dimension + -dimension % 8}], chunk_size=256
        )""",
        """CREATE TRIGGER vectors_added AFTER INSERT ON vectors BEGIN
            UPDATE totals SET vectors = vectors + 1; END""",
        """CREATE TRIGGER vectors_removed AFTER DELETE ON vectors BEGIN
            UPDATE totals SET vectors = vectors - 1; END""",
    )


class Recorded(NamedTuple):
    """Whose vectors a namespace holds. Not `complete`: some memory has none of this model."""

    model: Model | None
    complete: bool

    def answers(self, model: Model | None) -> bool:
        """Whether a search with a vector of `model` finds what it should."""
        return model is not None and self.model == model and (self.complete or model.name == GIVEN)


def recorded(connection: Connection) -> Recorded:
    """Whose vectors these are."""
    name, dimension, complete = connection.execute(
        "SELECT name, dimension, complete FROM vector_model"
    ).fetchone()
    return Recorded(None if name is None else Model(name, dimension), bool(complete))


def adopt(connection: Connection, model: Model | None) -> bool:
    """Whether vectors of `model` may be stored here; a namespace without vectors takes any model.

    Call it before the memory is stored. Where it says no, the memory goes without, and the
    namespace waits for `reembed`.
    """
    present = recorded(connection)
    if model is not None and present.model == model:
        return True
    [vectors, memories] = connection.execute("SELECT vectors, memories FROM totals").fetchone()
    if model is None or vectors:
        connection.execute("UPDATE vector_model SET complete = 0")
        return False
    begin(connection, model, complete=not memories)
    return True


def begin(connection: Connection, model: Model, *, complete: bool) -> None:
    """Forget all vectors and take those of `model` from now on."""
    present = recorded(connection).model
    [vectors] = connection.execute("SELECT vectors FROM totals").fetchone()
    if vectors or (present.dimension if present else FIRST_DIMENSION) != model.dimension:
        connection.execute("DROP TABLE memory_bits")
        connection.execute("DROP TABLE vectors")
        for statement in vector_tables(model.dimension):
            connection.execute(statement)
        connection.execute("UPDATE totals SET vectors = 0")
        connection.leftovers = True
    connection.execute(
        "UPDATE vector_model SET name = ?, dimension = ?, complete = ?", (*model, complete)
    )


def put(connection: Connection, memory_id: int, vectors: Iterable[Vector | None]) -> None:
    """Store the vectors of a memory that has none."""
    for number, vector in enumerate(vectors):
        if vector is not None:
            id = memory_id << CHUNK_BITS | number
            connection.execute("INSERT INTO vectors (id, embedding) VALUES (?, ?)", (id, vector))
            padded = vector + bytes(-len(vector) % 32)
            connection.execute(_PUT_BITS, (id, padded))


def slots(connection: Connection) -> int:
    """How many vectors vec0 has room for; it gives a chunk back only when all in it are gone."""
    [count] = connection.execute("SELECT total(size) FROM memory_bits_chunks").fetchone()
    return int(count)


def rebuild(connection: Connection) -> None:
    """Make vec0's part anew, without room for what is gone."""
    model = recorded(connection).model
    _, table, *_ = vector_tables(FIRST_DIMENSION if model is None else model.dimension)
    connection.execute("DROP TABLE memory_bits")
    connection.execute(table)
    connection.executemany(
        _PUT_BITS,
        (
            (id, embedding + bytes(-len(embedding) % 32))
            for id, embedding in connection.execute("SELECT id, embedding FROM vectors ORDER BY id")
        ),
    )


def remove(connection: Connection, memory_id: int) -> None:
    """Remove the vectors of a memory."""
    first = memory_id << CHUNK_BITS
    removed = connection.execute(
        "DELETE FROM vectors WHERE id BETWEEN ? AND ? RETURNING id",
        (first, first | (1 << CHUNK_BITS) - 1),
    ).fetchall()
    connection.executemany("DELETE FROM memory_bits WHERE rowid = ?", removed)


def replace(connection: Connection, memory_id: int, vectors: Sequence[Vector | None]) -> None:
    """Store the vectors of a memory instead of those it has."""
    if dict(held(connection, memory_id)) != {
        number: vector for number, vector in enumerate(vectors) if vector is not None
    }:
        remove(connection, memory_id)
        put(connection, memory_id, vectors)


def held(connection: Connection, memory_id: int) -> list[tuple[int, Vector]]:
    """The vectors of a memory, with the numbers of their chunks."""
    first = memory_id << CHUNK_BITS
    return connection.execute(
        "SELECT id - ?1, embedding FROM vectors WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        (first, first | (1 << CHUNK_BITS) - 1),
    ).fetchall()


class Surroundings:
    """How far all vectors are from one, by their signs.

    A place is where a vector stands among them; they are in the order of their ids.
    """

    def __init__(self, connection: Connection, query: Vector) -> None:
        self._connection = connection
        self._query = np.frombuffer(query, dtype=np.float32)
        ids, far = _distances(connection, self._query)
        if (ids[1:] < ids[:-1]).any():  # slots of what was deleted were used again
            order = np.argsort(ids, kind="stable")
            ids, far = ids[order], far[order]
        self._ids, self._far = ids, far
        self._memories = ids >> CHUNK_BITS
        # No memory has more than one vector.
        self._short = not (ids & (1 << CHUNK_BITS) - 1).any()

    def nearest(
        self,
        among: NDArray[np.int64] | None,
        *,
        also: Collection[int] = (),
        limit: int = NEAREST,
    ) -> dict[int, float]:
        """The cosines of the nearest memories, of those `among` if given, and of those in `also`.

        Memories without a vector are left out.
        """
        if not len(self._ids):
            return {}
        chosen = self._near(None if among is None else np.isin(self._memories, among), limit)
        wanted = np.zeros(len(self._ids), bool)
        if also:
            wanted[self._chunks(also)] = True
        compared = np.flatnonzero(chosen | wanted)
        memories, cosines, chosen, wanted = self._cosines(compared, chosen, wanted)
        taken = np.flatnonzero(chosen)
        if len(taken) > limit:
            taken = taken[np.argsort(-cosines[taken], kind="stable")[:limit]]
            wanted[taken] = True
            taken = np.flatnonzero(wanted)
        else:
            taken = np.flatnonzero(chosen | wanted)
        return dict(zip(memories[taken].tolist(), cosines[taken].tolist(), strict=True))

    def cosines(self, memories: Collection[int]) -> dict[int, float]:
        """The cosines of these memories; those without a vector are left out."""
        if not memories or not len(self._ids):
            return {}
        found, cosines = self._cosines(np.sort(self._chunks(memories)))
        return dict(zip(found.tolist(), cosines.tolist(), strict=True))

    def _near(self, inside: NDArray[np.bool_] | None, limit: int) -> NDArray[np.bool_]:
        """Which vectors are near enough to be compared, of those `inside` if given."""
        far = self._far if inside is None else self._far[inside]
        count = COMPARED + len(far) // COMPARED_PART
        while count < len(far):
            chosen = self._far <= _radius(far, count)
            if inside is not None:
                chosen &= inside
            # A long memory must not keep the others out with its many chunks.
            if self._short or len(np.unique(self._memories[chosen])) >= limit:
                return chosen
            count *= 2
        return np.ones(len(self._ids), bool) if inside is None else inside

    def _chunks(self, memories: Collection[int]) -> NDArray[np.intp]:
        """The places of the vectors of these memories: of each those likely to be its nearest."""
        wanted = np.fromiter(memories, np.int64, len(memories))
        if self._short:  # looked up one by one: there are far fewer wanted than there are
            found = np.searchsorted(self._memories, wanted)
            found[found == len(self._memories)] = 0
            there: NDArray[np.bool_] = self._memories[found] == wanted
            return found[there]
        places = np.flatnonzero(np.isin(self._memories, wanted))
        if len(places) <= len(wanted):
            return places
        of = self._memories[places]
        order = np.lexsort((self._far[places], of))  # memory by memory, the best of each first
        starts = np.searchsorted(of, of)
        return places[order][np.arange(len(places)) - starts < CHUNKS_COMPARED]

    def _cosines(self, places: NDArray[np.intp], *marks: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """The memories that have vectors at these places, with their cosines.

        `marks` are for every place; a memory is marked where one of its vectors is.
        """
        ids = self._ids[places]
        # CROSS: the list of ids is gone through, in its order.
        count, vectors = self._connection.execute(
            """SELECT count(*), CAST(group_concat(embedding, '') AS BLOB)
            FROM json_each(?) AS place CROSS JOIN vectors ON vectors.id = place.value""",
            (orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY).decode(),),
        ).fetchone()
        if count != len(places) or len(vectors or b"") != count * self._query.nbytes:
            raise Damaged(DAMAGED)
        matrix = np.frombuffer(vectors or b"", np.float32).reshape(count, len(self._query))
        # They have the length one; what has another is not what was stored.
        squares = np.einsum("ij,ij->i", matrix, matrix)
        if not (abs(squares - 1) < NOT_ONE).all():
            raise Damaged(DAMAGED)
        cosines = matrix @ self._query
        columns = [self._memories[places], cosines, *(mark[places] for mark in marks)]
        if self._short or not count:
            return columns
        memories = columns[0]
        starts = np.flatnonzero(np.concatenate(([True], memories[1:] != memories[:-1])))
        return [memories[starts], *(np.maximum.reduceat(one, starts) for one in columns[1:])]


def _distances(
    connection: Connection, query: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """The ids of all vectors, and in how many signs each differs from `query`.

    SQLite puts vec0's chunks together, so that each table is one row for us: every further row
    would have to win the interpreter's lock back.
    """
    ids, valid = _joined(connection, "SELECT rowids, validity FROM memory_bits_chunks")
    [bits] = _joined(connection, "SELECT vectors FROM memory_bits_vector_chunks00")
    if not ids:
        return np.empty(0, np.int64), np.empty(0, np.uint16)
    rowids = np.frombuffer(ids, np.int64)
    signs = np.packbits(query > 0, bitorder="little")
    stored = np.frombuffer(bits, np.uint8).reshape(len(rowids), len(signs))
    if len(signs) % 8 == 0:
        differing = np.bitwise_count(stored.view(np.uint64) ^ signs.view(np.uint64))
    else:
        differing = np.bitwise_count(stored ^ signs)
    # Column by column: numpy is slow at sums over a few numbers each.
    far = differing[:, 0].astype(np.uint16)
    for column in range(1, differing.shape[1]):
        far += differing[:, column]
    used = np.unpackbits(np.frombuffer(valid, np.uint8), axis=None, bitorder="little").astype(bool)
    return (rowids, far) if used.all() else (rowids[used], far[used])


def _radius(far: NDArray[np.uint16], count: int) -> int:
    """Within which distance there are at least `count`."""
    return int(np.searchsorted(np.cumsum(np.bincount(far)), count))


def _joined(connection: Connection, select: str) -> Sequence[Any]:
    columns = select.removeprefix("SELECT ").partition(" FROM ")[0].split(", ")
    joined = ", ".join(f"CAST(group_concat({column}, '') AS BLOB)" for column in columns)
    row: Sequence[Any] = connection.execute(
        f"SELECT {joined} FROM ({select} ORDER BY _rowid_)"  # noqa: S608  # two constants
    ).fetchone()
    return row
