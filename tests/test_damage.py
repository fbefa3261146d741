"""Files that are not what the registry knows: 503, never an older or another answer."""

from __future__ import annotations

import os
import time
from contextlib import closing

import httpx
import pytest
from serving import namespace_files, query, until
from tenancy import cli, cli_json

from botwire_server.store.driver import connect


def put(server, namespace: str, key: str = "k", value: str = "v") -> None:
    answer = httpx.put(f"{server.url}/memory/{namespace}/{key}", json={"value": value})
    assert answer.status_code == 200, answer.text


def files_of(server) -> dict[str, os.PathLike[str]]:
    return {file.name.rpartition("-")[0]: file for file in namespace_files(server.data)}


def refused(server, namespace: str) -> str:
    details = set()
    for path in (f"/memory/{namespace}", f"/memory/{namespace}/k"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 503, answer.text
        details.add(answer.json()["detail"])
    [detail] = details
    return detail


def noted(server) -> int:
    [[revision]] = query(server.data / "control.db", "SELECT max(revision) FROM namespaces")
    return revision or 0


def test_a_journal_that_is_lost_is_noticed(make_server):
    server = make_server()
    put(server, "cut")
    put(server, "whole")
    server.restart()
    for number in range(5):
        put(server, "cut", f"later-{number}")
    until(lambda: noted(server) >= 6, "the registry has noted the writes")
    server.kill()
    file = files_of(server)["cut"]
    file.with_name(file.name + "-wal").unlink()
    server.start()
    assert "older" in refused(server, "cut")
    assert httpx.get(f"{server.url}/memory/whole/k").json()["value"] == "v"


def test_deleting_moves_the_revision_too(make_server):
    server = make_server()
    put(server, "cut")
    server.restart()
    assert httpx.delete(f"{server.url}/memory/cut/k").status_code == 200
    until(lambda: noted(server) >= 2, "the registry has noted the deletion")
    server.kill()
    file = files_of(server)["cut"]
    file.with_name(file.name + "-wal").unlink()
    server.start()
    assert "older" in refused(server, "cut")


def test_what_relaxed_durability_may_lose_is_not_taken_for_damage(make_server):
    server = make_server("--durability", "relaxed")
    put(server, "cut")
    server.restart()
    put(server, "cut", "later")
    time.sleep(1.5)  # it would have been noted by then
    server.kill()
    file = files_of(server)["cut"]
    file.with_name(file.name + "-wal").unlink()
    server.start()
    assert httpx.get(f"{server.url}/memory/cut/k").json()["value"] == "v"


def test_a_file_in_anothers_place_is_noticed(make_server):
    server = make_server()
    put(server, "one")
    put(server, "other", value="secret")
    server.stop()
    files = files_of(server)
    files["one"].write_bytes(files["other"].read_bytes())
    server.start()
    assert "another namespace" in refused(server, "one")
    assert httpx.get(f"{server.url}/memory/other/k").json()["value"] == "secret"


def test_a_file_from_before_owners_were_known_is_claimed(make_server):
    server = make_server()
    put(server, "old")
    server.stop()
    [file] = namespace_files(server.data)
    with closing(connect(file)) as connection:
        connection.execute("ALTER TABLE totals DROP COLUMN owner")
        connection.execute("PRAGMA user_version = 1")
    server.start()
    assert httpx.get(f"{server.url}/memory/old/k").json()["value"] == "v"
    server.stop()
    [[owner]] = query(file, "SELECT owner FROM totals")
    assert file.stem.endswith(owner)


def cut(server) -> None:
    """A server with namespace `cut`, whose last five writes were lost with its journal."""
    put(server, "cut")
    server.restart()
    for number in range(5):
        put(server, "cut", f"later-{number}")
    until(lambda: noted(server) >= 6, "the registry has noted the writes")
    server.kill()
    file = files_of(server)["cut"]
    file.with_name(file.name + "-wal").unlink()


@pytest.mark.parametrize("beside", [True, False])
def test_who_has_no_backup_goes_on_with_what_is_there(make_server, beside):
    server = make_server()
    cut(server)
    if beside:
        server.start()
        refused(server, "cut")
    [found] = cli_json(server.data, "check", expect=1)["findings"]
    assert "namespaces accept" in found["remedy"]
    said = cli(server.data, "namespaces", "accept", "default", "cut", expect=1)
    assert "--yes" in said.stderr
    accept = ("namespaces", "accept", "default", "cut", "--yes")
    assert cli_json(server.data, *accept)["outcome"] == "accepted"
    assert cli_json(server.data, "check")["ok"]
    if not beside:
        server.start()
    assert httpx.get(f"{server.url}/memory/cut").json()["keys"] == ["k"]
    # What was lost had revisions, and so ETags, that nothing else may ever get.
    put(server, "cut", "new")
    file = files_of(server)["cut"]
    [[revision]] = query(file, "SELECT revision FROM entries WHERE key = 'new'")
    assert revision > 1_000_000
    assert cli_json(server.data, *accept)["outcome"] == "nothing to accept"
    lines = cli_json(server.data, "audit")
    assert [line["action"] for line in lines].count("accept namespace") == 2
    assert all("cut" not in line["subject"] for line in lines)


def test_anothers_file_is_not_accepted(make_server):
    server = make_server()
    put(server, "one")
    put(server, "other", value="secret")
    server.stop()
    files = files_of(server)
    files["one"].write_bytes(files["other"].read_bytes())
    accept = ("namespaces", "accept", "default", "one", "--yes")
    assert "another namespace" in cli(server.data, *accept, expect=1).stderr
    server.start()
    refused(server, "one")
