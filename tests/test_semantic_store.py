"""Memories in one file: rows, words and vectors stay together, and nothing is lost."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from semantic_store import NAMESPACE_ID, Store, draft, embed, model, number

from botwire_server.lazy import numpy as np
from botwire_server.store import chunks, memories, vectors
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.filters import Filter, contains
from botwire_server.store.views import few
from botwire_server.vector import GIVEN, Model, from_numbers


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A fresh file, checked afterwards."""
    store = Store(tmp_path)
    yield store
    store.check()


def test_a_memory_is_what_was_stored(store: Store) -> None:
    [memory] = store.put("Ann plays chess", metadata={"a": {"b": [1, None]}}, session_id="s")
    assert store.run(memories.get, number(memory)) == memory
    assert orjson.loads(memory.metadata) == {"a": {"b": [1, None]}}
    assert (memory.collection, memory.session_id) == ("c", "s")
    assert memory.created_at == memory.updated_at
    assert store.totals() == (1, 1)


def test_ids_are_uuids_that_name_their_namespace() -> None:
    for id in (1, 2**40, 2**62 - 1):
        text = memories.uuid(NAMESPACE_ID, id)
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
        assert memories.from_uuid(text) == memories.from_uuid(text.upper()) == (NAMESPACE_ID, id)


@pytest.mark.parametrize(
    "text", ["", "x", "#", str(uuid.UUID(int=5)), memories.uuid(NAMESPACE_ID, 1).replace("-", ""),
             memories.uuid(NAMESPACE_ID, 1).replace("-", "") + "----", "0" * 36, "é" * 36]
)  # fmt: skip
def test_other_texts_are_no_ids(text: str) -> None:
    assert memories.from_uuid(text) is None


def test_the_same_again_is_merged_and_nothing_is_lost(store: Store) -> None:
    store.put("The user likes dark mode", metadata={"source": "chat", "n": {"x": 1}, "old": 1})
    [merged] = store.put("the user  likes DARK mode!", metadata={"source": "mail", "n": {"y": 2}})
    memory = store.run(memories.get, number(merged)) or pytest.fail("it is gone")
    replaced = store.run(few, memories.history, number(merged))
    assert store.totals() == (1, 1)
    assert memory.content == "the user  likes DARK mode!"
    assert orjson.loads(memory.metadata) == {"source": "mail", "n": {"x": 1, "y": 2}, "old": 1}
    assert [one.content for one in replaced] == ["The user likes dark mode"]
    assert orjson.loads(replaced[0].metadata) == {"source": "chat", "n": {"x": 1}, "old": 1}
    assert memory.created_at <= replaced[0].replaced_at == memory.updated_at
    assert store.contents("dark mode") == [memory.content]


def test_the_very_same_again_leaves_no_history(store: Store) -> None:
    for _ in range(3):
        [memory] = store.put("Ann plays chess", metadata={"a": 1})
    assert store.run(memories.get, number(memory)) == memory
    assert store.run(few, memories.history, number(memory)) == []


def test_every_conflicting_value_can_be_read(store: Store) -> None:
    for value in range(5):
        [memory] = store.put("Ann plays chess", metadata={"value": value})
    current = store.run(memories.get, number(memory)) or pytest.fail("it is gone")
    replaced = store.run(few, memories.history, number(memory))
    texts = [one.metadata for one in replaced] + [current.metadata]
    assert [orjson.loads(text)["value"] for text in texts] == [0, 1, 2, 3, 4]


def test_the_same_text_may_bring_another_vector(store: Store) -> None:
    one, other = embed(["one direction", "quite another"])
    for vector in (one, other):
        store.run(memories.put, draft("text", vector=vector))
    assert store.totals() == (1, 1)
    [(hit, _)] = store.find("x", vector=other, mode="vector")
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_two_facts_that_look_alike_are_two(store: Store) -> None:
    store.put(
        "Invoice 1043 for $500 was paid by Acme on May 3",
        "Invoice 1044 for $500 was paid by Acme on May 3",
        "The user likes dark mode",
        "The user does not like dark mode",
    )
    store.put("The user likes dark mode", collection="other")
    store.put("The user likes dark mode", session_id="monday")
    assert store.totals() == (6, 6)


