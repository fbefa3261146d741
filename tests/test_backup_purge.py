"""Purging a tenant from backups: no name, key or text of it is left, and the others are whole."""

from __future__ import annotations

import threading

import pytest
from backing_up import fill, held, objects
from serving import query
from tenancy import cli, cli_json, files_with
from test_backup import FIRST, back_up, cli_json_of, data, dest, restore

from botwire_server.store import backup_purge, generations
from botwire_server.store.places import Directory

__all__ = ["data", "dest"]  # fixtures

WORDS = ["zebra", "quokka", "wombat", "yak-label", "purgeme"]


@pytest.fixture
def backed_up(data, dest):
    """Three generations with a tenant that is to go, one of them its own."""
    fill(data, {"purgeme": {"zebra-ns": {"quokka-key": "wombat text"}, "zebra-two": {"k": "v"}}})
    cli(data, "keys", "create", "purgeme", "--label", "yak-label")
    back_up(data, dest)
    cli(data, "namespaces", "purge", "purgeme", "zebra-two", "--yes")
    back_up(data, dest, "--tenant", "purgeme")
    fill(data, {"purgeme": {"zebra-ns": {"quokka-key": "wombat again"}}})
    back_up(data, dest)
    return data


def needles(data):
    rows = query(
        data / "control.db",
        "SELECT hash FROM keys JOIN tenants t ON t.id = tenant_id WHERE t.name = 'purgeme'",
    )
    [[id]] = query(data / "control.db", "SELECT id FROM tenants WHERE name = 'purgeme'")
    return [*WORDS, *(digest for [digest] in rows), f"tenants/{id}"]


def test_nothing_of_it_is_left(backed_up, dest, tmp_path):
    sought = needles(backed_up)
    for needle in sought:
        assert list(files_with(dest, needle)), needle
    receipt = cli_json(backed_up, "tenants", "purge", "purgeme", "--yes", "--backup", str(dest))
    assert receipt["backups"] == [{"backup": str(dest), "generations": 3, "objects": 4}]
    assert receipt["namespaces"] == 1
    assert list(files_with(dest, *sought)) == []
    assert list(files_with(backed_up, *sought)) == []
    assert [each["scope"] for each in cli_json_of(dest)] == ["everything"] * 2
    for each in cli_json_of(dest):
        other = tmp_path / each["generation"]
        restore(other, dest, "--generation", each["generation"])
        assert held(other) == FIRST
    lines = [each["action"] for each in cli_json(backed_up, "audit")]
    assert lines[-2:] == ["purge tenant", "purge backup"]
    # Backups go on, and copy nothing anew.
    assert back_up(backed_up, dest)["copied"] == 0


def test_one_that_was_purged_before_goes_by_its_id(backed_up, dest, tmp_path):
    sought = needles(backed_up)
    back_up(backed_up, tmp_path / "second")
    receipt = cli_json(backed_up, "tenants", "purge", "purgeme", "--yes")
    assert list(files_with(dest, "wombat"))
    places = ["--backup", str(dest), "--backup", str(tmp_path / "second")]
    for _ in range(2):  # safe to repeat
        done = cli_json(backed_up, "tenants", "purge", receipt["tenant_id"], "--yes", *places)
        assert [each["backup"] for each in done["backups"]] == places[1::2]
    for place in (dest, tmp_path / "second"):
        assert list(files_with(place, *sought)) == []
    assert (
        "no such tenant"
        in cli(backed_up, "tenants", "purge", "0" * 16, "--yes", *places, expect=1).stderr
    )


def test_a_backup_that_is_not_there_stops_it_before_it_begins(backed_up, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    failed = cli(backed_up, "tenants", "purge", "purgeme", "--yes", "--backup", nowhere, expect=1)
    assert "holds no backup" in failed.stderr
    assert "purgeme" in held(backed_up)


def test_it_needs_a_yes(backed_up, dest):
    failed = cli(backed_up, "tenants", "purge", "purgeme", "--backup", str(dest), expect=1)
    assert "Nothing was removed" in failed.stderr
    assert "purgeme" in held(backed_up)
    assert list(files_with(dest, "wombat"))


@pytest.mark.parametrize("what", ["generations/*", "control/*"])
def test_what_cannot_be_read_is_told_and_the_rest_goes(backed_up, dest, what):
    path = sorted(dest.glob(what))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    purge = ["tenants", "purge", "purgeme", "--yes", "--backup", str(dest)]
    failed = cli(backed_up, *purge, expect=1)
    generation = cli_json_of(dest)[-1]["generation"]
    assert generation in failed.stderr and "cannot be read" in failed.stderr
    assert not list(files_with(dest, "wombat"))
    (dest / "generations" / f"{generation}.json").unlink()
    [[id]] = query(backed_up / "control.db", "SELECT tenant_id FROM purges WHERE scope = 'tenant'")
    cli(backed_up, "tenants", "purge", id, "--yes", "--backup", str(dest))
    assert list(files_with(dest, *WORDS)) == []


@pytest.mark.parametrize("after", range(4))
def test_one_that_was_cut_short_can_be_repeated(backed_up, dest, monkeypatch, tmp_path, after):
    """Every generation is whole at any moment, with the tenant or without."""
    sought = needles(backed_up)
    place = Directory(dest)
    [[id]] = query(backed_up / "control.db", "SELECT id FROM tenants WHERE name = 'purgeme'")
    taken = []

    def dying(original):
        def call(*args):
            if len(taken) == after:
                raise KeyboardInterrupt
            taken.append(original)
            return original(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(generations, "write", dying(generations.write))
        patch.setattr(Directory, "remove", dying(Directory.remove))
        with pytest.raises(KeyboardInterrupt):
            backup_purge.purge(place, backed_up, id)
    for each in cli_json_of(dest):
        if each["scope"] == "everything":
            other = tmp_path / each["generation"]
            restore(other, dest, "--generation", each["generation"])
            assert {name: held(other)[name] for name in FIRST} == FIRST
    cli(backed_up, "tenants", "purge", "purgeme", "--yes", "--backup", str(dest))
    assert list(files_with(dest, *sought)) == []


def test_it_waits_for_a_backup_that_is_under_way(backed_up, dest):
    with Directory(dest).locked():
        threads = [
            threading.Thread(
                target=cli,
                args=(backed_up, "tenants", "purge", "purgeme", "--yes", "--backup", str(dest)),
                kwargs={"process": True},
            )
        ]
        before = objects(dest)
        threads[0].start()
        threads[0].join(1.5)
        assert threads[0].is_alive()
        assert objects(dest) == before
    threads[0].join()
    assert list(files_with(dest, *WORDS)) == []
