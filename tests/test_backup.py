"""Backups: what is copied, what is not, what stays, and what is told of what is not sound."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from backing_up import Contents, fill, held, objects, sound
from serving import namespace_files, query
from tenancy import Keyed, cli, cli_json, files_with

from botwire_server.store import backup, generations
from botwire_server.store.backup import write
from botwire_server.store.driver import connect
from botwire_server.store.installation import Own
from botwire_server.store.places import Directory
from botwire_server.store.pool import DRAFT

FIRST: Contents = {
    "acme": {"north": {"a": "one", "b": "two"}, "south": {"a": "three"}},
    "globex": {"north": {"a": "theirs"}},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of two tenants, nobody serving."""
    fill(tmp_path / "data", FIRST)
    return tmp_path / "data"


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Where to back up to; not there yet."""
    return tmp_path / "mounted" / "backup"


def back_up(data: Path, dest: Path, *options: str, expect: int = 0) -> dict:
    return json.loads(cli(data, "backup", str(dest), "--json", *options, expect=expect).stdout)


def restore(data: Path, dest: Path, *options: str, expect: int = 0) -> str:
    if not data.exists() and expect == 0:  # an empty place: the answer is yes
        options = (*options, "--yes")
    return cli(data, "restore", str(dest), *options, expect=expect).stderr


def file_of(data: Path, tenant: str, namespace: str) -> Path:
    [[file]] = query(
        data / "control.db",
        "SELECT file FROM namespaces n JOIN tenants t ON t.id = tenant_id"
        " WHERE t.name = ? AND n.name = ?",
        tenant,
        namespace,
    )
    return data / file


def test_what_was_backed_up_is_restored(data, dest, tmp_path):
    done = back_up(data, dest)
    assert (done["tenants"], done["namespaces"], done["copied"]) == (2, 3, 3)
    assert done["damaged"] == []
    other = tmp_path / "other"
    restore(other, dest)
    assert held(other) == FIRST
    sound(other)
    # Keys go with it.
    keys = "SELECT id, hash FROM keys ORDER BY id"
    assert query(other / "control.db", keys) == query(data / "control.db", keys)


def test_only_its_owner_may_read_a_backup(data, dest):
    back_up(data, dest)
    for path in [dest, *dest.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_only_what_changed_is_copied(data, dest, tmp_path):
    back_up(data, dest)
    before = objects(dest)
    assert back_up(data, dest)["copied"] == 0
    fill(data, {"acme": {"north": {"c": "new"}}})
    assert back_up(data, dest)["copied"] == 1
    assert back_up(data, dest, "--full")["copied"] == 3
    after = objects(dest)
    assert {path: after[path] for path in before} == before  # no object ever changes
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other")["acme"]["north"] == {**FIRST["acme"]["north"], "c": "new"}


@pytest.mark.parametrize("how", ["put", "overwrite", "delete"])
def test_every_change_is_one(data, dest, tmp_path, how):
    """Also one that leaves the size, and the time of the file, as they were."""
    back_up(data, dest)
    with Keyed(data) as server:
        client = server.client(str(server.key("acme")["key"]))
        if how == "delete":
            assert client.delete("/memory/north/a").is_success
        else:
            body = {"value": "ONE"}
            path = f"/memory/north/{'new' if how == 'put' else 'a'}"
            assert client.put(path, json=body).is_success
        assert back_up(data, dest)["copied"] == 1
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other") == held(data)


def test_generations_are_kept_and_objects_nobody_needs_are_removed(data, dest):
    for number in range(5):
        fill(data, {"acme": {"north": {"a": f"text number {number}"}}})
        done = back_up(data, dest, "--keep", "2")
    assert done["generations"] == 2
    listed = cli_json_of(dest)
    assert [each["scope"] for each in listed] == ["everything"] * 2
    assert listed[0]["generation"] == done["generation"]
    # south and globex's once, north twice, a registry and a manifest for each generation.
    assert len(objects(dest)) == 2 + 2 + 2 + 2
    assert list(files_with(dest, "text number 3"))
    assert not list(files_with(dest, "text number 2"))


def cli_json_of(dest: Path) -> list[dict]:
    # `backups` needs no data directory.
    import io
    from contextlib import redirect_stdout

    from botwire_server.cli import cli as command

    out = io.StringIO()
    with redirect_stdout(out):
        command(["backups", str(dest), "--json"], standalone_mode=False)
    return json.loads(out.getvalue())


def test_an_older_generation_can_be_restored(data, dest, tmp_path):
    first = back_up(data, dest)["generation"]
    fill(data, {"acme": {"north": {"a": "changed"}, "west": {"a": "new"}}})
    back_up(data, dest)
    restore(tmp_path / "other", dest, "--generation", first)
    assert held(tmp_path / "other") == FIRST


def test_what_a_restored_file_says_is_not_taken_for_what_an_earlier_one_said(data, dest, tmp_path):
    """The same namespace at the same revision, with another history: it is copied."""
    first = back_up(data, dest)["generation"]
    fill(data, {"acme": {"north": {"c": "before"}}})
    back_up(data, dest)
    restore(data, dest, "--generation", first, "--yes")
    fill(data, {"acme": {"north": {"c": "after!"}}})
    assert back_up(data, dest)["copied"] == 3
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other")["acme"]["north"]["c"] == "after!"


def test_one_tenant_alone(data, dest, tmp_path):
    """Nothing of another tenant is in it, nor an operator's key."""
    cli_json(data, "keys", "create", "--operator", "--label", "label-lemur")
    done = back_up(data, dest, "--tenant", "acme")
    assert (done["tenants"], done["namespaces"], done["scope"]) == (1, 2, "tenant")
    [theirs] = query(data / "control.db", "SELECT id FROM tenants WHERE name = 'globex'")
    assert not list(files_with(dest, "globex", "theirs", "label-lemur", theirs[0]))
    assert "no generation of everything" in restore(tmp_path / "other", dest, expect=1)
    restore(tmp_path / "other", dest, "--tenant", "acme")
    assert held(tmp_path / "other") == {"acme": FIRST["acme"]}
    assert "does not hold" in restore(tmp_path / "other", dest, "--tenant", "globex", expect=1)
    assert "no such tenant" in cli(data, "backup", str(dest), "--tenant", "x", expect=1).stderr


