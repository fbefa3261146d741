"""The order of what is found: scores, neighbours, and a labelled set that guards them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from semantic_store import Store, draft, embed, model

from botwire_server.lazy import numpy as np
from botwire_server.store import memories, ranking, search, vectors
from botwire_server.store.keywords import Evidence
from botwire_server.store.ranking import Found, Mode, rank
from botwire_server.store.search import Query
from botwire_server.store.terms import terms

sys.path.insert(0, str(Path(__file__).parent / "retrieval"))
from labelled import Question, load, recall


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All labelled conversations in one namespace; a turn's id is in its metadata."""
    store = Store(tmp_path_factory.mktemp("labelled"))
    turns, _ = load()
    made = embed([turn.text for turn in turns])
    store.run(
        memories.put_all,
        [
            draft(turn.text, vector=vector, session_id=turn.session, metadata={"turn": turn.id})
            for turn, vector in zip(turns, made, strict=True)
        ],
    )
    return store


@pytest.fixture(scope="module")
def measure(conversations: Store) -> Callable[..., float]:
    """Recall at k of a way to search the labelled set."""
    turns, questions = load()
    ids = {turn.text: turn.id for turn in turns}
    vectors_of = dict(zip(questions, embed([q.text for q in questions]), strict=True))
    by_text = {question.text: question for question in questions}

    def measure(k: int, *, mode: Mode = "hybrid", context: float = 0.0) -> float:
        def find(text: str, limit: int) -> list[str]:
            question: Question = by_text[text]
            query = Query(
                terms=terms(text),
                vector=vectors_of[question],
                model=model(),
                mode=mode,
                context=context,
                limit=limit,
            )
            return [
                ids[memory.content]
                for _, memory in search.find(conversations.connection, query).hits
            ]

        return recall(questions, find, k)

    return measure


def test_the_labelled_set_is_large_enough() -> None:
    turns, questions = load()
    assert len(turns) >= 250
    assert len(questions) >= 100
    assert {question.category for question in questions} == {"single", "multi", "temporal", "open"}


@pytest.mark.parametrize("k", [5, 10])
def test_both_kinds_of_evidence_beat_each_alone(measure: Callable[..., float], k: int) -> None:
    hybrid = measure(k)
    assert hybrid > measure(k, mode="vector") + 0.03
    assert hybrid > measure(k, mode="keyword") + 0.03


@pytest.mark.parametrize("k", [5, 10, 25])
def test_neighbours_help(measure: Callable[..., float], k: int) -> None:
    assert measure(k, context=ranking.DEFAULT_CONTEXT) > measure(k) + 0.07


def test_the_ranking_is_as_good_as_it_was(measure: Callable[..., float]) -> None:
    assert measure(10) >= 0.60
    assert measure(10, context=ranking.DEFAULT_CONTEXT) >= 0.71


