"""Whose backup it is: where one may lie, whose generations are pruned and restored, whose keys
work, and that nothing is believed because it stands in a file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import strangers
from backing_up import fill, held, objects, sound
from serving import command, namespace_files, query
from tenancy import Keyed, cli, cli_json, operator_of
from test_backup import FIRST, back_up, cli_json_of, data, dest, file_of, restore

from botwire_server.store import driver, provenance
from botwire_server.store.driver import connect
from botwire_server.store.places import MARKER

__all__ = ["data", "dest"]  # fixtures


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another server's data directory."""
    fill(tmp_path / "theirs", {"initech": {"secrets": {"a": "SECRET"}}})
    return tmp_path / "theirs"


def everything(root: Path) -> dict[str, bytes]:
    """All that lies in a directory, links and empty directories too, but for the lock."""
    return {
        str(path.relative_to(root)): (
            os.readlink(path).encode()
            if path.is_symlink()
            else b"/"
            if path.is_dir()
            else path.read_bytes()
        )
        for path in sorted(root.rglob("*"))
        if path.name != "lock"
    }


def id_of(data: Path) -> str:
    [[id]] = query(data / "control.db", "SELECT value FROM facts WHERE name = 'installation'")
    return str(id)


def working(data: Path) -> list[tuple[str | None, str]]:
    """The keys that work, with their tenants."""
    return [
        (each["tenant"], each["id"])
        for each in cli_json(data, "keys", "list")
        if each["revoked_at"] is None
    ]


# Where a backup lies.


def wrong_places(data: Path, other: Path, tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "link-inside").symlink_to(data / "tenants")
    return {
        "its own": data,
        "another's": other,
        "through a link": tmp_path / "link",
        "inside": data / "tenants",
        "inside, to be made": data / "backups" / "daily",
        "inside, through a link": tmp_path / "link-inside",
        "inside another's": other / "backups",
        "holds it": tmp_path,
        "holds another's": other.parent,
        "by a detour": data / ".." / data.name,
    }


@pytest.mark.parametrize("verb", ["backup", "restore", "verify", "purge"])
def test_a_place_that_has_to_do_with_a_data_directory_is_refused(data, dest, other, tmp_path, verb):
    back_up(data, dest)
    before = everything(data), everything(other)
    for name, place in wrong_places(data, other, tmp_path).items():
        arguments = {
            "backup": ["backup", place],
            "restore": ["restore", place, "--yes"],
            "verify": ["restore", place, "--verify"],
            "purge": ["tenants", "purge", "acme", "--yes", "--backup", place],
        }[verb]
        failed = cli(data, *arguments, expect=1)
        assert "data directory" in failed.stderr, name
        assert (everything(data), everything(other)) == before, name


def test_a_data_directory_that_lost_its_registry_is_one(data, other, tmp_path):
    (other / "control.db").unlink()
    before = everything(other)
    assert "is a data directory" in cli(data, "backup", str(other), expect=1).stderr
    assert everything(other) == before


def test_a_backup_is_not_restored_over_itself(data, dest):
    back_up(data, dest)
    before = everything(dest)
    for place in (dest, dest / "inner", dest.parent):
        assert "data directory" in restore(place, dest, "--yes", expect=1)
    assert everything(dest) == before


@pytest.mark.parametrize("place", ["", " ", "s3:/bucket/prefix", "S3://b/p", "file:///tmp/x"])
def test_a_place_that_is_none(data, tmp_path, monkeypatch, place):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for arguments in (["backup", place], ["restore", place, "--yes"]):
        message = cli(data, *arguments, expect=1).stderr
        assert "name a directory" in message
    assert list((tmp_path / "here").iterdir()) == []


# What else lies there.

