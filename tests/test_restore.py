"""Restores: checked before anything is touched, whole or not at all, also beside a server."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from backing_up import Contents, door, fill, held, objects, opened, sound
from serving import PACKAGE_ROOT, command, environment, namespace_files, query, until
from tenancy import Keyed, cli, cli_json, files_with
from test_backup import FIRST, back_up, data, dest, file_of, restore

from botwire_server.errors import Refusal, Unusable
from botwire_server.store import entries
from botwire_server.store.backups import Backups
from botwire_server.store.lock import Lock
from botwire_server.store.places import Directory
from botwire_server.store.registry import Registry
from botwire_server.store.staging import adding
from harness.planted import Fault, planted

__all__ = ["data", "dest"]  # fixtures

LATER: Contents = {"acme": {"north": {"a": "LATER", "z": "new"}, "west": {"k": "v"}}}


REGISTRY_FIRST = Fault(
    "store/swap.py",
    "    _move(new / TENANTS, data_dir / TENANTS)\n",
    "    _move(new / CONTROL, data_dir / CONTROL)\n    _move(new / TENANTS, data_dir / TENANTS)\n",
)
DIES_WHILE_REPLACING = Fault(
    "store/replacing.py",
    "    taken = set(records.namespace_ids(connection))\n",
    "    import os; os.kill(os.getpid(), 9)\n",
)


@pytest.fixture
def moved_on(data: Path, dest: Path) -> Path:
    """The data directory, changed since it was backed up."""
    back_up(data, dest)
    fill(data, LATER)
    return data


def everything(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


# What can be wrong with a backup.


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap_objects(dest: Path) -> None:
    one, other = (next(iter(tenant.glob("*"))) for tenant in dest.glob("tenants/*"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def manifest_names(path: str) -> Callable[[Path], None]:
    """A manifest of somebody who knows how to seal one."""

    def forge(dest: Path) -> None:
        import hashlib

        [file] = dest.glob("generations/*")
        manifest = json.loads(file.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0])
        manifest["namespaces"][0]["object"]["path"] = path
        content = json.dumps(manifest).encode()
        file.write_bytes(content + b"\n" + hashlib.sha256(content).hexdigest().encode() + b"\n")

    return forge


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of a namespace": lambda dest: flip(next(iter(dest.glob("tenants/*/*.db")))),
    "a bit of the registry": lambda dest: flip(next(iter(dest.glob("control/*")))),
    "a bit of the manifest": lambda dest: flip(next(iter(dest.glob("generations/*")))),
    "a namespace missing": lambda dest: next(iter(dest.glob("tenants/*/*.db"))).unlink(),
    "the registry missing": lambda dest: next(iter(dest.glob("control/*"))).unlink(),
    "a namespace cut": lambda dest: next(iter(dest.glob("tenants/*/*.db"))).write_bytes(b""),
    "two exchanged": swap_objects,
    "a path that leaves the backup": manifest_names("../../../../etc/passwd"),
    "an absolute path": manifest_names("/etc/passwd"),
    "the manifest missing": lambda dest: next(iter(dest.glob("generations/*"))).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("how", [[], ["--tenant", "acme"], ["--tenant", "globex"]])
def test_a_damaged_backup_is_refused_and_nothing_is_touched(moved_on, dest, damage, how):
    DAMAGES[damage](dest)
    before = everything(moved_on)
    harmless = how[1:] and {"a bit of a namespace", "a namespace missing", "a namespace cut"}
    theirs = {path.split("/")[1] for path in objects(dest) if path.startswith("tenants/")}
    message = ""
    try:
        message = restore(moved_on, dest, "--yes", *how, expect=1)
    except AssertionError:
        # Of one tenant only its own objects are read: what is wrong with another's is not seen.
        assert damage in harmless and theirs
        return
    assert "\n" not in message.strip() and message
    after = everything(moved_on)
    after.pop("lock", None), before.pop("lock", None)
    assert after == before
    assert "etc" not in message


@pytest.mark.parametrize("how", [[], ["--tenant", "acme"]])
def test_verify_finds_what_a_restore_would(moved_on, dest, how):
    before = everything(moved_on)
    assert cli_json(moved_on, "restore", str(dest), "--verify", *how)["sound"] is True
    for file in dest.glob("tenants/*/*.db"):
        flip(file)
    assert "Nothing was changed" in restore(moved_on, dest, "--verify", *how, expect=1)
    assert everything(moved_on) == before


def test_everything_is_replaced(moved_on, dest):
    restore(moved_on, dest, "--yes")
    assert held(moved_on) == FIRST
    sound(moved_on)
    assert not list(files_with(moved_on, "LATER", "west"))
    assert cli_json(moved_on, "audit")[-1]["action"] == "restore"


def test_a_key_that_was_revoked_since_stays_revoked(moved_on, dest):
    [key] = cli_json(moved_on, "keys", "list", "acme")
    cli(moved_on, "keys", "revoke", key["id"])
    restore(moved_on, dest, "--yes")
    [key] = cli_json(moved_on, "keys", "list", "acme")
    assert key["revoked_at"] is not None


@pytest.mark.parametrize("damage", [b"", b"garbage" * 2_000, None])
def test_a_data_directory_whose_registry_is_lost(moved_on, dest, damage):
    control = moved_on / "control.db"
    control.unlink()
    if damage is not None:
        control.write_bytes(damage)
    restore(moved_on, dest, "--yes")
    assert held(moved_on) == FIRST


def test_everything_needs_a_yes_and_a_server_that_is_stopped(moved_on, dest):
    before = everything(moved_on)
    assert "Nothing was restored" in restore(moved_on, dest, expect=1)
    lock = Lock(moved_on)
    try:
        assert "stop it" in restore(moved_on, dest, "--yes", expect=1)
    finally:
        lock.release()
    after = everything(moved_on)
    assert {**after, "lock": b""} == {**before, "lock": b""}


def test_no_backup_there(data, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        assert "holds no backup" in restore(data, place, "--yes", expect=1)
    assert not (tmp_path / "nowhere").exists()


def mixtures(data: Path, dest: Path, copies: Path, root: Path = PACKAGE_ROOT) -> list[str]:
    """What a kill at some step of a restore leaves that is neither the old nor the new."""
    later = held(data)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "dying.py"), data, dest, copies],
        env=environment(PYTHONPATH=str(root)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, decided, again = map(int, done.stdout.split())
    assert steps > 40 and decided > 4 and again > 10
    wrong = []
    restored = False
    for number in range(steps + 1):
        try:
            found = held(copies / str(number))
            sound(copies / str(number))
        except (AssertionError, Refusal, Unusable) as error:
            wrong.append(f"step {number}: {error}")
            continue
        if found not in ((FIRST,) if restored else (FIRST, later)):
            wrong.append(f"step {number}: {found}")
        restored = restored or found == FIRST
    assert restored and held(copies / "0") == later
    for copy in copies.glob("*-*"):
        try:
            if held(copy) != FIRST:
                wrong.append(copy.name)
            sound(copy)
        except (AssertionError, Refusal, Unusable) as error:
            wrong.append(f"{copy.name}: {error}")
    return wrong


def test_a_crash_at_any_step_leaves_the_old_or_the_new(moved_on, dest, tmp_path):
    assert mixtures(moved_on, dest, tmp_path / "copies") == []


def test_a_crash_in_a_swap_in_another_order_would_be_found(moved_on, dest, tmp_path):
    root = planted(tmp_path / "planted", REGISTRY_FIRST)
    assert mixtures(moved_on, dest, tmp_path / "copies", root) != []


def test_a_late_note_of_a_replaced_file_says_nothing_of_the_new_one(moved_on, dest):
    """The server tells the registry about the old file after the restore has named the new."""

    async def run() -> None:
        async with opened(moved_on) as directory:
            north = door(directory, "acme").namespace("north")
            for number in range(20):
                await north.write(entries.put, f"k{number}", b"1", size=1)
            registry = await Registry.open(moved_on, durability="full", clock=time.time)
            backups = Backups(registry, moved_on, tiers={}, actor="test")
            await backups.restore_tenant(
                Directory(dest), "acme", generation=None, progress=lambda done, total: None
            )
            await registry.close()
            await directory.note_changes()
            await directory.finish_discards()

    asyncio.run(run())
    assert held(moved_on)["acme"] == FIRST["acme"]
    assert cli_json(moved_on, "check")["findings"] == []


def test_a_restore_that_was_cut_short_is_finished_by_any_command(moved_on, dest, tmp_path):
    place = moved_on / ".restore"
    other = tmp_path / "other"
    restore(other, dest)
    (place / "new").mkdir(parents=True)
    shutil.move(other / "tenants", place / "new" / "tenants")
    shutil.move(other / "control.db", place / "new" / "control.db")
    (place / "ready").touch()
    listed = cli_json(moved_on, "tenants", "list")
    assert [each["namespaces"] for each in listed] == [2, 1]
    assert held(moved_on) == FIRST


# One tenant, beside a server.


def test_one_tenant_beside_a_server(moved_on, dest):
    fill(moved_on, {"globex": {"north": {"a": "LATER"}}})
    with Keyed(moved_on) as server:
        acme = server.client(str(server.key("acme")["key"]))
        globex = server.client(str(server.key("globex")["key"]))
        assert acme.get("/memory/north/a").json()["value"] == "LATER"
        assert acme.put("/memory/west/k", json={"value": "v2"}).is_success
        assert globex.get("/memory/north/a").json()["value"] == "LATER"
        cli(moved_on, "restore", str(dest), "--tenant", "acme", "--yes")
        assert acme.get("/memory/north/a").json()["value"] == "one"
        assert acme.get("/memory/north/z").status_code == 404
        assert acme.get("/memory/west/k").status_code == 404
        assert acme.get("/memory/south/a").json()["value"] == "three"
        assert globex.get("/memory/north/a").json()["value"] == "LATER"
        # What was replaced is gone with its bytes when the command returns.
        [tenant] = [each for each in cli_json(moved_on, "tenants", "list") if each["entries"] == 3]
        assert tenant["tenant"] == "acme"
        assert acme.put("/memory/north/a", json={"value": "after"}).is_success
    assert held(moved_on) == {
        "acme": {**FIRST["acme"], "north": {"a": "after", "b": "two"}},
        "globex": {"north": {"a": "LATER"}},
    }
    sound(moved_on)
    assert cli_json(moved_on, "audit", "acme")[-1]["action"] == "restore tenant"


def test_a_tenant_keeps_its_keys_and_tier_as_they_are(moved_on, dest):
    [old] = cli_json(moved_on, "keys", "list", "acme")
    cli(moved_on, "keys", "revoke", old["id"])
    new = cli_json(moved_on, "keys", "create", "acme")["key"]
    cli(moved_on, "tenants", "set-tier", "acme", "pro")
    restore(moved_on, dest, "--tenant", "acme", "--yes")
    shown = cli_json(moved_on, "tenants", "show", "acme")
    assert shown["tier"] == "pro"
    assert [key["revoked_at"] is None for key in shown["keys"]] == [False, True]
    with Keyed(moved_on) as server:
        assert server.client(new).get("/memory/north/a").json()["value"] == "one"


def test_a_damaged_namespace_is_brought_back(moved_on, dest):
    """What the server answered 503 for it answers again, with nothing restarted."""
    with Keyed(moved_on) as server:
        file = file_of(moved_on, "acme", "north")
        file.write_bytes(b"garbage" * 3_000)
        client = server.client(str(server.key("acme")["key"]))
        assert client.get("/memory/north/a").status_code == 503
        restore(moved_on, dest, "--tenant", "acme", "--yes")
        assert client.get("/memory/north/a").json()["value"] == "one"
        assert not file.exists()


def test_one_namespace_alone(moved_on, dest):
    with Keyed(moved_on) as server:
        client = server.client(str(server.key("acme")["key"]))
        file_of(moved_on, "acme", "south").write_bytes(b"")
        assert client.get("/memory/south/a").status_code == 503
        restore(moved_on, dest, "--tenant", "acme", "--namespace", "south", "--yes")
        assert client.get("/memory/south/a").json()["value"] == "three"
        assert client.get("/memory/north/a").json()["value"] == "LATER"
    sound(moved_on)
    for wrong, told in [
        (["--namespace", "south"], "goes with --tenant"),
        (["--tenant", "acme", "--namespace", "nowhere"], "no copy of this namespace"),
    ]:
        assert told in restore(moved_on, dest, *wrong, "--yes", expect=1)
    assert held(moved_on)["acme"] == {**FIRST["acme"], **LATER["acme"]} | {
        "north": {**FIRST["acme"]["north"], **LATER["acme"]["north"]}
    }


def test_ids_of_memories_go_on(data, dest):
    with Keyed(data, embedder="none") as server:
        client = server.client(str(server.key("acme")["key"]))

        def store(text: str) -> str:
            body = {"agent_id": "north", "content": text, "namespace": "n"}
            answer = client.post("/v1/memory/semantic", json=body)
            assert answer.is_success, answer.text
            return str(answer.json()["data"]["id"])

        kept = store("quokkas sleep")
        back_up(data, dest)
        later = store("wombats dig")
        restore(data, dest, "--tenant", "acme", "--yes")
        assert client.delete(f"/v1/memory/semantic/{later}").status_code == 404
        assert client.delete(f"/v1/memory/semantic/{kept}").is_success


def test_an_id_that_was_purged_is_not_used_again(moved_on, dest):
    before = file_of(moved_on, "acme", "south").stem.rpartition("-")[2]
    cli(moved_on, "namespaces", "purge", "acme", "south", "--yes")
    restore(moved_on, dest, "--tenant", "acme", "--yes")
    assert file_of(moved_on, "acme", "south").stem.rpartition("-")[2] != before
    assert held(moved_on)["acme"] == FIRST["acme"]
    sound(moved_on)


@pytest.mark.parametrize("serving", [True, False])
def test_a_tenant_that_is_gone_is_made_anew_and_needs_a_key(moved_on, dest, serving):
    cli(moved_on, "tenants", "purge", "acme", "--yes")
    if serving:
        with Keyed(moved_on) as server:
            restore(moved_on, dest, "--tenant", "acme")
            client = server.client(str(server.key("acme")["key"]))
            assert client.get("/memory/north/a").json()["value"] == "one"
    else:
        restore(moved_on, dest, "--tenant", "acme")
        assert cli_json(moved_on, "keys", "list", "acme") == []
    assert held(moved_on)["acme"] == FIRST["acme"]
    sound(moved_on)


def test_tenants_are_counted_anew(moved_on, dest):
    """A tenant that was full is not, once it was restored to less."""
    (moved_on / "tiers.toml").write_text("[tiers.small]\nstorage_bytes = 1000\n")
    cli(moved_on, "tenants", "set-tier", "acme", "small")
    with Keyed(moved_on) as server:
        client = server.client(str(server.key("acme")["key"]))
        used = client.get("/stats/memory").json()["total_bytes"]
        assert client.put("/memory/north/big", json={"value": "x" * (1000 - used)}).is_success
        big = {"value": "x" * 40}
        assert client.put("/memory/north/more", json=big).status_code == 429
        restore(moved_on, dest, "--tenant", "acme", "--yes")
        assert client.put("/memory/north/more", json=big).is_success


def test_a_restore_of_a_tenant_that_dies_leaves_nothing(moved_on, dest, tmp_path):
    before = held(moved_on)
    files = namespace_files(moved_on)
    root = planted(tmp_path / "dies", DIES_WHILE_REPLACING)
    arguments = ["restore", str(dest), "--tenant", "acme", "--yes", "--data-dir", str(moved_on)]
    done = subprocess.run(**command(*arguments, root=root), check=False, timeout=60)
    assert done.returncode == -9
    assert len(namespace_files(moved_on)) == len(files) + 2
    assert held(moved_on) == before  # opening it has cleared away the rest
    sound(moved_on)


def test_two_restores_of_a_tenant_do_not_meet(moved_on, dest):
    [[tenant_id]] = query(moved_on / "control.db", "SELECT id FROM tenants WHERE name = 'acme'")
    known = {str(file.relative_to(moved_on)) for file in namespace_files(moved_on)}
    with adding(moved_on, tenant_id, lambda: known):
        message = restore(moved_on, dest, "--tenant", "acme", "--yes", expect=1)
    assert "just being restored" in message


def test_beside_a_server_under_load(moved_on, dest):
    """Writers of the tenant and of another; each answer is right, the other loses nothing."""
    wrong: list[str] = []
    done = threading.Event()

    def write(client, told: dict[str, str], prefix: str) -> None:
        number = 0
        while not done.is_set():
            key, value = f"{prefix}-{number % 20}", f"text-{number}"
            answer = client.put(f"/memory/north/{key}", json={"value": value})
            if answer.status_code != 200:
                wrong.append(f"{answer.status_code} {answer.text}")
            told[key] = value
            number += 1

    def read(client) -> None:
        while not done.is_set():
            answer = client.get("/memory/south/a")
            if answer.status_code != 200 or answer.json()["value"] != "three":
                wrong.append(f"{answer.status_code} {answer.text}")

    with Keyed(moved_on) as server:
        keys = {name: str(server.key(name)["key"]) for name in ("acme", "globex")}
        told: dict[str, dict[str, str]] = {name: {} for name in keys}
        threads = [
            threading.Thread(target=write, args=(server.client(key), told[name], name))
            for name, key in keys.items()
        ]
        threads.append(threading.Thread(target=read, args=(server.client(keys["acme"]),)))
        for thread in threads:
            thread.start()
        for _ in range(5):
            until(lambda: len(told["globex"]) >= 20 and len(told["acme"]) >= 20, "writers write")
            restore(moved_on, dest, "--tenant", "acme", "--yes")
        time.sleep(0.2)
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        client = server.client(keys["globex"])
        for key, value in told["globex"].items():
            assert client.get(f"/memory/north/{key}").json()["value"] == value
        # What was acknowledged after the last restore is there.
        client = server.client(keys["acme"])
        assert client.put("/memory/north/last", json={"value": "x"}).is_success
        assert client.get("/memory/north/last").json()["value"] == "x"
        assert client.get("/memory/north/b").json()["value"] == "two"
    sound(moved_on)
