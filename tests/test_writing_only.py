"""A key that may write and not read: what a tenant stored shows in no answer to it.

Every route of the tenants' dialects has its row in `CASES`, and one that writes a row for each way
in which it can meet what is there. That something exists may show; what it holds may not: an
answer holds what was sent, and beside it only ids, versions and times.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import botwire
import httpx
import pytest
from access import EPISODES, MEMORY, OF_TENANTS, STATE
from mnemora import MnemoraSync
from mnemora.exceptions import MnemoraConflictError, MnemoraError, MnemoraNotFoundError
from tenancy import Keyed, basic, bearer

from harness.planted import Fault, planted

# What acme stored: none of it may come back.
SECRETS = ("tangerine", "SECRET-KEY", "secretagent")
VERSION = 29  # of its state
TEXT = "the safe is behind the painting"
AS_STORED = "The Safe  is behind the painting."
OLDER, STORED, NEWER = (f"1f0b{digit}000-0000-6000-8000-000000000000" for digit in "123")
ENTRY = "/memory/{namespace}/{key:path}"
SAID = {"agent_id": "notes", "session_id": "s"}
# What an answer may hold that was not sent, and what it says of itself.
OWN = {"id", "version", "created_at", "updated_at", "expires_at", "timestamp"}
TOLD = {"stored", "bytes", "deleted", "count", "deduplicated", "similarity_score", "memory_type"}


@dataclass(frozen=True)
class Case:
    """A request of the key that may only write, and the status that it deserves.

    `{memory}` in the path is acme's memory, `{etag}` in a header its entry's.
    """

    method: str
    template: str
    path: str
    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    what: str = ""

    @property
    def id(self) -> str:
        return f"{self.method} {self.template} {self.what}".strip()


def checkpoint(id: str) -> dict[str, Any]:
    return {"checkpoint": {"id": id}, "pending_writes": {"mine": 1}}


def put_state(data: dict[str, Any], version: int, session: str = "s") -> dict[str, Any]:
    return {"session_id": session, "data": data, "version": version}


def episode(content: str) -> dict[str, Any]:
    return {**SAID, "type": "action", "content": content, "metadata": {"mine": 1}}


def memory(content: str) -> dict[str, Any]:
    return {"agent_id": "notes", "content": content, "metadata": {"mine": 1}}


V = {"value": "mine"}
CASES = [
    # The BotWire dialect.
    Case("GET", ENTRY, "/memory/notes/k", 403),
    Case("GET", ENTRY, "/memory/notes/none", 403, what="missing"),
    Case("GET", ENTRY, "/memory/notes/k", 403, headers={"If-None-Match": "*"}, what="unchanged"),
    Case("PUT", ENTRY, "/memory/notes/mine", 200, V, what="new"),
    Case("PUT", ENTRY, "/memory/notes/k", 200, V, what="over it"),
    Case("PUT", ENTRY, "/memory/notes/k", 412, V, {"If-None-Match": "*"}, what="only new"),
    Case("PUT", ENTRY, "/memory/notes/k", 412, V, {"If-Match": '"1-1"'}, what="stale"),
    Case("PUT", ENTRY, "/memory/notes/k", 412, V, {"If-None-Match": "{etag}"}, what="not that"),
    Case("PUT", ENTRY, "/memory/notes/k", 400, {"values": 1}, what="wrong"),
    Case("DELETE", ENTRY, "/memory/notes/k", 200),
    Case("DELETE", ENTRY, "/memory/notes/none", 404, what="missing"),
    Case("DELETE", ENTRY, "/memory/notes/k", 412, headers={"If-Match": '"1-1"'}, what="stale"),
    Case("GET", "/memory/{namespace}", "/memory/notes", 403),
    Case("DELETE", "/memory/{namespace}", "/memory/notes?confirm=notes", 403),
    # Of what the key may read.
    Case("GET", "/stats/memory", "/stats/memory", 200),
    # The Mnemora dialect.
    Case("POST", "/v1/state", "/v1/state", 201, {**SAID, "data": {"mine": 1}}, what="over it"),
    Case("POST", "/v1/state", "/v1/state", 201, {"agent_id": "mine", "data": {}}, what="new"),
    Case("GET", STATE + "/sessions", "/v1/state/notes/sessions", 403),
    Case("DELETE", STATE + "/{session_id}", "/v1/state/notes/s", 200),
    Case("DELETE", STATE + "/{session_id}", "/v1/state/notes/none", 404, what="missing"),
    Case("GET", STATE, "/v1/state/notes?session_id=s", 403),
    Case("PUT", STATE, "/v1/state/notes", 200, put_state({"mine": 1}, VERSION), what="right"),
    Case("PUT", STATE, "/v1/state/notes", 409, put_state({"mine": 1}, 1), what="stale"),
    Case("PUT", STATE, "/v1/state/notes", 404, put_state({}, 1, "none"), what="missing"),
    *(
        Case(
            "PUT",
            STATE,
            "/v1/state/notes",
            409,
            put_state(checkpoint(id), 2**62, "graph"),
            what=f"{name} checkpoint, stale",
        )
        for name, id in (("older", OLDER), ("same", STORED), ("newer", NEWER))
    ),
    Case(
        "PUT",
        STATE,
        "/v1/state/notes",
        409,
        put_state(checkpoint(NEWER), 1),
        what="a checkpoint over none, stale",
    ),
    Case(
        "PUT",
        STATE,
        "/v1/state/notes",
        200,
        put_state(checkpoint(STORED), 1, "graph"),
        what="same checkpoint, right",
    ),
    Case("POST", "/v1/memory/episodic", "/v1/memory/episodic", 201, episode("done")),
    Case(
        "POST",
        "/v1/memory/episodic/batch",
        "/v1/memory/episodic/batch",
        201,
        {"items": [episode("one"), episode("two")]},
    ),
    Case(
        "GET", EPISODES + "/sessions/{session_id:path}", "/v1/memory/episodic/notes/sessions/s", 403
    ),
    Case("GET", EPISODES, "/v1/memory/episodic/notes", 403),
    # A summary is made of what is stored.
    Case("POST", EPISODES + "/summarize", "/v1/memory/episodic/notes/summarize", 403, {}),
    Case("POST", "/v1/memory/semantic", "/v1/memory/semantic", 201, memory("mine"), what="new"),
    Case("POST", "/v1/memory/semantic", "/v1/memory/semantic", 201, memory(TEXT), what="merged"),
    Case(
        "POST",
        "/v1/memory/semantic/batch",
        "/v1/memory/semantic/batch",
        201,
        {"items": [memory(TEXT), memory("mine"), memory("mine"), {**memory(TEXT), "metadata": {}}]},
        what="merged",
    ),
    *(
        Case("POST", path, path, 403, {"query": "painting", **more}, what=f"{more}")
        for path in ("/v1/memory/semantic/search", "/v1/memory/search")
        for more in ({"agent_id": "notes"}, {})
    ),
    Case("GET", MEMORY + "/history", "/v1/memory/semantic/{memory}/history", 403),
    Case("GET", MEMORY, "/v1/memory/semantic/{memory}", 403),
    Case("GET", MEMORY, "/v1/memory/semantic/none", 403, what="missing"),
    Case("DELETE", MEMORY, "/v1/memory/semantic/{memory}", 204),
    Case("DELETE", MEMORY, "/v1/memory/semantic/none", 404, what="missing"),
    Case("POST", "/v1/memory", "/v1/memory", 201, memory(TEXT), what="a memory, merged"),
    Case("POST", "/v1/memory", "/v1/memory", 201, {**SAID, "data": {"mine": 1}}, what="a state"),
    Case("POST", "/v1/memory", "/v1/memory", 201, episode("done"), what="an episode"),
    Case("POST", "/v1/memory", "/v1/memory", 400, {"agent_id": "notes"}, what="nothing"),
    Case("GET", "/v1/memory/{agent_id:path}", "/v1/memory/notes", 403),
    Case("DELETE", "/v1/memory/{agent_id:path}", "/v1/memory/notes", 403),
    Case("GET", "/v1/usage", "/v1/usage", 403),
]


class Vault:
    """What acme keeps, and the key that may only write."""

    def __init__(self, office: Keyed) -> None:
        self.office = office
        self.owner = office.client(office.tenant("acme"))
        self.writing = office.key("acme", scopes=["write"])["key"]
        self.names: dict[str, str] = {}

    def fill(self) -> None:
        """Have everything as it was."""
        ask = self.owner.request
        ask("DELETE", "/v1/memory/notes")
        etag = ask("PUT", "/memory/notes/k", json={"value": "tangerine"}).headers["etag"]
        ask("PUT", "/memory/notes/SECRET-KEY", json={"value": "tangerine"})
        for _ in range(VERSION):
            ask("POST", "/v1/state", json={**SAID, "data": {"text": "tangerine"}})
        graph = {**checkpoint(STORED), "pending_writes": {"tangerine": 1}, "more": "tangerine"}
        ask("POST", "/v1/state", json={**SAID, "session_id": "graph", "data": graph})
        ask("POST", "/v1/memory/episodic", json=episode("tangerine"))
        made = ask(
            "POST",
            "/v1/memory/semantic",
            json={
                "agent_id": "notes",
                "content": AS_STORED,
                "metadata": {"tangerine": "tangerine", "mine": {"tangerine": 1}},
            },
        )
        ask("PUT", "/memory/secretagent/k", json={"value": 1})
        self.names = {"{etag}": etag, "{memory}": made.json()["data"]["id"]}

    def ask(self, case: Case, key: str, *, method: str | None = None) -> httpx.Response:
        """The case's request."""
        path, headers = case.path, dict(case.headers)
        for name, value in self.names.items():
            path = path.replace(name, value)
            headers = {each: text.replace(name, value) for each, text in headers.items()}
        return self.office.bare.request(
            method or case.method, path, json=case.body, headers=headers | bearer(key)
        )