FOREIGN = {
    ".DS_Store": b"x",
    "README": b"read me",
    "@eaDir/SYNO@.fileindex.db": b"x",
    "lost+found/#12345": b"x",
    "control/.DS_Store": b"x",
    "control/control.db": b"x",
    "generations/.DS_Store": b"x",
    "generations/notes.json": b"{}",
    "generations/@eaDir/x.json": b"{}",
    "tenants/README": b"x",
    "tenants/@eaDir/x.db": b"x",
    "tenants/0123456789abcdef/notes.db": b"x",
    "tenants/0123456789abcdef/.DS_Store": b"x",
    ".part-of-something/file": b"x",
}


def put(dest: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (dest / name).write_bytes(content)


@pytest.mark.parametrize("when", ["before", "after"])
def test_foreign_files_are_left_alone(data, dest, tmp_path, when):
    if when == "after":
        back_up(data, dest)
    put(dest, FOREIGN)
    (dest / "tenants" / "fedcba9876543210").symlink_to(tmp_path)
    if when == "after":
        [tenant] = list(dest.glob("tenants/*/*.db"))[:1]
        put(tenant.parent, {".DS_Store": b"x", "lost+found/x": b"x"})
    for number in range(3):
        fill(data, {"acme": {"north": {"a": str(number)}}})
        back_up(data, dest, "--keep", "1")
    restore(tmp_path / "new", dest)
    cli(data, "tenants", "purge", "acme", "--yes", "--backup", str(dest))
    found = {name: (dest / name).read_bytes() for name in FOREIGN}
    assert found == FOREIGN
    assert (dest / "tenants" / "fedcba9876543210").is_symlink()


def test_what_a_backup_that_was_cut_short_left_goes(data, dest):
    """Also where no manifest names it: what was purged since may be in it."""
    back_up(data, dest)
    [tenant] = list(dest.glob("tenants/*/*.db"))[:1]
    left = [
        tenant.with_name(f"{tenant.name[:15]}-20200101T000000.000Z-abcd.db"),
        dest / "control" / "control-20200101T000000.000Z-abcd-012345.db",
        dest / ".part-0123456789ab" / "control.db",
        dest / ".part-0123456789ab" / f"{tenant.name[:15]}.db-wal",
    ]
    put(Path("/"), {str(file): b"quokka" for file in left})
    back_up(data, dest)
    assert not [file for file in left if file.exists()] and not list(dest.glob(".part*"))


def test_scratch_with_something_foreign_keeps_that(data, dest):
    back_up(data, dest)
    put(dest, {".part-0123456789ab/mine": b"x", ".part-0123456789ab/control.db": b"x"})
    back_up(data, dest)
    assert [path.name for path in (dest / ".part-0123456789ab").iterdir()] == ["mine"]


@pytest.mark.parametrize("way", ["control", "generations", "tenants", "lock"])
@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_in_the_way_is_named(data, dest, tmp_path, way, kind):
    (tmp_path / "elsewhere").mkdir()
    dest.mkdir(parents=True)
    if kind == "file" and way != "lock":
        (dest / way).write_bytes(b"x")
    elif kind == "link":
        (dest / way).symlink_to(tmp_path / "elsewhere")
    elif kind == "directory" and way == "lock":
        (dest / way).mkdir()
    else:
        pytest.skip("that is what belongs there")
    message = cli(data, "backup", str(dest), expect=1).stderr
    assert str(dest / way) in message and "in the way" in message
    assert list((tmp_path / "elsewhere").iterdir()) == []


# Markers.


def test_a_place_is_marked_before_anything_else(data, dest, monkeypatch):
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("botwire_server.store.backup._readable", dies)
        cli(data, "backup", str(dest), expect=130)
    assert json.loads((dest / MARKER).read_bytes())["format"] == "botwire-server backup"
    assert back_up(data, dest)["namespaces"] == 3


def test_a_place_of_before_markers_is_taken_over(data, dest, tmp_path):
    back_up(data, dest)
    strangers.without_ids(dest)
    assert back_up(data, dest)["copied"] == 0
    assert (dest / MARKER).exists()
    assert back_up(data, dest, "--keep", "1")["generations"] == 1  # the old one was its own
    restore(tmp_path / "new", dest)
    assert held(tmp_path / "new") == FIRST


@pytest.mark.parametrize("marker", [None, b"", b"{}", b"[1]", b'{"format": "mine"}', b"x" * 9_000])
def test_a_place_that_cannot_be_told_to_be_ours_is_left_alone(data, dest, marker):
    put(
        dest,
        {
            "tenants/0123456789abcdef/0123456789abcde-20200101T000000.000Z-abcd.db": b"x",
            "generations/20200101T000000.000Z-abcd.json": b"{}",
        }
        | ({} if marker is None else {MARKER: marker}),
    )
    before = everything(dest)
    assert "cannot be told" in cli(data, "backup", str(dest), expect=1).stderr
    assert everything(dest) == before and not (dest / "lock").exists()


# Two servers, one destination.


def test_each_prunes_its_own(data, other, dest, tmp_path):
    first = back_up(data, dest, "--keep", "1")
    for number in range(3):
        fill(other, {"initech": {"secrets": {"a": str(number)}}})
        back_up(other, dest, "--keep", "1")
    back_up(other, dest, "--keep", "1", "--tenant", "initech")
    listed = cli_json_of(dest)
    assert first["generation"] in [each["generation"] for each in listed]
    assert [each["installation"] for each in listed] == [id_of(other)] * 2 + [id_of(data)]
    # Each restores its own, newest or not.
    fill(data, {"acme": {"north": {"a": "LATER"}}})
    done = cli_json(data, "restore", str(dest), "--yes")
    assert (done["generation"], done["installation"]) == (first["generation"], id_of(data))
    assert held(data) == FIRST
    restore(other, dest, "--yes")
    assert held(other)["initech"]["secrets"] == {"a": "2"}
    cli(data, "restore", str(dest), "--tenant", "acme", "--yes")
    assert "does not hold" in restore(data, dest, "--tenant", "initech", "--yes", expect=1)
    for path in (data, other):
        assert cli_json(path, "restore", str(dest), "--verify")["installation"] == id_of(path)


def test_anothers_is_refused_until_it_is_named(data, other, dest):
    back_up(other, dest)
    before = everything(data)
    for how in (["--yes"], ["--tenant", "initech", "--yes"], ["--yes", "--with-keys"]):
        if how[0] == "--tenant":
            message = restore(data, dest, *how, expect=1)
        else:
            message = cli(data, "restore", str(dest), *how, expect=1).stderr
        assert f"--from-installation {id_of(other)}" in message and id_of(data) in message
    assert everything(data) == before
    generation = cli_json_of(dest)[0]["generation"]
    message = restore(data, dest, "--yes", "--generation", generation, expect=1)
    assert "--from-installation" in message
    message = restore(data, dest, "--yes", "--from-installation", "f" * 16, expect=1)
    assert "holds nothing of installation" in message


def test_anothers_keys_stay_off(data, other, dest, tmp_path):
    cli(other, "keys", "create", "--operator")
    back_up(other, dest)
    own, theirs = id_of(data), id_of(other)
    named = ["--yes", "--from-installation", theirs]
    for number, (more, expected) in enumerate(
        [
            ([], []),
            (["--with-keys"], ["initech"]),
            (["--with-operator-keys"], [None]),
            (["--with-keys", "--with-operator-keys"], [None, "initech"]),
        ]
    ):
        place = tmp_path / str(number)
        shutil.copytree(data, place)
        done = cli_json(place, "restore", str(dest), *named, *more)
        assert sorted((tenant or "" for tenant, _ in working(place))) == sorted(
            tenant or "" for tenant in expected
        )
        assert done["keys_off"] == 2 - len(expected)
        assert id_of(place) == own
        assert held(place) == {"initech": {"secrets": {"a": "SECRET"}}}


def test_one_tenant_of_anothers(data, other, dest):
    back_up(other, dest)
    before = working(data)
    cli(data, "restore", str(dest), "--tenant", "initech", "--from-installation", id_of(other))
    assert held(data) == FIRST | {"initech": {"secrets": {"a": "SECRET"}}}
    assert working(data) == before


def test_an_empty_directory_becomes_the_installation(data, dest, tmp_path):
    cli(data, "keys", "create", "--operator")
    back_up(data, dest)
    new = tmp_path / "new"
    message = cli(new, "restore", str(dest), expect=1).stderr
    for told in ("acme", "globex", id_of(data), *(id for tenant, id in working(data) if tenant)):
        assert told in message
    assert "will not: 1" in message and "Nothing was restored" in message
    done = cli_json(new, "restore", str(dest), "--yes")
    assert (id_of(new), done["keys"], done["operator_keys"]) == (id_of(data), 2, 0)
    assert sorted(working(new)) == sorted(each for each in working(data) if each[0])
    shutil.rmtree(new)
    cli(new, "restore", str(dest), "--yes", "--with-operator-keys")
    assert working(new) == working(data)


def test_an_empty_directory_and_a_place_of_several(data, other, dest, tmp_path):
    back_up(data, dest)
    back_up(other, dest)
    new = tmp_path / "new"
    message = cli(new, "restore", str(dest), "--yes", expect=1).stderr
    assert id_of(data) in message and id_of(other) in message
    cli(new, "restore", str(dest), "--yes", "--from-installation", id_of(data))
    assert held(new) == FIRST and id_of(new) == id_of(data)


def test_a_lost_registry_is_an_empty_directory(data, dest):
    id = id_of(data)
    back_up(data, dest)
    (data / "control.db").write_bytes(b"garbage" * 3_000)
    restore(data, dest, "--yes")
    assert id_of(data) == id and held(data) == FIRST


def test_a_generation_without_an_id(data, other, dest, tmp_path):
    """It is one's own if it names a tenant that is or was here."""
    back_up(data, dest)
    strangers.without_ids(dest)
    shutil.copytree(data, tmp_path / "purged")
    for tenant in ("acme", "globex"):
        cli(tmp_path / "purged", "tenants", "purge", tenant, "--yes")
    for place in (data, tmp_path / "purged"):
        cli(place, "restore", str(dest), "--yes")
        assert held(place) == FIRST
    assert "--from-installation none" in restore(other, dest, "--yes", expect=1)
    assert "initech" in held(other)
    cli(other, "restore", str(dest), "--yes", "--from-installation", "none")
    assert held(other) == FIRST and working(other) == []


# Keys.


def test_a_backup_from_before_the_first_key_does_not_open_the_server(tmp_path):
    data, dest = tmp_path / "data", tmp_path / "backup"
    operator_of(data, lambda it: it.create_tenant("default", tier="unlimited"))
    back_up(data, dest)
    cli(data, "keys", "create", "default")
    restore(data, dest, "--yes")
    with closing(connect(data / "control.db")) as connection:
        [facts] = connection.execute("SELECT count(*) FROM facts WHERE name = 'keys_required'")
    assert facts == (1,)
    with Keyed(data) as server:
        assert server.bare.get("/memory/n/a").status_code == 401


def test_keys_of_tenants_purged_since_come_back_revoked(data, dest):
    back_up(data, dest)
    key = dict(working(data))["acme"]
    cli(data, "tenants", "purge", "acme", "--yes")
    restore(data, dest, "--yes")
    assert held(data) == FIRST
    assert key not in dict(working(data)).values() and len(working(data)) == 1
    made = cli_json(data, "keys", "create", "acme")["id"]
    back_up(data, dest)
    restore(data, dest, "--yes")
    assert ("acme", made) in working(data)  # made after the purge: not what was ended


def test_what_was_revoked_stays_so_through_several_restores(data, dest):
    """Also where a restore in between has a registry that does not know the key."""
    fill(data, {"third": {"n": {"a": "b"}}})
    cli(data, "tenants", "purge", "third", "--yes")
    first = back_up(data, dest)["generation"]
    late = cli_json(data, "keys", "create", "acme")["id"]
    fill(data, {"fourth": {"n": {"a": "b"}}})
    second = back_up(data, dest)["generation"]
    cli(data, "keys", "revoke", late)
    cli(data, "tenants", "purge", "fourth", "--yes")
    restore(data, dest, "--yes", "--generation", first)
    assert late not in dict(map(reversed, working(data)))
    restore(data, dest, "--yes", "--generation", second)
    assert {tenant for tenant, _ in working(data)} == {"acme", "globex"}
    assert late not in dict(map(reversed, working(data)))
    assert "fourth" in held(data)


# What stands in a backup's files.


def canary(tmp_path: Path) -> Path:
    file = tmp_path / "canary" / "precious"
    file.parent.mkdir()
    for suffix in ("", "-wal", "-shm", ".new"):
        file.with_name(file.name + suffix).write_bytes(b"precious")
    return file


@pytest.mark.parametrize("how", [[], ["--tenant", "acme"]])
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO discarded (tenant_id, file) VALUES ('0123456789abcdef', ?)",
        """INSERT INTO tombstones (namespace_id, purge_id, file, known)
            VALUES ('0123456789abcde', '0123456789abcdef', ?, '[]')""",
        "UPDATE namespaces SET file = ?",
    ],
)
@pytest.mark.parametrize("path", ["{}", "../canary/precious", "tenants/../../canary/precious"])
def test_no_path_of_a_backup_is_believed(data, dest, tmp_path, how, sql, path):
    precious = canary(tmp_path)
    before = everything(precious.parent)
    back_up(data, dest)

    def change(connection):
        connection.execute(
            """INSERT INTO purges (id, tenant_id, scope, actor, started_at)
            VALUES ('0123456789abcdef', '0123456789abcdef', 'namespace', 'x', 0)"""
        )
        connection.execute(sql, (path.format(precious),))

    strangers.in_registry(dest, change)
    failed = "tombstones" in sql
    cli(data, "restore", str(dest), "--yes", *how, expect=int(failed))
    cli(data, "tenants", "list")
    assert held(data) == FIRST
    assert everything(precious.parent) == before
    sound(data)