def test_a_removed_memory_leaves_nothing(store: Store) -> None:
    [memory] = store.put("Zanzibar is where Quetzal hides", metadata={"secret": "Xylophone"})
    store.put("zanzibar is where quetzal hides", metadata={"secret": "Yggdrasil"})
    store.put("something else")
    assert store.run(memories.delete, number(memory))
    assert not store.run(memories.delete, number(memory))
    assert store.run(memories.get, number(memory)) is None
    assert store.run(few, memories.history, number(memory)) == []
    assert store.connection.leftovers
    assert store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    left = store.path.read_bytes().lower()
    [vector] = embed(["Zanzibar is where Quetzal hides"])
    for trace in (b"zanzibar", b"quetzal", b"xylophone", b"yggdrasil", vector[:64].lower()):
        assert trace not in left


def test_an_id_is_never_used_again(store: Store) -> None:
    [first] = store.put("first")
    store.run(memories.delete, number(first))
    [second] = store.put("second")
    assert second.id != first.id


def test_a_long_text_is_found_and_removed_as_one(store: Store) -> None:
    filler = " ".join(f"Paragraph {n} is about the weather in the valley." for n in range(300))
    text = f"{filler} The treasure is buried under the old fig tree. {filler}"
    pieces = chunks.split(text)
    assert len(pieces) > 10
    long = store.run(memories.put, draft(text)._replace(model=model(), vectors=embed(pieces)))[0]
    store.put(*(f"A note about rivers, number {n}" for n in range(50)))
    assert store.totals() == (51, 50 + len(pieces))
    for mode in ("hybrid", "vector", "keyword"):
        found = store.find("Where is the treasure buried?", mode=mode)
        assert [memory.id for _, memory in found].count(long.id) == 1
        assert found[0][1].id == long.id
    # The vector found it by its piece, not by the mean of everything.
    best = store.find("Where is the treasure buried?", mode="vector")[0][0].score
    question, whole = embed(["Where is the treasure buried?", text])
    assert best > 1.2 * float(np.frombuffer(question, "f4") @ np.frombuffer(whole, "f4"))
    assert store.run(memories.delete, number(long))
    assert store.totals() == (50, 50)


def test_a_failure_leaves_nothing_behind(store: Store) -> None:
    store.put("Ann plays chess")
    good, bad = embed(["one thing", "another"])
    batch = [draft("one thing", vector=good), draft("another", vector=bad[:-4])]
    for place in ("memory_bits", "vectors", "memory_history", "memories"):
        with pytest.raises(sqlite3.Error):
            store.run(_put_and_fail, batch, place)
        store.check()
        assert store.totals() == (1, 1)
    assert store.contents("one thing", mode="keyword") == []


def _put_and_fail(connection: Connection, batch: list[memories.Draft], table: str) -> None:
    memories.put(connection, batch[0])
    memories.put(connection, draft("ann plays CHESS", metadata={"more": 1}))
    connection.execute(f"INSERT INTO {table} SELECT 'no', 'such', 'row'")


@pytest.mark.parametrize("fault", ["memory_bits", "vectors", "memory_text"])
def test_the_check_of_these_tests_sees_what_is_torn(tmp_path: Path, fault: str) -> None:
    store = Store(tmp_path)
    store.put("Ann plays chess", "Bob sings")
    store.check()
    if fault == "memory_text":
        store.connection.execute("DROP TRIGGER memory_text_rewritten")
        store.connection.execute("UPDATE memories SET content = 'Ann sings' WHERE id = 1")
    else:
        name = "rowid" if fault == "memory_bits" else "id"
        store.connection.execute(f"DELETE FROM {fault} WHERE {name} = 1 << 12")
    with pytest.raises((AssertionError, sqlite3.Error)):
        store.check()


