"""What a command said of a key holds for every request that begins after it returned."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from serving import Server, until
from tenancy import bearer, cli_json, make_tenant, operator_of

CLIENTS = 6
MANY = 200

# After some keys that do not work, an address is not even told so.
REFUSED = {401, 429}

# When a request began and ended, and how it was answered.
Answered = tuple[float, float, int]


@contextmanager
def load(server: Server, key: str) -> Iterator[list[Answered]]:
    """Clients that read and write with this key as fast as they can."""
    answered: list[Answered] = []
    done = threading.Event()

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=30)
        headers = bearer(key) | {"Content-Type": "application/json"}
        path = f"/memory/load/k{number}"
        while not done.is_set():
            for method, body in [("PUT", b'{"value": "v"}'), ("GET", None), ("GET", None)]:
                began = time.monotonic()
                connection.request(method, path, body=body, headers=headers)
                response = connection.getresponse()
                response.read()
                answered.append((began, time.monotonic(), response.status))
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(answered) > MANY, "requests were answered")
        yield answered
        so_far = len(answered)
        until(lambda: len(answered) > so_far + MANY, "more requests were answered")
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("load"), "--durability", "relaxed")
    operator_of(server.data, lambda it: it.create_tenant("acme"))
    try:
        yield server.start()
    finally:
        server.end()


def by_command(server, *arguments):
    return cli_json(server.data, *arguments, process=True)


def by_api(server, verb, id, body=b"{}"):
    operator = operator_of(server.data, lambda it: it.create_key(None))["key"]
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    headers = bearer(operator) | {"Content-Type": "application/json"}
    if verb == "rotate":
        connection.request("POST", f"/admin/v1/keys/{id}/rotate", body=body, headers=headers)
    else:
        connection.request("DELETE", f"/admin/v1/keys/{id}", headers=headers)
    response = connection.getresponse()
    assert response.status in (200, 201)
    body = json.loads(response.read())
    connection.close()
    return body


@pytest.mark.parametrize("verb", ["revoke", "rotate"])
@pytest.mark.parametrize("how", ["command", "api"])
def test_none_is_accepted_that_began_after_it_returned(loaded, verb, how):
    key = operator_of(loaded.data, lambda it: it.create_key("acme"))
    with load(loaded, key["key"]) as answered:
        began = time.monotonic()
        if how == "command":
            by_command(loaded, "keys", verb, key["id"])
        else:
            by_api(loaded, verb, key["id"])
        returned = time.monotonic()
    before = [status for _, end, status in answered if end < began]
    after = [status for start, _, status in answered if start > returned]
    assert len(before) > 50 and set(before) <= {200}
    assert len(after) > 50 and set(after) <= REFUSED


@pytest.mark.parametrize("how", ["command", "api"])
def test_with_grace_none_is_refused(loaded, how):
    key = operator_of(loaded.data, lambda it: it.create_key("acme"))
    with load(loaded, key["key"]) as by_the_old:
        if how == "command":
            new = by_command(loaded, "keys", "rotate", key["id"], "--grace", "1h")
        else:
            new = by_api(loaded, "rotate", key["id"], b'{"grace": "1h"}')
        with load(loaded, new["key"]) as by_the_new:
            pass
    assert len(by_the_old) > 100 and len(by_the_new) > 50
    assert {status for _, _, status in [*by_the_old, *by_the_new]} == {200}


def test_a_purged_tenant_is_refused_at_once(loaded):
    key = make_tenant(loaded.data, "leaving")
    with load(loaded, key) as answered:
        by_command(loaded, "tenants", "purge", "leaving", "--yes")
        returned = time.monotonic()
    after = [status for start, _, status in answered if start > returned]
    assert len(after) > 50 and set(after) <= REFUSED
    assert {status for _, _, status in answered} <= {200, 503} | REFUSED
