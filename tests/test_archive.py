"""Export and import: the same answers elsewhere, whole or not at all, with little memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from array import array
from pathlib import Path
from urllib.parse import quote

import httpx
import orjson
import pytest
from serving import FakeClock, InProcess, command, namespace_files
from tenancy import Keyed, bearer, cli, cli_json, files_with, make_tenant, operator_of, shown

from botwire_server.errors import Damaged
from botwire_server.store import archive, archived, staging
from botwire_server.store.directory import DataDirectory

VALUES = [
    "",
    "plain",
    "Grüße, 世界, 🙂, \u202e",
    "line one\nline two\r\n\ttabbed \x00\x01",
    "x" * 100_000,
    42,
    -(2**63),
    2**64 - 1,
    3.141592653589793,
    1e300,
    5e-324,
    -0.0,
    True,
    None,
    [],
    {},
    {"a": [1, {"b": [None, 2.5, "ü"]}], "": {"z": 1, "a": 2}},
    [[[[[[1]]]]]],
]
NAMESPACES = ["support-1", "Grüße 世界", "a/b?c#d%", "n" * 256, "…", "CON", "../up"]


@pytest.fixture(scope="module")
def clock():
    return FakeClock()


def remember(client, clock):
    """Store states, memories and episodes of two agents; the ids of the memories."""
    ids = []
    for agent in ("support-1", "Grüße 世界"):
        said = {"agent_id": agent}
        for session, more in [("s", {}), ("user:42/ü", {"ttl_hours": 5})]:
            for number in range(3):
                clock.advance(1)
                made = {**said, "session_id": session, **more}
                state = {"n": [number, 2.5, None], "ü": {"": "x"}}
                assert client.post("/v1/state", json={**made, "data": state}).status_code == 201
                for content in (f"It rained {number} times.", {"text": f"hail {number}", "n": 1.5}):
                    episode = {**said, "session_id": session, "type": "observation"}
                    answer = client.post(
                        "/v1/memory/episodic", json={**episode, "content": content}
                    )
                    assert answer.status_code == 201
        texts = ["Ada likes tea.", "Bob drinks coffee: 世界 🙂.", "Invoice 1043 for $500."]
        # The last is said again, and merged.
        for number, text in enumerate([*texts, "A long text. " * 300, texts[0]]):
            clock.advance(1)
            memory = {**said, "content": text, "metadata": {"n": number, "tag": ["a", {"b": None}]}}
            if number == 1:
                memory["namespace"] = "drinks"
            answer = client.post("/v1/memory/semantic", json=memory)
            assert answer.status_code == (200 if number == 4 else 201), answer.text
            ids.append(answer.json()["data"]["id"])
    return ids


@pytest.fixture(scope="module")
def office(tmp_path_factory, clock):
    """A server where tenant acme stores all kinds of values."""
    with Keyed(tmp_path_factory.mktemp("archive") / "data", clock=clock) as office:
        office.acme = office.tenant("acme", tier="pro")
        client = office.client(office.acme)
        for number, namespace in enumerate(NAMESPACES):
            if "/" in namespace:
                continue
            for each, value in enumerate(VALUES):
                clock.advance(0.000_123 * (number + each + 1))
                more = {"ttl_seconds": 10_000 + each} if each % 3 == 0 else {}
                path = f"/memory/{quoted(namespace)}/k/{each} ü"
                assert client.put(path, json={"value": value, **more}).status_code == 200
            client.put(f"/memory/{quoted(namespace)}/k/2 ü", json={"value": "overwritten"})
            client.delete(f"/memory/{quoted(namespace)}/k/3 ü")
        office.memories = remember(client, clock)
        client.put("/memory/empty/k", json={"value": "v"})
        client.delete("/memory/empty/k")
        yield office


def quoted(name):
    return quote(name, safe="")


def answers(client, namespaces):
    """Everything there is to read, as it is answered."""
    found = []
    for namespace in namespaces:
        base = f"/memory/{quoted(namespace)}"
        listing = client.get(base)
        found.append(shown(listing))
        for key in listing.json()["keys"]:
            found.append(shown(client.get(f"{base}/{quoted(key)}")))
        found.append(shown(client.get(base, params={"limit": 3})))
    found.append(shown(client.get("/stats/memory")))
    return found


@pytest.fixture(scope="module")
def exported(office, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "acme.zip"
    cli_json(office.data, "tenants", "export", "acme", str(file))
    return file


def remembered(client, ids):
    """Everything of states, memories and episodes, as it is answered."""
    found = []
    for agent in ("support-1", "Grüße 世界"):
        for path in (
            f"/v1/state/{quoted(agent)}/sessions",
            f"/v1/state/{quoted(agent)}?session_id=s",
            f"/v1/state/{quoted(agent)}?session_id=user:42/ü",
            f"/v1/memory/episodic/{quoted(agent)}",
            f"/v1/memory/episodic/{quoted(agent)}/sessions/s",
            f"/v1/memory/{quoted(agent)}",
        ):
            found.append(shown(client.get(path)))
        for body in (
            {"query": "Who likes tea?"},
            {"query": "Invoice 1043", "mode": "keyword"},
            {"query": "hot drinks", "mode": "vector", "top_k": 3},
            {"query": "coffee", "namespace": "drinks", "metadata_filter": {"n": 1}},
        ):
            path = "/v1/memory/semantic/search"
            found.append(shown(client.post(path, json={**body, "agent_id": agent})))
        path = "/v1/memory/search"
        found.append(shown(client.post(path, json={"query": "hail", "agent_id": agent})))
    for id in ids:
        found.append(shown(client.get(f"/v1/memory/semantic/{id}")))
        found.append(shown(client.get(f"/v1/memory/semantic/{id}/history")))
    assert {status for status, _, _ in found} == {200}
    return found


def import_(data, file, name=None):
    return operator_of(
        data,
        lambda it: it.import_tenant(file, name=name, data_dir=data, progress=lambda *_: None),
    )


# Round trips.


def test_the_same_answers_elsewhere(office, exported, tmp_path, clock):
    # Its own clock: the other server sweeps what has expired by the shared one.
    elsewhere = FakeClock(clock.now)
    data = tmp_path / "data"
    imported = cli_json(data, "tenants", "import", str(exported))
    assert imported["tenant"] == "acme"
    key = operator_of(data, lambda it: it.create_key("acme"))["key"]
    names = [row["namespace"] for row in operator_of(data, lambda it: it.list_namespaces("acme"))]
    assert "empty" in names and "Grüße 世界" in names
    expected = answers(office.client(office.acme), names)
    expected += remembered(office.client(office.acme), office.memories)
    assert len(expected) > 120
    with (
        InProcess(data, clock=elsewhere) as server,
        httpx.Client(base_url=server.url, headers=bearer(key)) as client,
    ):
        assert answers(client, names) + remembered(client, office.memories) == expected
        # It goes on like any other: newest first, and nothing is overwritten by a revision used.
        client.put("/memory/support-1/new", json={"value": "v"})
        assert client.get("/memory/support-1").json()["keys"][0] == "new"
        elsewhere.advance(20_000)
        assert client.get("/memory/support-1/k/0 ü").status_code == 404  # expired here too
    [tenant] = operator_of(data, lambda it: it.list_tenants())
    assert (tenant["tier"], tenant["namespaces"]) == ("pro", len(names))


def test_beside_itself_under_another_name(office, exported):
    imported = cli_json(office.data, "tenants", "import", str(exported), "--as", "copy")
    assert imported["tenant"] == "copy"
    copy = office.client(office.key("copy")["key"])
    acme = office.client(office.acme)
    names = [
        row["namespace"] for row in office.admin("GET", "/tenants/copy/namespaces")["namespaces"]
    ]
    assert answers(copy, names) == answers(acme, names)
    copy.put("/memory/support-1/k/1 ü", json={"value": "of the copy"})
    assert acme.get("/memory/support-1/k/1 ü").json()["value"] == "plain"
    ids = [
        row["id"]
        for name in ("acme", "copy")
        for row in office.admin("GET", f"/tenants/{name}/namespaces")["namespaces"]
    ]
    assert len(ids) == len(set(ids))
    refused = cli(office.data, "tenants", "import", str(exported), "--as", "copy", expect=1)
    assert "--as" in refused.stderr
    office.admin("DELETE", "/tenants/copy?confirm=copy")


def test_exporting_what_was_imported_gives_the_same_records(exported, tmp_path):
    import_(tmp_path / "data", exported)
    again = tmp_path / "again.zip"
    cli_json(tmp_path / "data", "tenants", "export", "acme", str(again))
    with zipfile.ZipFile(exported) as one, zipfile.ZipFile(again) as two:
        assert one.namelist() == two.namelist()
        for name in one.namelist():
            if name != "manifest.json":
                assert one.read(name) == two.read(name)


def test_what_an_archive_looks_like(exported):
    """Tools that know nothing of this project can read it."""
    with zipfile.ZipFile(exported) as file:
        assert file.testzip() is None
        manifest = json.loads(file.read("manifest.json"))
        assert (manifest["format"], manifest["version"]) == ("botwire-server tenant", 1)
        assert (manifest["tenant"], manifest["tier"]) == ("acme", "pro")
        for namespace in manifest["namespaces"]:
            for member in namespace["members"]:
                lines = file.read(member["path"])
                assert hashlib.sha256(lines).hexdigest() == member["sha256"]
                assert len(lines.splitlines()) >= member["records"] == lines.count(b"\n")
                fields = set(archived.FIELDS[member["kind"]])
                for line in lines.split(b"\n")[:-1]:
                    assert fields == set(json.loads(line)) - {"bytes"}
        seal = file.comment
    content = exported.read_bytes()
    assert content.endswith(seal)
    assert hashlib.sha256(content[:-64]).hexdigest().encode() == seal
    assert b"bw_" not in content


def test_nothing_is_overwritten(office, exported):
    before = exported.read_bytes()
    refused = cli(office.data, "tenants", "export", "acme", str(exported), expect=1)
    assert "exists already" in refused.stderr
    assert exported.read_bytes() == before
    assert os.listdir(exported.parent) == [exported.name]


# Damage.


def refused(file: Path, data: Path) -> str:
    """Import a file that must be refused; the sentence. Nothing may be left of it."""
    before = sorted(str(path) for path in data.rglob("*") if "control.db" not in path.name)
    done = cli(data, "tenants", "import", str(file), "--as", "damaged", expect=1)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    after = sorted(str(path) for path in data.rglob("*") if "control.db" not in path.name)
    assert after == before
    assert "damaged" not in [
        row["tenant"] for row in operator_of(data, lambda it: it.list_tenants())
    ]
    return done.stderr


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    data = tmp_path_factory.mktemp("target") / "data"
    make_tenant(data, "somebody")
    return data


def test_a_byte_flipped_anywhere_is_noticed(exported, target, tmp_path):
    content = exported.read_bytes()
    chance = random.Random(20261120)
    places = {0, 30, len(content) - 1, len(content) - 64, len(content) - 70, len(content) // 2}
    places |= {chance.randrange(len(content)) for _ in range(50)}
    # Headers are a small part of the file, and the part that ZIP itself does not check.
    places |= {chance.randrange(len(content) - 600, len(content)) for _ in range(10)}
    for place in sorted(places):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        (tmp_path / "flipped.zip").write_bytes(flipped)
        assert "no whole archive" in refused(tmp_path / "flipped.zip", target), place


def test_a_file_cut_or_grown_is_noticed(exported, target, tmp_path):
    content = exported.read_bytes()
    file = tmp_path / "cut.zip"
    for length in (0, 1, 63, 64, 100, len(content) // 2, len(content) - 64, len(content) - 1):
        file.write_bytes(content[:length])
        assert "no whole archive" in refused(file, target), length
    for grown in (content + b"x", b"x" + content, content + content):
        file.write_bytes(grown)
        assert "no whole archive" in refused(file, target)


def forged(exported, file, change, *, compression=zipfile.ZIP_DEFLATED, seal=True):
    """An archive as a knowing hand would change it: sums and seal are right again."""
    with zipfile.ZipFile(exported) as source:
        members = {name: source.read(name) for name in source.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    change(manifest, members)
    for namespace in manifest.get("namespaces") or []:
        for member in namespace.get("members") or [] if isinstance(namespace, dict) else []:
            content = members.get(member.get("path"), b"")
            member.setdefault("keep", False)
            if not member.pop("keep"):
                member["sha256"] = hashlib.sha256(content).hexdigest()
                member["records"] = content.count(b"\n")
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in members.items():
            target.writestr(name, content)
        target.writestr("manifest.json", json.dumps(manifest))
        target.comment = b"0" * 64
    content = file.read_bytes()[:-64]
    file.write_bytes(content + hashlib.sha256(content).hexdigest().encode())


def first(manifest):
    return manifest["namespaces"][0]


def with_record(**changes):
    """The first record of the first member, changed."""

    def change(manifest, members):
        path = next(n for n in manifest["namespaces"] if n["name"] == "support-1")["members"][0][
            "path"
        ]
        record, *rest = members[path].split(b"\n")
        members[path] = b"\n".join([json.dumps(json.loads(record) | changes).encode(), *rest])

    return change


def without_field(manifest, members):
    path = next(n for n in manifest["namespaces"] if n["name"] == "support-1")["members"][0]["path"]
    members[path] = b'{"key": "only"}\n'


def one_line(content):
    def change(manifest, members):
        path = first(manifest)["members"][0]["path"]
        members[path] = content

    return change


def name_of(value):
    return lambda manifest, members: first(manifest).update(name=value)


HOSTILE = {
    "another version": lambda m, _: m.update(version=2),
    "another format": lambda m, _: m.update(format="something"),
    "no tenant": lambda m, _: m.pop("tenant"),
    "a tenant that is no text": lambda m, _: m.update(tenant=["x"]),
    "a tier that is no text": lambda m, _: m.update(tier={"x": 1}),
    "namespaces that are no list": lambda m, _: m.update(namespaces={"x": 1}),
    "a namespace that is no object": lambda m, _: m["namespaces"].insert(0, 5),
    "a name that is no text": name_of(5),
    "a name with a line break": name_of("a\nb"),
    "a name that is too long": name_of("x" * 257),
    "a name that is empty": name_of(""),
    "a name twice": lambda m, _: m["namespaces"][1].update(name=first(m)["name"]),
    "an id twice": lambda m, _: m["namespaces"][1].update(id=first(m)["id"]),
    "an id that is a path": lambda m, _: first(m).update(id="../../../../tmp"),
    "an id that is no text": lambda m, _: first(m).update(id=["x"]),
    "a time that is none": lambda m, _: first(m).update(created_at="yesterday"),
    "a time that never comes": lambda m, _: first(m).update(created_at=1e300),
    "a time before 1970": lambda m, _: first(m).update(created_at=-1),
    "no members": lambda m, _: first(m).pop("members"),
    "a member twice": lambda m, _: m["namespaces"][1].update(members=first(m)["members"]),
    "an unknown kind": lambda m, _: first(m)["members"][0].update(kind="passwords"),
    "a kind that is no text": lambda m, _: first(m)["members"][0].update(kind=["entries"]),
    "a missing member": lambda _, members: members.pop(next(iter(members))),
    "an extra member": lambda _, members: members.update({"extra.jsonl": b""}),
    "a member outside": lambda _, members: members.update({"../../../tmp/evil": b"x"}),
    "a wrong sum": lambda m, _: first(m)["members"][0].update(sha256="0" * 64, keep=True),
    "no json": one_line(b"{]\n"),
    "a list": one_line(b"[1]\n"),
    "a number": one_line(b"5\n"),
    "no utf-8": one_line(b'{"key": "\xff"}\n'),
    "too deep": one_line(b'{"value":' + b"[" * 2_000 + b"]" * 2_000 + b"}\n"),
    "a field is missing": without_field,
    "a key that is no text": with_record(key=5),
    "a key that is a list": with_record(key=["x"]),
    "no key": with_record(key=None),
    "an empty key": with_record(key=""),
    "a key that is too long": with_record(key="x" * 513),
    "a key with a control character": with_record(key="a\u0000b"),
    "a revision below nothing": with_record(revision=-5),
    "a revision without end": with_record(revision=2**62),
    "a revision twice": with_record(revision=2),
    "an updated_at without end": with_record(updated_at=1e308),
    "an expires_at that is text": with_record(expires_at="soon"),
    "a created_at that is nothing": with_record(created_at=None),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_in_a_sentence(exported, target, tmp_path, what):
    forged(exported, tmp_path / "forged.zip", HOSTILE[what])
    refused(tmp_path / "forged.zip", target)


# Of each kind, what the server would never have stored.
NEVER = {
    "entries": {"revision": [0, 1.5, True], "expires_at": [-1, "soon"], "key": [5, "a\x00"]},
    "states": {
        "session_id": ["", "x" * 257, None, 5, "a\nb"],
        "data": [None, [], "x"],
        "version": [0, -1, 1.5, "1", None],
        "created_at": [None, "x", 1e300],
        "expires_at": ["x", -5],
    },
    "memories": {
        "id": [0, -1, 2**60, "1", 1.0, None],
        "content": ["", None, 5, ["x"]],
        "metadata": [None, [], "x"],
        "collection": ["", None, 5, "x" * 129],
        "session_id": ["", 5, "x" * 257],
        "history": [None, {}, [5], [{"content": "x"}], [{"content": 5, "metadata": {}}]],
        "model": [5, "x", [], ["x"], ["x", 0], ["x", 10**9], ["x", "256"], [5, 256], None],
        "vectors": [
            *(None, [], {"0": 5}, {"0": ""}, {"0": "AAAA"}, {"0": "!"}, {"x": "AAAA"}),
            {"0": base64.b64encode(array("f", [float("nan")] * 256)).decode()},
            {"0": base64.b64encode(array("f", [float("inf")] * 256)).decode()},
            {"0": base64.b64encode(bytes(1024)).decode()},
            {"4096": base64.b64encode(array("f", [1.0] * 256)).decode()},
            {"-1": base64.b64encode(array("f", [1.0] * 256)).decode()},
            {"1" * 30: base64.b64encode(array("f", [1.0] * 256)).decode()},
        ],
    },
    "episodes": {
        "id": [0, None, "x", 2**60],
        "session_id": ["", None, 5],
        "type": ["", None, 5],
        "content": [None, 5, []],
        "metadata": [None, []],
        "created_at": [None, 1e300],
    },
}


@pytest.mark.parametrize("kind", NEVER)
def test_records_that_the_server_would_never_have_written(exported, kind):
    with zipfile.ZipFile(exported) as file:
        path = next(name for name in file.namelist() if kind in name and file.read(name))
        records = [json.loads(line) for line in file.read(path).split(b"\n")[:-1]]
    for record in records:
        archived.check_record(kind, record)
    record = records[0]
    for field, values in NEVER[kind].items():
        for value in values:
            with pytest.raises(Damaged):
                archived.check_record(kind, {**record, field: value})
    for field in archived.FIELDS[kind]:
        with pytest.raises(Damaged):
            archived.check_record(kind, {name: record[name] for name in record if name != field})


def test_a_forged_archive_without_a_fault_is_taken(exported, tmp_path):
    """Or else the test above would prove nothing."""
    forged(exported, tmp_path / "forged.zip", lambda *_: None)
    assert import_(tmp_path / "data", tmp_path / "forged.zip")["tenant"] == "acme"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_in_another_way(exported, target, tmp_path, compression):
    forged(exported, tmp_path / "forged.zip", lambda *_: None, compression=compression)
    refused(tmp_path / "forged.zip", target)


def test_a_member_that_stands_there_twice(exported, target, tmp_path):
    file = tmp_path / "twice.zip"
    forged(exported, file, lambda *_: None)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as target_file:
        name = target_file.namelist()[0]
        with pytest.warns(UserWarning, match="Duplicate"):
            target_file.writestr(name, b"")
    content = file.read_bytes()[:-64]
    file.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    refused(file, target)


def test_bytes_are_counted_anew(exported, tmp_path):
    """An archive that understates what it holds would get around the limits of a tier."""
    forged(exported, tmp_path / "forged.zip", with_record(bytes=0))
    data = tmp_path / "data"
    import_(data, tmp_path / "forged.zip")
    import_(tmp_path / "other", exported)
    held = [
        operator_of(each, lambda it: it.list_tenants())[0]["bytes"]
        for each in (data, tmp_path / "other")
    ]
    assert held[0] == held[1]


def test_a_bomb_is_cut_off(target, tmp_path):
    """64 MB of nothing in 64 kB, as a record and as the manifest: neither is read whole."""
    for name in ("manifest.json", "namespaces/0/entries.jsonl"):
        file = tmp_path / "bomb.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
            with bomb.open(name, "w", force_zip64=True) as out:
                for _ in range(64):
                    out.write(b" " * 1_048_576)
            bomb.comment = b"0" * 64
        content = file.read_bytes()[:-64]
        file.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
        refused(file, target)


# An import that dies.


def test_what_a_dead_import_left_is_cleared(exported, tmp_path):
    data = tmp_path / "data"
    make_tenant(data, "somebody")
    import_(data, exported)
    id = operator_of(data, lambda it: it.show_tenant("acme"))["id"]
    for place in (data / ".import-0123456789ab", data / "tenants" / "feedfeedfeedfeed"):
        place.mkdir()
        (place / staging.MARK).touch()
        (place / "half.db").write_text("wombat-text")
    # Became a tenant, and died before it could say so.
    (data / "tenants" / id / staging.MARK).touch()
    # Somebody else's business.
    (data / "tenants" / "unmarked").mkdir()
    (data / "tenants" / "unmarked" / "kept.db").write_text("kept")
    files = namespace_files(data)
    with InProcess(data):
        pass
    assert list(files_with(data, "wombat-text", "feedfeed", ".import")) == []
    assert namespace_files(data) == [file for file in files if file.name != "half.db"]
    assert (data / "tenants" / "unmarked" / "kept.db").exists()


def test_an_import_under_way_is_left_alone(tmp_path):
    data = tmp_path / "data"
    make_tenant(data, "somebody")
    with staging.staging(data) as place:
        (place / "half.db").write_text("x")
        with InProcess(data):
            pass
        assert (place / "half.db").exists()
    assert not place.exists()


@pytest.mark.parametrize("moment", ["building", "built"])
def test_an_import_killed_leaves_nothing(exported, tmp_path, moment):
    """kill -9 at the worst moments, and the next start clears up."""
    data = tmp_path / "data"
    make_tenant(data, "somebody")
    fault = {
        "building": "archive._build_file = lambda *_: os.kill(os.getpid(), 9)",
        "built": "records.add_built = lambda *_: os.kill(os.getpid(), 9)",
    }[moment]
    code = (
        "import os, sys\nfrom botwire_server.store import archive, records\n"
        f"from botwire_server.cli import main\n{fault}\nmain()"
    )
    run = command("tenants", "import", str(exported), "--data-dir", str(data))
    run["args"] = [sys.executable, "-c", code, *run["args"][3:]]
    assert subprocess.run(**run, capture_output=True, check=False).returncode == -9
    assert list(files_with(data, staging.MARK))
    with InProcess(data):
        pass
    assert list(files_with(data, staging.MARK)) == []
    assert [row["tenant"] for row in operator_of(data, lambda it: it.list_tenants())] == [
        "somebody"
    ]
    assert namespace_files(data) == []
    assert import_(data, exported)["tenant"] == "acme"


# While others write.


def test_an_export_while_writers_run_is_one_moment_of_each_namespace(tmp_path):
    """Two entries that are always written one after the other are never apart by more than one."""
    with Keyed(tmp_path / "data", durability="relaxed") as office:
        key = office.tenant("acme")
        done = threading.Event()
        errors: list[int] = []

        def write(namespace):
            client = office.client(key)
            number = 0
            while not done.is_set():
                number += 1
                for each in ("first", "second"):
                    answer = client.put(f"/memory/{namespace}/{each}", json={"value": number})
                    if answer.status_code != 200:
                        errors.append(answer.status_code)
                client.put(f"/memory/{namespace}/log-{number}", json={"value": number})

        threads = [threading.Thread(target=write, args=(f"n{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for attempt in range(3):
                file = tmp_path / f"{attempt}.zip"
                while len(namespace_files(office.data)) < 4:
                    pass
                cli_json(office.data, "tenants", "export", "acme", str(file))
                import_(office.data, file, f"copy-{attempt}")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert errors == []
        for attempt in range(3):
            client = office.client(office.key(f"copy-{attempt}")["key"])
            for number in range(4):
                base = f"/memory/n{number}"
                keys = client.get(base).json()["keys"]
                values = [
                    client.get(f"{base}/{each}").json().get("value", 0)
                    for each in ("first", "second")
                ]
                logs = max((int(key[4:]) for key in keys if key.startswith("log-")), default=0)
                assert values[0] - values[1] in (0, 1)
                assert values[1] - logs in (0, 1)
                assert len(keys) == logs + sum(value > 0 for value in values)


# A large tenant.

RECORDS = 100_000
MOST_BYTES = 150_000_000


def many_records(data: Path) -> None:
    """A tenant with so many entries, written past the server."""
    make_tenant(data, "large")

    async def make():
        directory = await DataDirectory.open(
            data, durability="relaxed", clock=time.time, most_open=8
        )
        tenant = directory.registry.tenant("large")
        for name, count in (("big", RECORDS - 1_000), ("small", 1_000)):
            row = await directory.create(tenant, name, most=0)
            namespace = await directory.pool.open(row)
            await namespace.transact(fill, count)
        await directory.close()

    asyncio.run(make())


def fill(connection, count):
    connection.executemany(
        """INSERT INTO entries (revision, key, value, bytes, created_at, updated_at)
        VALUES (?, ?, ?, ?, ?, ?)""",
        (
            (n, f"key-{n}", orjson.dumps({"n": n, "text": f"{n} " * 40}), 200, 1e9 + n, 1e9 + n)
            for n in range(1, count + 1)
        ),
    )
    connection.execute("UPDATE totals SET revision = ?", (count,))


def run_on_a_terminal(data: Path, *arguments: str) -> tuple[str, int]:
    """Run a command whose stderr is a terminal; what it drew, and its peak memory in bytes."""
    controller, terminal = pty.openpty()
    run = command(*arguments, "--data-dir", str(data))
    # What wait4 tells of a process includes the one that forked it.
    code = """from botwire_server.cli import main