def test_a_tenants_backup_shares_objects_and_keeps_its_own_count(data, dest):
    back_up(data, dest)
    for _ in range(3):
        assert back_up(data, dest, "--tenant", "acme", "--keep", "1")["copied"] == 0
    assert sorted(each["scope"] for each in cli_json_of(dest)) == ["everything", "tenant"]


def test_a_namespace_that_was_never_written_to(data, dest, tmp_path):
    """Its file is a draft, and it is restored as an empty one."""
    file = file_of(data, "acme", "south")
    with closing(connect(file)) as connection:
        connection.execute("DELETE FROM entries")
    file.rename(file.with_name(file.name + DRAFT))
    back_up(data, dest)
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other")["acme"]["south"] == {}
    sound(tmp_path / "other")


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "anothers"])
def test_what_is_damaged_is_named_and_its_last_good_copy_kept(data, dest, tmp_path, damage):
    back_up(data, dest)
    for _ in range(9):  # many more than are kept
        fill(data, {"globex": {"north": {"a": "changed"}}})
    file = file_of(data, "acme", "north")
    if damage == "missing":
        file.unlink()
    elif damage == "anothers":
        file.write_bytes(file_of(data, "globex", "north").read_bytes())
    else:
        file.write_bytes(b"" if damage == "empty" else b"garbage" * 3_000)
    for _ in range(3):
        failed = cli(data, "backup", str(dest), "--json", "--keep", "2", expect=1)
        assert "acme/north" in failed.stderr
        done = json.loads(failed.stdout)
        [told] = done["damaged"]
        assert (told["tenant"], told["namespace"], told["kept"]) == ("acme", "north", True)
    message = restore(tmp_path / "other", dest)
    assert "acme/north is as of" in message
    found = held(tmp_path / "other")
    assert found["acme"] == FIRST["acme"]
    assert found["globex"]["north"] == {"a": "changed"}


def test_what_was_damaged_from_the_beginning_stays_so(data, dest, tmp_path):
    """It is named, and not an empty namespace after a restore; a tenant's own is left alone."""
    file_of(data, "acme", "north").write_bytes(b"garbage" * 3_000)
    assert back_up(data, dest, expect=1)["damaged"][0]["kept"] is False
    assert "is not in the backup" in restore(tmp_path / "other", dest)
    with Keyed(tmp_path / "other") as server:
        client = server.client(str(server.key("acme")["key"]))
        assert client.get("/memory/north/a").status_code == 503
        assert client.get("/memory/south/a").json()["value"] == "three"
    restore(data, dest, "--tenant", "acme", "--yes")
    assert file_of(data, "acme", "north").read_bytes() == b"garbage" * 3_000