@pytest.fixture(scope="module")
def vault(tmp_path_factory) -> Iterator[Vault]:
    with Keyed(tmp_path_factory.mktemp("writing-only")) as office:
        yield Vault(office)


def each(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a JSON value that is no container, under the last name above it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, key
            yield from leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value


def unsent(case: Case, answer: httpx.Response) -> set[tuple[str, Any]]:
    """What an answer to a write holds that was neither sent nor is the answer's own."""
    data = answer.json()
    data = data.get("data", data)
    sent = {value for _, value in leaves(case.body or {})} | set(case.path.split("/"))
    sent |= {"default", "items", "session_id", "namespace", "key", "agent_id", "data", "metadata"}
    return {
        (name, value)
        for name, value in leaves(data)
        if name not in OWN | TOLD and value not in sent and value is not None
    }


def test_every_route_has_its_row():
    routes = {(row.method, row.template) for row in OF_TENANTS}
    rows = {(case.method, case.template) for case in CASES}
    assert routes - rows == set(), "routes without a row"
    assert rows - routes == set(), "rows without a route"
    writing = {(row.method, row.template) for row in OF_TENANTS if row.scope == "write"}
    served = {(case.method, case.template) for case in CASES if case.status < 300}
    assert writing - served == {("POST", EPISODES + "/summarize")}


@each(CASES)
def test_nothing_that_is_stored_shows(vault, case):
    vault.fill()
    for method in (case.method, "HEAD") if case.method == "GET" else (case.method,):
        answer = vault.ask(case, vault.writing, method=method)
        assert answer.status_code == case.status, answer.text
        said = answer.text + repr(answer.headers.multi_items())
        for secret in SECRETS:
            assert secret not in said
        if case.status == 409:
            assert str(VERSION) not in answer.json()["error"]["message"]
        if case.status < 300 and case.method in ("PUT", "POST"):
            assert unsent(case, answer) == set()
            assert answer.json().get("data", {}).get("deduplicated", False) is False


@each([case for case in CASES if case.status < 300 and case.method == "POST"])
def test_what_is_new_and_what_is_there_answer_the_same(vault, case):
    """But for ids, versions and times."""
    vault.fill()

    def told(answer: httpx.Response) -> Any:
        return answer.status_code, [
            leaf for leaf in leaves(answer.json()["data"]) if leaf[0] not in OWN
        ]

    first = told(vault.ask(case, vault.writing))
    assert told(vault.ask(case, vault.writing)) == first


def test_it_counts_nothing(vault):
    vault.fill()
    answer = vault.office.bare.get("/stats/memory", headers=bearer(vault.writing))
    assert set(answer.json().values()) == {0}


def test_what_it_writes_is_stored(vault):
    vault.fill()
    writer = vault.office.client(vault.writing)
    merged = writer.post("/v1/memory/semantic", json=memory(TEXT)).json()["data"]
    assert merged["id"] == vault.names["{memory}"]
    found = vault.owner.get(f"/v1/memory/semantic/{merged['id']}").json()["data"]
    assert found["content"] == TEXT
    assert found["metadata"] == {"tangerine": "tangerine", "mine": 1}
    assert (found["created_at"], found["updated_at"]) == (
        merged["created_at"],
        merged["updated_at"],
    )
    put = writer.put("/v1/state/notes", json=put_state({"mine": 1}, VERSION)).json()["data"]
    assert put["version"] == VERSION + 1
    assert vault.owner.get("/v1/state/notes?session_id=s").json()["data"] == put
    for id in (OLDER, NEWER):
        writer.put("/v1/state/notes", json=put_state(checkpoint(id), 99, "graph"))
    kept = vault.owner.get("/v1/state/notes?session_id=graph").json()["data"]
    assert kept["data"]["more"] == "tangerine"


def test_a_key_that_may_read_sees_it_all(vault):
    """Otherwise the silence above would prove nothing."""
    vault.fill()
    both = vault.office.client(vault.office.key("acme", scopes=["read", "write"])["key"])
    stale = both.put("/v1/state/notes", json=put_state({"mine": 1}, 1))
    assert str(VERSION) in stale.json()["error"]["message"]
    older = both.put("/v1/state/notes", json=put_state(checkpoint(OLDER), 99, "graph"))
    assert older.json()["data"]["data"]["more"] == "tangerine"
    merged = both.post("/v1/memory/semantic", json=memory(TEXT))
    assert merged.status_code == 200
    assert merged.json()["data"]["metadata"]["tangerine"] == "tangerine"


def test_reading_elsewhere_is_not_reading_here(vault):
    """A pattern covers the scopes together; one that reads nowhere near reads nothing here."""
    vault.fill()
    near = vault.office.client(
        vault.office.key("acme", scopes=["read"], namespace="other-*")["key"]
    )
    for path in ("/memory/notes/k", "/v1/memory/notes", "/v1/state/notes"):
        assert near.get(path).status_code == 403
    assert near.post("/v1/memory/search", json={"query": "painting"}).json()["data"]["count"] == 0
    assert near.get("/stats/memory").json()["total_entries"] == 0


def test_a_purge_is_receipted(vault):
    """Who removes it hears how much there was: that is the proof that it is gone."""
    vault.fill()
    purging = vault.office.client(vault.office.key("acme", scopes=["purge"])["key"])
    answer = purging.delete("/v1/memory/notes")
    assert answer.json()["data"]["deleted"]["semantic"] == 1
    assert not any(secret in answer.text for secret in SECRETS)


def test_the_unmodified_clients_write(vault):
    vault.fill()
    url = vault.office.url
    with MnemoraSync(api_key=vault.writing, base_url=url) as client:
        state = client.store_state("notes", {"mine": 1}, session_id="s")
        assert state.version == VERSION + 1
        state = client.update_state("notes", {"mine": 2}, state.version, session_id="s")
        assert (state.version, state.data) == (VERSION + 2, {"mine": 2})
        with pytest.raises(MnemoraConflictError):
            client.update_state("notes", {"mine": 3}, 1, session_id="s")
        one = client.store_memory("notes", TEXT, metadata={"mine": 1})
        two = client.store_memory("notes", TEXT, metadata={"mine": 2})
        assert one.id == two.id == vault.names["{memory}"]
        assert (two.metadata, two.deduplicated) == ({"mine": 2}, False)
        assert client.store_episode("notes", "s", "action", "done").content == "done"
        for ask in (
            lambda: client.get_state("notes", "s"),
            lambda: client.search_memory("painting"),
            lambda: client.search_all("painting", agent_id="notes"),
            lambda: client.get_all_memory("notes"),
            lambda: client.get_memory(one.id),
            lambda: client.purge_agent("notes"),
        ):
            with pytest.raises(MnemoraError) as refused:
                ask()
            assert refused.value.status_code == 403
        client.delete_memory(one.id)
        with pytest.raises(MnemoraNotFoundError):
            client.delete_memory(one.id)
        client.delete_state("notes", "s")
    notes = botwire.Memory("notes", base_url=url.replace("//", f"//{vault.writing}@"))
    notes.set("mine", {"a": 1})
    assert notes.delete("mine")
    assert not notes.delete("mine")
    with pytest.raises(Exception, match="403"):
        notes.get("k")
    notes._client.close()
    assert vault.office.bare.get("/memory/notes/k", headers=basic(vault.writing)).status_code == 403


FAULTS = {
    "a merge answers all": Fault(
        "web/mnemora/semantic.py",
        '    if not here.allows("read"):\n        memory, merged',
        "    if False:\n        memory, merged",
    ),
    "a checkpoint is compared": Fault(
        "web/mnemora/state.py",
        "self._resolver(data) if may_read else None",
        "self._resolver(data)",
    ),
    "a conflict tells the version": Fault(
        "web/mnemora/state.py",
        "            if may_read:\n                raise\n",
        "            raise\n",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_table_notices(tmp_path, fault):
    from test_isolation import start_tests

    process = start_tests(
        *(
            "-x",
            "-q",
            f"--basetemp={tmp_path / 'pytest'}",
            "-k",
            "test_nothing_that_is_stored_shows",
        ),
        "test_writing_only.py",
        root=planted(tmp_path / "planted", FAULTS[fault]),
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "FAILED" in said


def test_leaves_are_all_there():
    found = json.loads('{"a": [{"b": 1}, "c"], "d": null}')
    assert list(itertools.islice(leaves(found), 9)) == [
        ("a", "a"),
        ("b", "b"),
        ("b", 1),
        ("a", "c"),
        ("d", "d"),
        ("d", None),
    ]