def test_any_history_of_writes_keeps_everything_together(store: Store) -> None:
    chance = random.Random(11)
    texts = [f"{who} {does} {what}" for who in ("Ann", "Bob") for does in ("likes", "sells")
             for what in ("tea", "old maps", "chess")]  # fmt: skip
    made = dict(zip(texts, embed(texts), strict=True))
    for _ in range(300):
        text = chance.choice(texts)
        written = chance.choice([text, text.upper(), f" {text}."])
        if chance.random() < 0.6:
            metadata = {chance.choice("ab"): chance.randint(0, 2)}
            store.run(memories.put, draft(written, vector=made[text], metadata=metadata))
        else:
            newest = store.run(memories.newest, 20)
            if newest:
                store.run(memories.delete, number(chance.choice(newest)))
    store.check()


def test_newest_first(store: Store) -> None:
    store.put("one", "two", "three")
    assert [memory.content for memory in store.run(memories.newest, 2)] == ["three", "two"]


FILTERS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"kind": "note"}, True),
    ({"kind": "Note"}, False),
    ({"kind": None}, False),
    ({"none": None}, True),
    ({"missing": None}, False),
    ({"flag": True}, True),
    ({"flag": 1}, False),
    ({"one": 1}, True),
    ({"one": 1.0}, True),
    ({"one": True}, False),
    ({"one": "1"}, False),
    ({"big": 2**63}, True),
    ({"big": 2**63 - 1}, False),
    ({"deep": {"er": {"x": "y"}}}, True),
    ({"deep": {"er": {}}}, True),
    ({"deep": {}}, True),
    ({"kind": {}}, False),
    ({"deep": {"er": {"x": "z"}}}, False),
    ({"deep": {"x": "y"}}, False),
    ({"tags": ["a"]}, True),
    ({"tags": ["c", "a"]}, True),
    ({"tags": []}, True),
    ({"tags": ["d"]}, False),
    ({"tags": "a"}, False),
    ({"things": [{"id": 2}]}, True),
    ({"things": [{"id": 3}]}, False),
    ({'od"d': {"k.e$y[0]": 1}}, True),
    ({'od"d': {"k.e$y[0]": 2}}, False),
    ({"k.e$y[0]": 2}, True),
    ({"k.e$y[0]": 3}, False),
    ({"back\\slash": 1, "": 2, "'; --": 3}, True),
    ({"kind": "note", "one": 2}, False),
    ({"kind": "note' OR 1=1 --"}, False),
    ({"x" * 300: 1}, False),
]
METADATA = {
    "kind": "note", "none": None, "flag": True, "one": 1, "big": 2**63,
    "deep": {"er": {"x": "y", "z": 1}}, "tags": ["a", "b", "c"], "things": [{"id": 1}, {"id": 2}],
    'od"d': {"k.e$y[0]": 1}, "k.e$y[0]": 2, "back\\slash": 1, "": 2, "'; --": 3,
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "passes"), FILTERS)
def test_metadata_are_filtered_by_containment(
    tmp_path: Path, wanted: dict[str, Any], passes: bool
) -> None:
    store = Store(tmp_path)
    store.put("Ann plays chess", metadata=METADATA)
    assert contains(METADATA, wanted) is passes
    for mode in ("hybrid", "vector", "keyword"):
        assert bool(store.find("chess", metadata=wanted, mode=mode)) is passes


def test_filters_do_not_starve_a_result(store: Store) -> None:
    chance = random.Random(3)
    texts = [f"Report {n} on {chance.choice(['rain', 'tax', 'tea'])}" for n in range(3_000)]
    made = embed(texts)
    store.run(
        memories.put_all,
        [
            draft(text, vector=vector, metadata={"rare": n % 150 == 0, "n": n})
            for n, (text, vector) in enumerate(zip(texts, made, strict=True))
        ],
    )
    for mode in ("hybrid", "vector", "keyword"):
        found = store.find("report on tea", mode=mode, metadata={"rare": True}, limit=100)
        assert {orjson.loads(memory.metadata)["n"] for _, memory in found} == set(
            range(0, 3_000, 150)
        )
    store.put("A report on tea elsewhere", collection="other")
    assert len(store.find("report on tea", collection="other")) == 1