@pytest.mark.parametrize("table", ["discarded", "tombstones", "namespaces"])
def test_a_registry_that_names_somebody_elses_file(data, other, dest, tmp_path, table):
    """As an older restore may have left it: nothing of it is opened, copied, sent or removed."""
    [secret] = namespace_files(other)
    before = everything(other)
    [[tenant_id]] = query(data / "control.db", "SELECT id FROM tenants WHERE name = 'acme'")
    with closing(connect(data / "control.db")) as connection:
        if table == "discarded":
            connection.execute("INSERT INTO discarded VALUES (1, ?, ?)", (tenant_id, str(secret)))
        elif table == "tombstones":
            connection.execute(
                "INSERT INTO purges VALUES ('0123456789abcdef', ?, 'namespace', 'x', 0, NULL)",
                (tenant_id,),
            )
            connection.execute(
                "INSERT INTO tombstones (namespace_id, purge_id, file, known)"
                " VALUES (?, '0123456789abcdef', ?, '[]')",
                (secret.stem[-15:], str(secret)),
            )
        else:
            connection.execute(
                "UPDATE namespaces SET file = ? WHERE name = 'south'", (str(secret),)
            )
    with Keyed(data) as server:
        client = server.client(str(server.key("acme")["key"]))
        assert client.get("/memory/north/a").status_code == 200
        expected = 503 if table == "namespaces" else 200
        assert client.get("/memory/south/a").status_code == expected
    if table == "namespaces":
        assert cli_json(data, "check", expect=1)["findings"][0]["namespace"] == "south"
        back_up(data, dest, expect=1)
        cli(data, "tenants", "export", "acme", str(tmp_path / "acme.zip"), expect=1)
        cli(data, "namespaces", "purge", "acme", "south", "--yes")
        assert "SECRET" not in str(objects(dest))
    cli(data, "tenants", "list")
    assert everything(other) == before
    assert query(data / "control.db", "SELECT count(*) FROM discarded") == [(0,)]