def test_a_ranking_that_throws_scores_away_is_caught(
    measure: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: words that count by their rank alone."""
    scaled = ranking._scaled

    def by_rank(found: list[Found], scores: list[dict[int, float]]) -> list[dict[int, float]]:
        ranked = [sorted(one, key=one.__getitem__, reverse=True) for one in scaled(found, scores)]
        return [{memory: 1 / (60 + n) for n, memory in enumerate(one)} for one in ranked]

    monkeypatch.setattr(ranking, "_scaled", by_rank)
    assert measure(10) < 0.60


def test_scores_are_sorted_between_0_and_1_and_never_below_the_cosine(
    conversations: Store,
) -> None:
    _, questions = load()
    for question in questions:
        for context in (0.0, 0.5, 1.0):
            hits = [hit for hit, _ in conversations.find(question.text, context=context, limit=100)]
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            assert all(0 < score <= 1 for score in scores)
            assert len({hit.memory for hit in hits}) == len(hits)
            for hit in hits:
                assert hit.vector is not None
                assert hit.keyword is not None
                cosine = max(0.0, hit.vector)
                expected = cosine + (1 - cosine) * hit.keyword
                assert hit.combined == pytest.approx(expected, abs=1e-6)
                assert hit.score >= min(1.0, hit.combined) >= cosine - 1e-6
                assert context or hit.score == pytest.approx(min(1.0, hit.combined))


def test_threshold_and_limit(conversations: Store) -> None:
    text = "What are Maya's goats called?"
    everything = [hit for hit, _ in conversations.find(text, limit=100)]
    for threshold in (0.2, 0.5, 0.9):
        hits = [hit for hit, _ in conversations.find(text, limit=100, threshold=threshold)]
        assert hits == [hit for hit in everything if hit.score >= threshold]
    assert [hit for hit, _ in conversations.find(text, limit=3)] == everything[:3]


def test_the_text_itself_is_found_first(conversations: Store) -> None:
    turns, _ = load()
    for turn in turns[::10]:
        for mode in ("hybrid", "vector"):
            [hit, memory] = conversations.find(turn.text, mode=mode, context=0.0, limit=1)[0]
            assert memory.content == turn.text
            assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_a_neighbour_without_a_hit_of_its_own_comes_in(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("Where did you hide the treasure?", "Beneath an oak.", "Brilliant!", session_id="s")
    store.put("Beneath a beech.", "Something else.")
    found = store.contents("Where is the treasure hidden?", mode="keyword", threshold=0.1)
    assert found == ["Where did you hide the treasure?", "Beneath an oak.", "Brilliant!"]
    alone = store.contents("Where is the treasure hidden?", mode="keyword", context=0.0)
    assert alone == ["Where did you hide the treasure?"]


def test_only_the_same_session_and_collection_are_neighbours(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("Where is the treasure?", session_id="s")
    store.put("Under an oak.", session_id="t")
    store.put("Under a beech.")
    store.put("Under a fir.", session_id="s", collection="other")
    store.put("Under an elm.", session_id="s")
    assert store.contents("treasure", mode="keyword") == ["Where is the treasure?", "Under an elm."]


def test_memories_without_a_session_are_untouched(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("Where is the treasure?", "Under an oak.", "Nowhere near the river")
    for text in ("treasure", "a river and an oak"):
        assert store.find(text, context=1.0) == store.find(text, context=0.0)


def test_a_neighbour_lends_also_across_a_filter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for who, text in (("ann", "Where is the treasure?"), ("bob", "Under an oak."), ("ann", "Oh!")):
        store.put(text, session_id="s", metadata={"who": who})
    hits = store.find("where is the treasure", metadata={"who": "ann"}, mode="keyword")
    assert [memory.content for _, memory in hits] == ["Where is the treasure?", "Oh!"]


def _found(**shares: float) -> Found:
    """Two words, of which each memory has so much of the first."""
    counted = Evidence(10, [len(shares), 0], {int(k[1:]): {0: v} for k, v in shares.items()})
    return Found(words=counted)


def test_namespaces_are_ranked_as_if_they_were_one() -> None:
    # By itself the only match of each would be its best, with a score of 1.
    weak, strong = _found(m1=0.2), _found(m1=2.0)
    hits = rank([weak, strong], mode="keyword", context=0, threshold=0, limit=5)
    assert [(hit.place, hit.score) for hit in hits] == [(1, 1.0), (0, pytest.approx(0.1))]


def test_the_best_hit_is_the_best_that_passes_the_filter() -> None:
    found = _found(m1=2.0, m2=1.0)
    found.eligible = frozenset({2})
    assert [hit[1:3] for hit in rank([found], mode="keyword", context=0, threshold=0, limit=5)] == [
        (2, 1.0)
    ]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, list[bytes]]]:
    """20,000 vectors in clusters, as texts have them."""
    store = Store(tmp_path_factory.mktemp("crowd"))
    chance = np.random.default_rng(5)
    centres = chance.standard_normal((200, 256))
    points = centres[chance.integers(0, 200, 20_000)] + chance.standard_normal((20_000, 256))
    made = [from_array(point) for point in points.astype(np.float32)]
    store.run(
        memories.put_all, [draft(f"text {n}", vector=vector) for n, vector in enumerate(made)]
    )
    yield store, made


def from_array(point: np.ndarray) -> bytes:
    """A vector of length one."""
    return bytes((point / np.linalg.norm(point)).astype(np.float32).tobytes())


def test_comparing_signs_first_loses_almost_nothing(crowd: tuple[Store, list[bytes]]) -> None:
    store, made = crowd
    matrix = np.frombuffer(b"".join(made), np.float32).reshape(-1, 256)
    chance = np.random.default_rng(6)
    shares = []
    for place in chance.integers(0, len(made), 60):
        query = matrix[place] + 0.05 * chance.standard_normal(256).astype(np.float32)
        exact = set((np.argsort(-(matrix @ query))[:10] + 1).tolist())
        near = vectors.Surroundings(store.connection, from_array(query)).nearest(None)
        shares.append(len(exact & set(sorted(near, key=near.__getitem__, reverse=True)[:10])) / 10)
    assert sum(shares) / len(shares) >= 0.99


def test_signs_are_read_as_vec0_reads_them(crowd: tuple[Store, list[bytes]]) -> None:
    store, made = crowd
    chance = random.Random(1)
    for id in chance.sample(range(1, 20_000), 50):
        if id % 2:
            store.run(memories.delete, id)
    for query in chance.sample(made, 5):
        ids, far = vectors._distances(store.connection, np.frombuffer(query, np.float32))
        nearest = store.connection.execute(
            """SELECT rowid, distance FROM memory_bits
            WHERE bits MATCH vec_quantize_binary(?) AND k = 50""",
            (query,),
        ).fetchall()
        ours = dict(zip(ids.tolist(), far.tolist(), strict=True))
        assert [ours[id] for id, _ in nearest] == [int(distance) for _, distance in nearest]
        assert sorted(ours.values())[:50] == [int(distance) for _, distance in nearest]
    assert len(ids) == store.totals()[1]