def test_what_is_purged_meanwhile_is_left_out(data, dest, tmp_path, monkeypatch):
    original = backup._copy_sound

    def purging(work, known, earlier):
        if known.row.name == "south":
            cli(data, "namespaces", "purge", "acme", "south", "--yes", process=True)
            cli(data, "tenants", "purge", "globex", "--yes", process=True)
        return original(work, known, earlier)

    monkeypatch.setattr(backup, "_copy_sound", purging)
    done = back_up(data, dest)
    assert (done["tenants"], done["namespaces"], done["damaged"]) == (1, 1, [])
    assert not list(files_with(dest, "globex", "south"))
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other") == {"acme": {"north": FIRST["acme"]["north"]}}


def test_what_is_restored_meanwhile_is_copied_from_its_new_file(data, dest, tmp_path, monkeypatch):
    back_up(data, dest)
    original = backup._copy_sound
    times = []

    def restoring(work, known, earlier):
        if not times:
            times.append(1)
            cli(data, "restore", str(tmp_path / "copy"), "--tenant", "acme", "--yes", process=True)
        return original(work, known, earlier)

    back_up(data, tmp_path / "copy")
    monkeypatch.setattr(backup, "_copy_sound", restoring)
    assert back_up(data, dest)["damaged"] == []
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other") == FIRST


def test_two_at_once_do_not_meet(data, dest):
    place = Directory(dest)
    with place.locked():
        failed = cli(data, "backup", str(dest), expect=1)
    assert "Another command" in failed.stderr

    own = Own("0123456789abcdef", frozenset())

    def once(_: int) -> bool:
        try:
            write(Directory(dest), data, own=own, progress=lambda done, total: None)
        except Exception as error:
            assert "Another command" in str(error)
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(once, range(4)))
    restore(data, dest, "--yes", "--from-installation", "0123456789abcdef")
    assert held(data) == FIRST


def test_a_backup_cut_short_leaves_the_former_one(data, dest, tmp_path, monkeypatch):
    back_up(data, dest)
    fill(data, {"acme": {"north": {"a": "changed"}}})

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generations, "write", dies)
        cli(data, "backup", str(dest), expect=130)
    assert len(cli_json_of(dest)) == 1
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other") == FIRST
    # What it left is cleared away by the next.
    back_up(data, dest)
    assert not list(dest.glob(".part-*"))
    assert len(objects(dest)) == 4 + 2 + 2


def test_a_manifest_that_is_damaged_is_told_and_nothing_is_removed(data, dest):
    back_up(data, dest)
    [manifest] = dest.glob("generations/*")
    manifest.write_bytes(manifest.read_bytes().replace(b'"bytes":', b'"bytes":1', 1))
    before = objects(dest)
    done = back_up(data, dest, "--keep", "1", expect=1)
    assert done["unreadable"] == [manifest.stem]
    assert before.items() <= objects(dest).items()
    assert [each["scope"] for each in cli_json_of(dest)] == ["everything", "unreadable"]


def test_a_data_directory_that_is_not_there_is_not_made_and_backed_up(data, dest, tmp_path):
    back_up(data, dest)
    message = cli(tmp_path / "typo", "backup", str(dest), expect=1).stderr
    assert "nothing to back up" in message
    assert not (tmp_path / "typo").exists()
    assert len(cli_json_of(dest)) == 1


def test_the_audit_tells(data, dest):
    done = back_up(data, dest)
    back_up(data, dest, "--tenant", "acme")
    lines = cli_json(data, "audit")
    told = [(each["action"], each["tenant"], each["outcome"]) for each in lines[-2:]]
    assert told == [
        ("backup", None, "3 namespaces, 3 copied"),
        ("backup", "acme", "2 namespaces, 0 copied"),
    ]
    assert lines[-2]["subject"] == done["generation"]


def test_ids_of_generations_go_forward():
    first = generations.new_id([])
    later = "29991231T235959.999Z-0000"
    assert generations.new_id([first]) > first
    assert generations.new_id([later]) > later
    assert generations.new_id([later]).startswith("30000101T000000.000Z")


def test_a_source_is_left_as_it_was(data, dest):
    """No journal lies beside it afterwards that would look like a crash."""
    before = {file: file.read_bytes() for file in namespace_files(data)}
    back_up(data, dest)
    assert {file: file.read_bytes() for file in namespace_files(data)} == before
    assert list(data.rglob("*-wal")) == []