SCHEMAS = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
    "a view": "CREATE VIEW v AS SELECT * FROM entries",
    "a table": "CREATE TABLE t (a)",
    "an index": "CREATE INDEX i ON entries (bytes)",
    "a lost index": "DROP INDEX entries_expiry",
    "a lost trigger": "DROP TRIGGER entries_added",
    "a column": "ALTER TABLE entries ADD COLUMN extra",
    "a generated column": "ALTER TABLE states ADD COLUMN extra AS (bytes + 1)",
    "another trigger": """DROP TRIGGER entries_removed;
        CREATE TRIGGER entries_removed AFTER DELETE ON entries BEGIN SELECT 1; END""",
    "a virtual table": "CREATE VIRTUAL TABLE more USING fts5 (text)",
    "another dimension": "UPDATE vector_model SET name = 'x', dimension = 512",
    "no model": "DELETE FROM vector_model",
    "counters of text": "UPDATE totals SET entries = 'many'",
    "a large schema": "CREATE TABLE t (" + ", ".join(f"c{n}" for n in range(1_900)) + ")",
}


@pytest.mark.parametrize("what", SCHEMAS)
def test_a_namespace_of_another_schema(data, dest, tmp_path, what):
    back_up(data, dest)

    def change(connection):
        for statement in SCHEMAS[what].split(";\n"):
            connection.execute(statement)

    strangers.in_namespace(dest, change)
    for arguments in (["--verify"], ["--yes"]):
        assert "not sound" in restore(tmp_path / "new", dest, *arguments, expect=1)
    # And where it is live already, `check` and the next backup tell.
    with closing(connect(file_of(data, "acme", "north"))) as connection:
        change(connection)
    if "counters" not in what:
        assert cli_json(data, "check", expect=1)["findings"]
    fill(data, {"globex": {"north": {"a": "x"}}})
    assert back_up(data, tmp_path / "fresh", expect=1)["damaged"]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM keys; END",
        "CREATE TABLE t (a)",
        "CREATE VIEW v AS SELECT 1",
        "ALTER TABLE keys ADD COLUMN more",
        "UPDATE tenants SET name = char(27) || name",
        "UPDATE tenants SET id = '../' || id",
        "UPDATE tenants SET created_at = 'never'",
        "UPDATE keys SET hash = 'short'",
        "UPDATE keys SET scopes = 'everything'",
        "UPDATE namespaces SET name = char(10) || name",
        "UPDATE namespaces SET created_at = 9e99",
        "INSERT INTO purges VALUES ('0123456789abcdef', 'x', 'tenant', 'x', 0, NULL)",
        "INSERT INTO audit VALUES (77, 0, 'x', 'y', '../x', NULL, 'z')",
        "INSERT INTO calls VALUES ('today', '0123456789abcdef', 'x', 1, 1)",
    ],
)
def test_a_registry_that_we_would_not_write(data, dest, tmp_path, sql):
    back_up(data, dest)

    def change(connection):
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)

    strangers.in_registry(dest, change)
    for arguments in (["--verify"], ["--yes"], ["--tenant", "acme"]):
        message = restore(tmp_path / "new", dest, *arguments, expect=1)
        assert "cannot be restored" in message, sql


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "longer", "shorter"])
def test_only_regular_files_of_the_size_that_is_told_are_read(data, dest, tmp_path, kind):
    back_up(data, dest)
    for pattern in ("control/*.db", "tenants/*/*.db"):
        copy = tmp_path / f"copy-{pattern[0]}"
        shutil.copytree(dest, copy)
        file = min(copy.glob(pattern))
        content = file.read_bytes()
        file.unlink()
        if kind == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            file.symlink_to(tmp_path / "elsewhere")
        elif kind == "pipe":
            os.mkfifo(file)
        elif kind == "directory":
            file.mkdir()
        else:
            file.write_bytes(content + b"x" if kind == "longer" else content[:-1])
        message = restore(tmp_path / "new", copy, "--yes", expect=1)
        assert "in the way" in message or "not what was written" in message or "is a" in message
        assert not (tmp_path / "new" / "control.db").exists()


