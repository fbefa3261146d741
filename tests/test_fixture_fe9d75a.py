"""What the server of commit fe9d75a left on the disk opens, is finished, checks, restores.

See fixtures/make_fe9d75a for what there is.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import pytest
from backing_up import sound
from serving import command, query, until
from tenancy import bearer, cli_json, operator_of

FIXTURE = Path(__file__).parent / "fixtures" / "fe9d75a"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
KEYS = EXPECTED["keys"]
KILLED = ("purge", "discard", "reembed", "compact", "restore")
# The tenants whose answers are not those of before.
GONE = {"purge": {"globex"}}


@pytest.fixture
def left(tmp_path):
    """Lays out one of the directories; what it is called says how it was left."""

    def lay_out(what: str, to: Path) -> Path:
        with tarfile.open(FIXTURE / "directories.tar.xz") as archive:
            members = [m for m in archive.getmembers() if m.name.split("/")[0] == what]
            archive.extractall(tmp_path / "laid-out", members, filter="fully_trusted")
        to.parent.mkdir(exist_ok=True)
        return (tmp_path / "laid-out" / what).rename(to)

    return lay_out


def shown(answer: dict[str, Any], body: Any) -> Any:
    """What of an answer is compared: of a refusal its status, of a search what it found."""
    if body is None:
        answer = dict(answer)
        answer.pop("meta", None)
        return answer
    return [each["id"] for each in answer["data"]["results"]]


def assert_answers(
    url: str,
    *,
    keys: dict[str, str] | None = None,
    gone: Collection[str] = (),
    searches: bool = True,
) -> None:
    """The server says what the one before it said; to keys of who is `gone`, nothing."""
    keys = KEYS if keys is None else keys
    with httpx.Client(base_url=url, timeout=60) as client:
        for expected in EXPECTED["answers"]:
            key, path, body = expected["key"], expected["path"], expected["body"]
            if key not in keys or (body is not None and not searches):
                continue
            asked = {"headers": bearer(keys[key])}
            answer = (
                client.get(path, **asked) if body is None else client.post(path, json=body, **asked)
            )
            # What was 401 then may be 429 now: an address is told of ten keys that do not work.
            status = 401 if answer.status_code == 429 else answer.status_code
            if key in gone:
                assert status == 401, (key, path, answer.text)
                continue
            assert status == expected["status"], (key, path, answer.text)
            if answer.is_success:
                assert shown(answer.json(), body) == shown(expected["says"], body), (key, path)


def assert_whole(data: Path) -> None:
    """Nothing is amiss, half-done or left over."""
    sound(data)
    found = cli_json(data, "check")
    assert found["ok"] and not found["findings"]
    assert not query(data / "control.db", "SELECT 1 FROM purges WHERE receipt IS NULL")
    assert not query(data / "control.db", "SELECT 1 FROM chores WHERE outcome IS NULL")
    assert not query(data / "control.db", "SELECT 1 FROM chores WHERE outcome LIKE 'failed%'")


def chores_left(data: Path) -> int:
    """How many chores are not done."""
    [[count]] = query(data / "control.db", "SELECT count(*) FROM chores WHERE outcome IS NULL")
    return int(count)


@pytest.mark.parametrize("what", ["data", *KILLED])
def test_a_server_opens_it_and_finishes_what_was_begun(what, left, make_server):
    server = make_server(started=False)
    left(what, server.data)
    server.start()
    until(lambda: not chores_left(server.data), "chores are done")
    assert_answers(server.url, gone=GONE.get(what, ()))
    server.stop()
    assert_whole(server.data)
    # It goes on from there.
    server.start()
    with httpx.Client(base_url=server.url, headers=bearer(KEYS["acme"])) as client:
        client.put("/memory/plain/new", json={"value": 1}).raise_for_status()
    server.stop()
    assert_whole(server.data)


@pytest.mark.parametrize("what", KILLED)
def test_a_command_finishes_what_was_begun(what, left, make_server):
    server = make_server(started=False)
    left(what, server.data)
    commands = {"reembed": ["reembed"], "compact": ["compact"]}
    cli_json(server.data, *commands.get(what, ["tenants", "list"]))
    assert_whole(server.data)
    if what == "purge":
        [purged] = [
            json.loads(receipt)
            for [receipt] in query(
                server.data / "control.db", "SELECT receipt FROM purges WHERE scope = 'tenant'"
            )
            if json.loads(receipt)["tenant_id"] == _globex(server.data)
        ]
        assert purged["namespaces"] == 6 and purged["memories"] == 146
    assert_answers(server.start().url, gone=GONE.get(what, ()))


def _globex(data: Path) -> str:
    [[id]] = query(
        data / "control.db", "SELECT tenant_id FROM purges ORDER BY started_at DESC LIMIT 1"
    )
    return str(id)


@pytest.mark.parametrize("what", ["data", *KILLED])
def test_what_is_backed_up_of_it_is_restored_elsewhere(what, left, make_server, tmp_path):
    data, backup = left(what, tmp_path / "first"), tmp_path / "new-backup"
    done = cli_json(data, "backup", str(backup))
    assert not done["damaged"]
    server = make_server(started=False)
    cli_json(server.data, "restore", str(backup), "--yes")
    # Half of what was being embedded anew has vectors of another model.
    assert_answers(server.start().url, gone=GONE.get(what, ()), searches=what != "reembed")
    server.stop()
    assert_whole(server.data)


def listed(backup: Path) -> Any:
    """What `backups` says."""
    arguments = command("backups", str(backup), "--json")
    return json.loads(subprocess.run(**arguments, capture_output=True, check=True).stdout)


def test_its_backup_is_listed_and_sound(left, tmp_path):
    backup = left("backup", tmp_path / "backup")
    scopes = [each["scope"] for each in listed(backup)]
    assert scopes == ["tenant", "everything", "everything"]
    done = cli_json(left("data", tmp_path / "data"), "restore", str(backup), "--verify")
    assert done["sound"] and not done["not_up_to_date"]


def test_its_backup_is_restored_over_its_data_directory(left, make_server, tmp_path):
    backup = left("backup", tmp_path / "backup")
    server = make_server(started=False)
    left("data", server.data)
    cli_json(server.data, "restore", str(backup), "--yes")
    assert_answers(server.start().url)
    server.stop()
    assert_whole(server.data)


def test_its_backup_is_restored_into_an_empty_directory(left, make_server, tmp_path):
    backup = left("backup", tmp_path / "backup")
    server = make_server(started=False)
    cli_json(server.data, "restore", str(backup), "--yes")
    assert_answers(server.start().url)
    server.stop()
    assert_whole(server.data)


@pytest.mark.parametrize("beside", [True, False])
def test_a_tenant_is_restored_from_its_backup(left, make_server, tmp_path, beside):
    backup = left("backup", tmp_path / "backup")
    server = make_server(started=False)
    left("data", server.data)
    if beside:
        server.start()
    cli_json(server.data, "restore", str(backup), "--tenant", "acme", "--yes")
    if not beside:
        server.start()
    assert_answers(server.url)
    server.stop()
    assert_whole(server.data)


def test_its_backup_goes_on_with_a_new_generation(left, tmp_path):
    backup, data = left("backup", tmp_path / "backup"), left("data", tmp_path / "data")
    done = cli_json(data, "backup", str(backup))
    assert not done["damaged"] and done["generations"] == 4


def test_its_archive_is_imported(make_server):
    server = make_server(started=False)
    done = cli_json(server.data, "tenants", "import", str(FIXTURE / "acme.zip"))
    assert done["memories"] == 146
    key = operator_of(server.data, lambda it: it.create_key("acme"))["key"]
    assert_answers(server.start().url, keys={"acme": key})
    server.stop()
    assert_whole(server.data)
