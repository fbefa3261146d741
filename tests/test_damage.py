"""Files that are not what the registry knows: 503, never an older or another answer."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace

import httpx
import pytest
from serving import namespace_files, query, until
from tenancy import cli, cli_json

from botwire_server.store.driver import connect
from botwire_server.store.migrations import NAMESPACE, template


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
    file.write_bytes(template(replace(NAMESPACE, steps=NAMESPACE.steps[:1]), server.data))
    with closing(connect(file)) as connection:
        connection.execute("UPDATE totals SET revision = 1")
        connection.execute(
            "INSERT INTO entries (revision, key, value, bytes, created_at, updated_at)"
            """ VALUES (1, 'k', '"v"', 1, 1, 1)"""
        )
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


@pytest.mark.parametrize("how", ["cut", "garbled", "empty"])
def test_a_journal_that_is_cut_or_garbled_is_noticed(make_server, how):
    server = make_server()
    put(server, "cut")
    put(server, "whole")
    server.restart()
    for number in range(20):
        put(server, "cut", f"later-{number}", "v" * 500)
    until(lambda: noted(server) >= 21, "the registry has noted the writes")
    server.kill()
    file = files_of(server)["cut"]
    journal = file.with_name(file.name + "-wal")
    content = journal.read_bytes()
    half = len(content) // 2
    journal.write_bytes(
        {
            "cut": content[:half],
            "garbled": content[:half] + b"\x55" * 4_000 + content[half + 4_000 :],
            "empty": b"",
        }[how]
    )
    server.start()
    assert "older" in refused(server, "cut")
    assert httpx.get(f"{server.url}/memory/whole/k").json()["value"] == "v"
    [found] = cli_json(server.data, "check", expect=1)["findings"]
    assert found["namespace"] == "cut"


@pytest.mark.parametrize("how", ["missing", "zero length", "garbage"])
def test_damaged_files_do_not_keep_a_server_from_starting_which_says_so(make_server, how):
    server = make_server()
    put(server, "bad")
    put(server, "whole")
    server.stop()
    file = files_of(server)["bad"]
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if how == "zero length" else os.urandom(20_000))
    server.start()
    if how != "garbage":  # that is seen when it is first asked for
        assert "restore" in server.log
    detail = refused(server, "bad")
    assert "backup" in detail
    assert put_status(server, "bad") == 503
    answer = httpx.get(f"{server.url}/v1/memory/bad")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "NAMESPACE_DAMAGED")
    assert server.log.count("restore") == 1, "it is said once, not for every request"
    assert httpx.get(f"{server.url}/memory/whole/k").json()["value"] == "v"
    [found] = cli_json(server.data, "check", expect=1)["findings"]
    assert (found["namespace"], found["level"]) == ("bad", "damaged")


def put_status(server, namespace: str) -> int:
    return httpx.put(f"{server.url}/memory/{namespace}/k2", json={"value": 1}).status_code


def test_a_search_over_several_agents_drops_none_in_silence(make_server):
    server = make_server()
    for agent in ("one", "other"):
        text = {"agent_id": agent, "content": f"The parcel of {agent} went to Berlin"}
        assert httpx.post(f"{server.url}/v1/memory/semantic", json=text).status_code == 201
    server.stop()
    file = files_of(server)["one"]
    file.write_bytes(b"\x55" * file.stat().st_size)
    server.start()
    for path in ("/v1/memory/semantic/search", "/v1/memory/search"):
        for mode in ("hybrid", "vector", "keyword"):
            asked = {"query": "Where did the parcel go?", "mode": mode, "threshold": 0}
            answer = httpx.post(server.url + path, json=asked)
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "NAMESPACE_DAMAGED"
    asked = {"query": "Where did the parcel go?", "agent_id": "other"}
    answer = httpx.post(f"{server.url}/v1/memory/semantic/search", json=asked)
    assert answer.json()["data"]["count"] == 1


def test_a_garbled_registry_is_one_sentence(make_server):
    server = make_server()
    put(server, "n")
    server.stop()
    (server.data / "control.db").write_bytes(os.urandom(20_000))
    with pytest.raises(AssertionError, match=r"backup") as refusal:
        server.start()
    assert "Traceback" not in str(refusal.value)


ODD = ["nul \x00 inside", "line\u2028end", "\x7f\x1f", "🙂 ‮ é", '"\\/\b', "\ufffe\uffff"]


def test_odd_texts_are_not_taken_for_damage(make_server):
    server = make_server()
    for number, text in enumerate(ODD):
        stored = {"agent_id": "odd", "content": f"parcel {number} {text}", "metadata": {"t": text}}
        answer = httpx.post(f"{server.url}/v1/memory/semantic", json=stored)
        assert answer.status_code in (201, 400), answer.text
        put(server, "odd", f"key-{number}", text)
        assert httpx.get(f"{server.url}/memory/odd/key-{number}").json()["value"] == text
    asked = {"query": "parcel", "agent_id": "odd", "threshold": 0}
    answer = httpx.post(f"{server.url}/v1/memory/semantic/search", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["count"] >= len(ODD) - 1
    assert cli_json(server.data, "check")["ok"]