def test_a_tenants_directory_that_is_a_link_is_not_followed(data, dest, tmp_path):
    back_up(data, dest)
    shutil.move(dest / "tenants", tmp_path / "moved")
    (dest / "tenants").symlink_to(tmp_path / "moved")
    before = everything(tmp_path / "moved")
    for arguments in (["backup", str(dest)], ["restore", str(dest), "--yes"]):
        assert "in the way" in cli(data, *arguments, expect=1).stderr
    assert everything(tmp_path / "moved") == before


def test_a_manifest_of_mere_brackets(data, dest):
    back_up(data, dest)
    file = strangers.manifests(dest)[-1]
    strangers.seal(file, b"[" + b"[]," * 1_000_000 + b"[]]")
    assert "is damaged" in restore(data, dest, "--yes", expect=1)


def test_room_is_asked_for_before(data, dest, tmp_path):
    back_up(data, dest)
    strangers.forge(dest, lambda it: it["namespaces"][0]["object"].update(bytes=2**52))
    assert "make room" in restore(tmp_path / "new", dest, "--yes", expect=1)
    assert not (tmp_path / "new" / "control.db").exists()


# An older SQLite.


def test_an_older_sqlite_reads_ones_own_with_a_notice(data, other, dest, monkeypatch):
    back_up(data, dest)
    back_up(other, dest)
    monkeypatch.setattr(driver.sqlite3, "sqlite_version_info", (3, 51, 3))
    monkeypatch.setattr(provenance.sqlite3, "sqlite_version_info", (3, 51, 3))
    done = cli(data, "restore", str(dest), "--yes", "--json")
    assert "SQLite" in done.stderr and "SQLite" in json.loads(done.stdout)["notice"]
    message = restore(data, dest, "--yes", "--from-installation", id_of(other), expect=1)
    assert "pip install pysqlite3" in message
    assert held(data) == FIRST


