"""Every way to write a route's path, with every method, by keys of every set of scopes.

Whatever a request is taken for: without `read` nothing that is stored comes back, without `write`
and `purge` nothing changes, and without a key that works there is nothing but 401.
"""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterator

import pytest
from access import OF_OPERATORS, OF_TENANTS, Acme, Row
from serving import FakeClock
from tenancy import Keyed, bearer

METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "QUERY")
BODY = {"value": "x", "agent_id": "notes", "content": "It is of Acme.", "query": "acme"}


def detours(path: str) -> Iterator[str]:
    """Other ways to write a path, and paths that look like it."""
    plain, question, query = path.partition("?")
    first, _, rest = plain[1:].partition("/")
    yield path
    yield f"//{path[1:]}"
    yield f"///{path[1:]}"
    yield f"/{first}//{rest}{question}{query}"
    yield f"{plain}/{question}{query}"
    yield f"{plain}//{question}{query}"
    yield f"/{first}%2F{rest}{question}{query}"
    yield f"/{first}%2f{rest}{question}{query}"
    yield f"/%{ord(first[0]):02x}{first[1:]}/{rest}{question}{query}"
    yield f"/{first.upper()}/{rest}{question}{query}"
    yield f"/{first}/./{rest}{question}{query}"
    yield f"/x/../{first}/{rest}{question}{query}"
    yield f"/x/%2e%2e/{first}/{rest}{question}{query}"
    yield f"/{first};x=1/{rest}{question}{query}"
    yield f"{plain}%00{question}{query}"
    yield f"{plain}%0a{question}{query}"
    yield f"{plain}?tenant=acme&api_key=x"
    yield f"http://localhost{path}"
    yield f"/memory/notes{plain}"


class Asker:
    """A bare client: it sends a path as it is."""

    def __init__(self, office: Keyed) -> None:
        self._connection = http.client.HTTPConnection(*office.address, timeout=30)

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()

    def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """A request; status and everything of the answer."""
        sent = headers | {"Content-Type": "application/json", "Host": "localhost"}
        body = None if method in ("GET", "HEAD", "TRACE") else json.dumps(BODY).encode()
        try:
            self._connection.request(method, path, body=body, headers=sent)
            answer = self._connection.getresponse()
            said = answer.read()
        except http.client.HTTPException:  # not even a request
            self._connection.close()
            return 400, b""
        return answer.status, said + repr(answer.getheaders()).encode()


@pytest.fixture(scope="module")
def acme(tmp_path_factory) -> Iterator[Acme]:
    with Keyed(tmp_path_factory.mktemp("detours"), clock=FakeClock()) as office:
        acme = Acme(office)
        acme.prepare()
        yield acme


@pytest.fixture(scope="module")
def asker(acme) -> Iterator[Asker]:
    asker = Asker(acme.office)
    yield asker
    asker.close()


def rows(some: list[Row]):
    unique = {row.path: row for row in some}
    return pytest.mark.parametrize("row", unique.values(), ids=list(unique))


def paths(acme: Acme, row: Row) -> list[str]:
    path = row.path
    for name, value in acme.names.items():
        path = path.replace(f"{{{name}}}", value)
    return list(dict.fromkeys(detours(path)))


@pytest.mark.slow
@rows(OF_TENANTS)
def test_without_the_scope_nothing_comes_back_or_changes(acme, asker, row):
    acme.prepare()
    before = acme.holds()
    for scopes in (["read"], ["write", "purge"]):
        headers = bearer(acme.office.key("acme", scopes=scopes)["key"])
        for path in paths(acme, row):
            for method in METHODS:
                status, said = asker.ask(method, path, headers)
                assert status != 500, (method, path)
                assert "read" in scopes or b"of acme" not in said, (method, path)
            if "read" not in scopes:
                acme.prepare()
        assert "read" not in scopes or acme.holds() == before


@pytest.mark.slow
@rows([*OF_TENANTS, *OF_OPERATORS])
def test_without_a_key_there_is_nothing(acme, asker, row):
    before = acme.holds()
    for headers in ({}, bearer("bw_000000000000_" + "0" * 49)):
        for method, path in itertools.product(METHODS, paths(acme, row)):
            status, said = asker.ask(method, path, headers)
            assert status in (400, 401, 405, 501), (status, method, path)
            assert b"of acme" not in said
    assert acme.holds() == before


@rows(OF_OPERATORS)
def test_a_tenants_key_never_operates(acme, asker, row):
    before = acme.office.admin("GET", "/tenants"), len(acme.office.admin("GET", "/keys")["keys"])
    for method, path in itertools.product(METHODS, paths(acme, row)):
        status, said = asker.ask(method, path, bearer(acme.key))
        assert b'"scopes"' not in said and b'"purge_id"' not in said, (method, path)
        assert status != 500, (method, path)
    acme.prepare()
    after = acme.office.admin("GET", "/tenants"), len(acme.office.admin("GET", "/keys")["keys"])
    assert [each["tenant"] for each in after[0]["tenants"]] == [
        each["tenant"] for each in before[0]["tenants"]
    ]
    assert after[1] == before[1] + 2  # those that `prepare` makes