def test_time_bounds_are_inclusive(store: Store) -> None:
    now = [1_000.0]
    store.connection.clock = lambda: now[0]
    for moment in (1_000.0, 2_000.0, 3_000.0):
        now[0] = moment
        store.put(f"note {int(moment)}")
    assert len(store.find("note", created_after=2_000.0)) == 2
    assert len(store.find("note", created_before=2_000.0)) == 2
    assert store.contents("note", created_after=2_000.0, created_before=2_000.0) == ["note 2000"]


def test_vectors_of_two_models_never_meet(store: Store) -> None:
    store.put("Ann plays chess")
    other = Model("other", 3)
    three = from_numbers([1, 2, 3])
    store.run(memories.put, draft("Bob sings")._replace(model=other, vectors=(three,)))
    assert store.totals() == (2, 1)
    assert not store.run(vectors.recorded).answers(model())
    hits = store.find("chess")
    assert [hit.vector for hit, _ in hits] == [None]
    assert store.find("Bob sings", vector=three, model=other)[0][0].vector is None


def test_a_namespace_without_vectors_takes_any_model(store: Store) -> None:
    for size in (3, 8, 300):
        model = Model(f"m{size}", size)
        numbers = [float(n + 1) for n in range(size)]
        [memory, _] = store.run(
            memories.put, draft("text")._replace(model=model, vectors=(from_numbers(numbers),))
        )
        assert store.totals() == (1, 1)
        hit, _ = store.find("x", vector=from_numbers(numbers), model=model, mode="vector")[0]
        assert hit.score == pytest.approx(1.0)
        store.check()
        store.run(memories.delete, number(memory))


def test_vectors_that_requests_bring_need_not_be_complete(store: Store) -> None:
    given = Model(GIVEN, 4)
    one = from_numbers([1, 0, 0, 0])
    store.run(memories.put, draft("with")._replace(model=given, vectors=(one,)))
    store.run(memories.put, draft("without"))
    [(hit, memory)] = store.find("?", vector=one, model=given, mode="vector")
    assert (hit.score, memory.content) == (pytest.approx(1.0), "with")


@pytest.mark.parametrize(
    "numbers",
    [[], [float("nan")], [float("inf"), 1.0], [0.0, 0, -0.0], ["1"], [True], [None], {"a": 1},
     "text", 5, [1.0] * 8_193],
)  # fmt: skip
def test_what_is_no_vector_is_refused(numbers: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        from_numbers(numbers)


@pytest.mark.parametrize("numbers", [[1e308, 1e308], [5e-324, 0.0], [2**64, 1], [-1, 1e-300]])
def test_the_largest_and_smallest_numbers_make_a_vector(numbers: list[float]) -> None:
    assert len(from_numbers(numbers)) == 8


def test_what_is_dumped_can_be_loaded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("The user likes dark mode", metadata={"a": 1}, session_id="s")
    store.put("the user likes dark mode.", metadata={"a": 2}, session_id="s")
    [gone] = store.put("gone")
    store.run(memories.delete, number(gone))
    store.put("Ann plays chess")
    store.run(memories.put, draft("long")._replace(model=model(), vectors=embed(["a", "b", "c"])))
    records = [orjson.loads(orjson.dumps(record)) for record in memories.dump(store.connection)]
    copy = Store(tmp_path)
    copy.run(memories.load, records)
    copy.check()
    assert copy.totals() == store.totals()
    assert [orjson.loads(orjson.dumps(r)) for r in memories.dump(copy.connection)] == records
    assert copy.find("dark mode chess") == store.find("dark mode chess")
    copy.put("The user likes dark mode!", session_id="s")
    assert copy.totals() == store.totals()


def test_a_condition_holds_no_value() -> None:
    parameters: list[Any] = []
    wanted = {"a'b": "c'd", "e": {'f"g': [1]}}
    condition = Filter(collection="h'i", metadata=wanted, created_after=1.0).condition(parameters)
    assert not any(text in condition for text in ("a'b", "c'd", 'f"g', "h'i"))
    assert "h'i" in parameters
