"""The operator's commands: for people and for programs, with a server running and without."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from serving import InProcess, until
from tenancy import KEY_SHAPE, bearer, cli, cli_json, make_tenant, operator_of

RECEIPT = {
    *(
        "tenant",
        "purge_id",
        "scope",
        "tenant_id",
        "namespaces",
        "entries",
        "states",
        "memories",
        "sessions",
    ),
    *("episodes", "vectors", "bytes", "sessions", "started_at", "finished_at", "actor"),
}


def held(data):
    rows = operator_of(data, lambda it: it.list_namespaces("acme"))
    return sum(row["entries"] for row in rows)


@pytest.fixture(params=["a server runs", "no server runs"])
def data(request, tmp_path):
    """A data directory with tenant acme, who holds something in three namespaces."""
    data = tmp_path / "data"
    key = make_tenant(data, "acme")
    server = InProcess(data).__enter__()
    with httpx.Client(base_url=server.url, headers=bearer(key)) as client:
        for namespace in ("support-1", "support-2", "sales"):
            assert client.put(f"/memory/{namespace}/k", json={"value": "four"}).is_success
    until(lambda: held(data) == 3, "the server noted what they hold")
    if request.param == "no server runs":
        server.__exit__()
    else:
        request.addfinalizer(server.__exit__)
    yield data


def test_every_command_for_programs(data, tmp_path):
    made = cli_json(data, "tenants", "create", "globex", "--tier", "free")
    assert (made["tenant"], made["tier"], made["keys"]) == ("globex", "free", [])
    assert {each["tenant"] for each in cli_json(data, "tenants", "list")} == {"acme", "globex"}
    assert cli_json(data, "tenants", "set-tier", "globex", "pro")["tier"] == "pro"
    key = cli_json(
        *(data, "keys", "create", "globex", "--label", "ci", "--scope", "read"),
        *("--scope", "write", "--namespace", "tenant-*", "--expires", "90d"),
    )
    assert {"id", "key", "tenant"} <= set(key)
    assert re.fullmatch(KEY_SHAPE, key["key"])
    assert (key["tenant"], key["label"], key["scopes"]) == ("globex", "ci", ["read", "write"])
    assert key["namespace"] == "tenant-*" and key["expires_at"] is not None
    operator = cli_json(data, "keys", "create", "--operator")
    assert (operator["tenant"], operator["operator"]) == (None, True)
    rotated = cli_json(data, "keys", "rotate", key["id"], "--grace", "24h")
    assert rotated["replaces"] == key["id"] and rotated["key"] != key["key"]
    assert cli_json(data, "keys", "revoke", key["id"])["revoked_at"] is not None
    assert len(cli_json(data, "keys", "list")) == 4
    assert len(cli_json(data, "keys", "list", "globex")) == 2
    assert [each["id"] for each in cli_json(data, "tenants", "show", "globex")["keys"]] == [
        key["id"],
        rotated["id"],
    ]
    listed = cli_json(data, "namespaces", "list", "acme", "--prefix", "support-")
    assert [each["namespace"] for each in listed] == ["support-1", "support-2"]
    assert cli_json(data, "usage", "acme")["tenant"] == "acme"
    assert {each["tenant"] for each in cli_json(data, "usage")} == {"acme", "globex"}
    archive = tmp_path / "acme.zip"
    exported = cli_json(data, "tenants", "export", "acme", str(archive))
    assert (exported["namespaces"], exported["entries"]) == (3, 3)
    assert archive.stat().st_mode & 0o077 == 0
    imported = cli_json(data, "tenants", "import", str(archive), "--as", "copy")
    assert (imported["tenant"], imported["entries"]) == ("copy", 3)
    receipt = cli_json(data, "namespaces", "purge", "acme", "sales", "--yes")
    assert set(receipt) == RECEIPT
    assert (receipt["scope"], receipt["namespaces"], receipt["bytes"]) == ("namespace", 1, 4)
    receipt = cli_json(data, "namespaces", "purge", "acme", "--prefix", "support-", "--yes")
    assert (receipt["scope"], receipt["namespaces"], receipt["entries"]) == ("prefix", 2, 2)
    receipt = cli_json(data, "tenants", "purge", "copy", "--yes")
    assert set(receipt) == RECEIPT
    assert (receipt["tenant"], receipt["entries"], receipt["actor"]) == ("copy", 3, "command line")
    lines = cli_json(data, "audit", "acme")
    assert [line["action"] for line in lines] == [
        *("create tenant", "create key", "export tenant", "purge namespace", "purge prefix")
    ]
    actions = {line["action"] for line in cli_json(data, "audit")}
    assert {"import tenant", "rotate key", "revoke key", "set tier", "purge tenant"} <= actions


def test_every_command_for_people(data, tmp_path):
    assert "keys create globex" in cli(data, "tenants", "create", "globex").stdout
    assert re.search(r"^acme +unlimited +3 ", cli(data, "tenants", "list").stdout, re.M)
    assert "has no key yet" in cli(data, "tenants", "show", "globex").stdout
    assert "free" in cli(data, "tenants", "set-tier", "globex", "free").stdout
    made = cli(data, "keys", "create", "globex").stdout
    assert len(set(re.findall(KEY_SHAPE, made))) == 1
    assert "not shown again" in made and "BOTWIRE_URL=http://bw_" in made
    id = re.search("bw_(.{12})_", made)[1]
    assert id in cli(data, "keys", "list", "globex").stdout
    assert "rotate" not in cli(data, "keys", "rotate", id, "--grace", "1h").stderr
    assert "no longer" in cli(data, "keys", "revoke", id).stdout
    assert re.search("^support-1 +1 ", cli(data, "namespaces", "list", "acme").stdout, re.M)
    assert "api calls today" in cli(data, "usage").stdout
    assert "storage bytes" in cli(data, "usage", "acme").stdout
    archive = str(tmp_path / "acme.zip")
    assert re.search("^entries +3$", cli(data, "tenants", "export", "acme", archive).stdout, re.M)
    imported = cli(data, "tenants", "import", archive, "--as", "copy").stdout
    assert re.search("^tenant +copy$", imported, re.M)
    # What it will remove is shown before it is.
    purged = cli(data, "namespaces", "purge", "acme", "--prefix", "support-", "--yes").stdout
    assert purged.index("support-1") < purged.index("support-2") < purged.index("purge_id")
    assert "sales" not in purged
    assert "purge_id" in cli(data, "tenants", "purge", "copy", "--yes").stdout
    assert "purge prefix" in cli(data, "audit", "acme").stdout
    assert "command line" in cli(data, "audit").stdout


def test_deleting_asks(data):
    for command, shows in [
        (["namespaces", "purge", "acme", "sales"], "sales"),
        (["namespaces", "purge", "acme", "--prefix", "s"], "support-2"),
        (["tenants", "purge", "acme"], "entries"),
    ]:
        for answer in ("n\n", "\n", "maybe\n", ""):
            done = cli(data, *command, input=answer, expect=1)
            assert shows in done.stdout
            assert "for good? [y/N]" in done.stderr
            assert "Nothing was removed" in done.stderr
        nobody = cli(data, *command, "--json", expect=1)
        assert nobody.stdout == ""
    assert len(cli_json(data, "namespaces", "list", "acme")) == 3
    agreed = cli(data, "namespaces", "purge", "acme", "sales", input="y\n")
    assert "purge_id" in agreed.stdout
    receipt = json.loads(cli(data, "tenants", "purge", "acme", "--json", input="y\n").stdout)
    assert receipt["namespaces"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tenants", "create", "acme"], 1, "There is a tenant of this name"),
        (["tenants", "create", ""], 1, "1 to 128 characters"),
        (["tenants", "create", "a/b"], 1, "slash"),
        (["tenants", "create", "x", "--tier", "gold"], 1, "free, pro, scale, starter, unlimited"),
        (["tenants", "show", "nobody"], 1, "no such tenant"),
        (["tenants", "set-tier", "acme", "gold"], 1, "no such tier"),
        (["tenants", "purge", "nobody", "--yes"], 1, "no such tenant"),
        (["tenants", "export", "nobody", "/tmp/x.zip"], 1, "no such tenant"),
        (["tenants", "export", "acme", "/no/such/folder/x.zip"], 1, "is not there"),
        (["tenants", "import", "/no/such.zip"], 2, "does not exist"),
        (["tenants", "import", "/etc/passwd"], 1, "no whole archive"),
        (["keys", "create"], 2, "TENANT"),
        (["keys", "create", "acme", "--operator"], 2, "TENANT"),
        (["keys", "create", "nobody"], 1, "no such tenant"),
        (["keys", "create", "acme", "--scope", "admin"], 2, "admin"),
        (["keys", "create", "acme", "--expires", "soon"], 1, "24h"),
        (["keys", "create", "acme", "--namespace", "*****"], 1, "stars"),
        (["keys", "create", "acme", "--label", b"\xff"], 1, "control character"),
        (["keys", "rotate", "nothing"], 1, "no key with this id"),
        (["keys", "revoke", "nothing"], 1, "no key with this id"),
        (["namespaces", "list", "nobody"], 1, "no such tenant"),
        (["namespaces", "list", b"\xff\xfe"], 1, "UTF-8"),
        (["namespaces", "purge", "acme"], 2, "--prefix"),
        (["namespaces", "purge", "acme", "x", "--prefix", "y"], 2, "--prefix"),
        (["namespaces", "purge", "acme", "x", "--yes"], 1, "no such namespace"),
        (["namespaces", "purge", "acme", "x", "--yes", "--json"], 1, "no such namespace"),
        (["namespaces", "purge", "acme", "--prefix", "", "--yes"], 1, "must not be empty"),
        (["usage", "nobody"], 1, "no such tenant"),
        (["audit", "nobody"], 1, "no such tenant"),
    ],
    ids=lambda each: " ".join(map(str, each)) if isinstance(each, list) else "",
)
def test_a_mistake_is_one_sentence(mistaken, arguments, code, said):
    done = cli(mistaken, *arguments, expect=code)
    assert said in done.stderr
    assert done.stdout == "" or arguments[-1] == "--yes"
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith('{"error":' if "--json" in arguments else "botwire-server: ")


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    data = tmp_path_factory.mktemp("mistakes") / "data"
    make_tenant(data, "acme")
    return data


def test_as_a_process_of_its_own(tmp_path):
    """The way it is really run: everything else here calls the same function."""
    data = tmp_path / "data"
    assert cli_json(data, "tenants", "create", "acme", process=True)["tenant"] == "acme"
    assert "no such tenant" in cli(data, "tenants", "show", "x", expect=1, process=True).stderr
    nobody = cli(data, "tenants", "purge", "acme", expect=1, process=True)
    assert "Nothing was removed" in nobody.stderr
    assert cli(data, "tenants", "purge", "acme", input="y\n", process=True).stdout
    undecodable = cli(data, "namespaces", "list", b"\xff\xfe", expect=1, process=True)
    assert "UTF-8" in undecodable.stderr


def test_a_data_directory_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file" / "data", "/proc/nowhere"):
        done = cli(directory, "tenants", "list", expect=1)
        assert len(done.stderr.splitlines()) == 1
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "control.db").write_bytes(b"x" * 10_000)
    done = cli(tmp_path / "data", "tenants", "list", expect=1)
    assert len(done.stderr.splitlines()) == 1