# A directory that was copied.


def doctor(data: Path, *options: str) -> dict:
    done = subprocess.run(
        **command("doctor", "--json", "--data-dir", str(data), "--embedder", "none", *options),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    [found] = [
        each for each in json.loads(done.stdout)["findings"] if each["what"] == "installation"
    ]
    return dict(found)


def test_a_copy_is_noticed_and_can_become_another(data, tmp_path, caplog):
    id = id_of(data)
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    (data / "control.db").stat()
    assert doctor(data)["level"] == "ok"
    assert doctor(copy)["level"] == "warning"
    with Keyed(copy):
        pass
    assert "--new-installation" in caplog.text
    caplog.clear()
    with Keyed(data):
        pass
    assert "--new-installation" not in caplog.text
    assert doctor(copy, "--new-installation")["level"] == "ok"
    assert id_of(copy) not in (id, None) and id_of(data) == id
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    assert doctor(moved, "--same-installation")["level"] == "ok"
    assert id_of(moved) == id
    assert cli_json(copy, "audit")[-1]["action"] == "new installation"


def test_ids_are_made_once(data):
    id = id_of(data)
    assert len(id) == 16
    cli(data, "tenants", "list")
    with Keyed(data):
        pass
    assert id_of(data) == id


def test_a_directory_of_before_ids_gets_one(data, dest):
    with closing(connect(data / "control.db")) as connection:
        connection.execute("DELETE FROM facts WHERE name IN ('installation', 'place')")
    assert back_up(data, dest)["installation"] == id_of(data)