main()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    run["args"] = [sys.executable, "-c", code, *run["args"][3:]]
    process = subprocess.Popen(**run, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    drawn = b""
    with contextlib.suppress(OSError):  # what reading raises once the other side is gone
        while part := os.read(controller, 65_536):
            drawn += part
    os.close(controller)
    said, _ = process.communicate()
    assert process.returncode == 0, drawn
    return drawn.decode(), int(re.search(r"VmHWM:\s+(\d+) kB", said)[1]) * 1024


def test_100000_records_with_little_memory_and_progress(tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    many_records(data)
    file = str(tmp_path / "large.zip")
    for where, arguments in [
        (data, ["tenants", "export", "large", file]),
        (other, ["tenants", "import", file]),
    ]:
        drawn, peak = run_on_a_terminal(where, *arguments)
        steps = [int(done) for done in re.findall(rf"(\d+)/{RECORDS}\b", drawn)]
        assert f"{arguments[1]}ing" in drawn
        assert len(set(steps)) > 5 and RECORDS in steps
        assert peak < MOST_BYTES, f"{peak:,}"
        print(f"{arguments[1]}: {peak / 1e6:.0f} MB")
    key = operator_of(other, lambda it: it.create_key("large"))["key"]
    with (
        InProcess(other) as server,
        httpx.Client(base_url=server.url, headers=bearer(key)) as client,
    ):
        assert client.get("/stats/memory").json()["total_entries"] == RECORDS
        for number in (1, 12_345, RECORDS - 1_000):
            value = client.get(f"/memory/big/key-{number}").json()["value"]
            assert value == {"n": number, "text": f"{number} " * 40}


def test_a_namespace_that_was_never_written_to_is_exported(tmp_path):
    """It is a draft still: known to the registry, and with nothing in it."""
    data = tmp_path / "data"
    make_tenant(data, "acme")

    async def make():
        directory = await DataDirectory.open(data, durability="full", clock=time.time, most_open=8)
        await directory.create(directory.registry.tenant("acme"), "draft", most=0)
        await directory.close()

    asyncio.run(make())
    file = tmp_path / "acme.zip"
    assert cli_json(data, "tenants", "export", "acme", str(file))["namespaces"] == 1
    import_(data, file, "copy")
    [row] = operator_of(data, lambda it: it.list_namespaces("copy"))
    assert (row["namespace"], row["entries"]) == ("draft", 0)


def test_a_namespace_whose_file_is_missing_stops_the_export(tmp_path):
    data = tmp_path / "data"
    make_tenant(data, "acme")
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        key = operator_of(data, lambda it: it.create_key("acme"))["key"]
        client.put("/memory/n/k", json={"value": "v"}, headers=bearer(key))
    [file] = namespace_files(data)
    shutil.move(file, tmp_path / "away")
    refused = cli(data, "tenants", "export", "acme", str(tmp_path / "x.zip"), expect=1)
    assert "missing" in refused.stderr
    assert not (tmp_path / "x.zip").exists()
    assert [each for each in os.listdir(tmp_path) if each.startswith(".")] == []


def test_every_kind_of_record_has_a_round_trip():
    """Whoever adds a kind adds it to these tests."""
    assert set(archive.KINDS) == set(archived.FIELDS)
    assert set(archive.KINDS) == {"entries", "states", "memories", "episodes"}
