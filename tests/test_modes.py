"""When keys are required: open on a laptop, keyed from the first key on, keyed beyond it."""

from __future__ import annotations

import re
import subprocess

import httpx
import pytest
from serving import InProcess, command, exchange, namespace_files, request, run_client, status_of
from tenancy import KEY_SHAPE, bearer, cli, cli_json, first_key, make_tenant, operator_of

from botwire_server.config import Config

# An address that is this machine's alone, in a spelling that the server takes for any other.
BEYOND = ("--host", "127.1")


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def open_server(data):
    """A server without any key, and a client of it."""
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        yield client


def reachable(server):
    return f"http://127.0.0.1:{server.address[1]}"


def put(client, key, value, namespace="shared"):
    headers = {} if key is None else bearer(key)
    answer = client.put(f"/memory/{namespace}/k", json={"value": value}, headers=headers)
    return answer.status_code


def get(client, key, namespace="shared"):
    headers = {} if key is None else bearer(key)
    answer = client.get(f"/memory/{namespace}/k", headers=headers)
    return answer.json()["value"] if answer.is_success else answer.status_code


# Open.


def test_without_a_key_everybody_is_tenant_default(open_server, data):
    assert put(open_server, None, "of default") == 200
    assert get(open_server, None) == "of default"
    assert [row["tenant"] for row in operator_of(data, lambda it: it.list_tenants())] == ["default"]


def test_every_credential_opens_a_sandbox_of_its_own(open_server, data):
    owners = [None, "customer-a", "customer-b", "customer-A", "bw_", "x" * 1_000]
    for owner in owners:
        assert get(open_server, owner) == 404
        assert put(open_server, owner, f"of {owner}") == 200
    assert [get(open_server, owner) for owner in owners] == [f"of {owner}" for owner in owners]
    assert len(operator_of(data, lambda it: it.list_tenants())) == len(owners)
    held = [open_server.get("/stats/memory", headers=bearer(owner)).json() for owner in owners[1:]]
    assert all(stats["total_entries"] == 1 for stats in held)


def test_however_it_is_presented_a_credential_opens_the_same_sandbox(open_server):
    assert put(open_server, "customer-a", "mine") == 200
    for headers, auth in [
        ({"X-API-Key": "customer-a"}, None),
        ({}, ("customer-a", "")),
        ({}, ("x", "customer-a")),
    ]:
        answer = open_server.get("/memory/shared/k", headers=headers, auth=auth)
        assert answer.json()["value"] == "mine"


def test_code_for_many_tenants_runs_unchanged(open_server):
    host = str(open_server.base_url).removeprefix("http://")
    code = "from botwire import Memory\nm = Memory('s')\n{}\nprint(m.get('who'))\nm._client.close()"
    for who in ("customer-a", "customer-b"):
        said = run_client(f"http://{who}@{host}", code.format(f"m.set('who', {who!r})"))
        assert said.strip() == who
    assert run_client(f"http://customer-a@{host}", code.format("")).strip() == "customer-a"
    assert run_client(f"http://{host}", code.format("")).strip() == "None"


def test_a_sandbox_cannot_be_named_by_its_tenant(open_server, data):
    assert put(open_server, "customer-a", "mine") == 200
    [name] = [row["tenant"] for row in operator_of(data, lambda it: it.list_tenants())]
    assert name.startswith("sandbox-") and "customer-a" not in name
    for presented in (name, name.removeprefix("sandbox-"), "default"):
        assert get(open_server, presented) == 404


def test_an_open_server_has_no_operator(open_server):
    for headers in ({}, bearer("operator"), bearer("default")):
        assert open_server.get("/admin/v1/tenants", headers=headers).status_code == 401


# From the first key on.


@pytest.mark.parametrize("who", ["acme", "--operator"])
def test_keys_are_required_from_the_moment_the_first_exists(open_server, data, who):
    """Made by the command line, in a process of its own, while the server runs."""
    assert put(open_server, None, "of default") == 200
    assert put(open_server, "customer-a", "of a sandbox") == 200
    if who == "acme":
        cli(data, "tenants", "create", "acme", process=True)
        assert get(open_server, None) == "of default"  # a tenant is no key
    key = cli_json(data, "keys", "create", who, process=True)["key"]
    for presented in (None, "customer-a", "nonsense"):
        assert get(open_server, presented) == 401
        assert put(open_server, presented, "more") == 401
    assert get(open_server, key) == (404 if who == "acme" else 403)


def test_still_required_once_the_key_is_gone(data):
    key = make_tenant(data, "acme")
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        assert get(client, key) == 404
        id = key.split("_")[1]
        operator_of(data, lambda it: it.revoke_key(id))
        assert get(client, key) == get(client, None) == get(client, "any") == 401
        operator_of(data, lambda it: it.purge_tenant("acme"))
        assert get(client, key) == get(client, None) == get(client, "any") == 401
        assert operator_of(data, lambda it: it.list_keys()) == []
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        assert get(client, None) == get(client, key) == 401


def test_what_was_stored_while_open_waits_for_a_key_of_default(open_server, data):
    assert put(open_server, None, "from before") == 200
    key = operator_of(data, lambda it: it.create_key("default"))["key"]
    assert get(open_server, None) == 401
    assert get(open_server, key) == "from before"


def test_required_keys_need_no_host_check(data):
    """Behind a proxy the Host header names another machine; a key proves more than that."""
    key = make_tenant(data, "acme")
    with InProcess(data) as server:
        for host in ("memory.example.com", "localhost"):
            raw = request("GET", "/memory/x", Host=host, Authorization=f"Bearer {key}")
            assert status_of(exchange(server.address, raw)) == 200
            assert status_of(exchange(server.address, request("GET", "/health", Host=host))) == 200


# Beyond this machine.


def test_the_first_start_beyond_this_machine_makes_one_key_and_shows_it_once(make_server):
    server = make_server(*BEYOND)
    banner = server.banner
    key = first_key(server)
    assert "mode     keys" in banner
    assert f"cat {server.data / 'first-key'}\n" in banner
    assert key not in server.log + banner
    with httpx.Client(base_url=reachable(server)) as client:
        assert get(client, None) == 401
        assert put(client, key, "v") == 200
    [row] = cli_json(server.data, "keys", "list")
    assert (row["tenant"], row["scopes"]) == ("default", ["read", "write", "purge"])
    server.restart()
    assert "first-key: take it" in server.banner
    (server.data / "first-key").unlink()
    server.restart()
    assert "first-key" not in server.banner
    assert not re.search(KEY_SHAPE, server.banner)
    assert "KEY@" in server.banner
    assert "mode     keys" in server.banner
    with httpx.Client(base_url=reachable(server)) as client:
        assert get(client, key) == "v"
        assert get(client, None) == 401
    assert len(cli_json(server.data, "keys", "list")) == 1


def test_a_key_that_exists_is_enough(make_server):
    server = make_server(*BEYOND, started=False)
    key = make_tenant(server.data, "acme")
    server.start()
    assert not re.search(KEY_SHAPE, server.banner)
    with httpx.Client(base_url=reachable(server)) as client:
        assert get(client, None) == 401
        assert get(client, key) == 404
    assert [row["tenant"] for row in cli_json(server.data, "keys", "list")] == ["acme"]


def test_no_key_is_made_again_once_one_was(make_server):
    """Purging everybody must neither open the server nor print a key for whoever reads its log."""
    server = make_server(*BEYOND)
    cli(server.data, "tenants", "purge", "default", "--yes")
    server.restart()
    assert not re.search(KEY_SHAPE, server.banner)
    with httpx.Client(base_url=reachable(server)) as client:
        assert get(client, None) == 401
    assert cli_json(server.data, "keys", "list") == []


def test_insecure_open_warns_on_every_start(make_server):
    server = make_server(*BEYOND, "--insecure-open")
    for _ in range(2):
        assert server.banner.startswith("WARNING: --insecure-open")
        assert "EVERYBODY" in server.banner
        assert not re.search(KEY_SHAPE, server.banner)
        with httpx.Client(base_url=reachable(server)) as client:
            assert put(client, None, "v") == 200
        server.restart()
    key = cli_json(server.data, "keys", "create", "default")["key"]
    server.restart()
    assert server.banner.startswith("WARNING: --insecure-open")
    with httpx.Client(base_url=reachable(server)) as client:
        assert get(client, None) == 401  # a key is a key
        assert get(client, key) == "v"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("127.example", False),
        ("127.1", False),
        ("localhost.example.org", False),
    ],
)
def test_which_addresses_are_this_machine(host, loopback):
    assert Config(host=host).loopback is loopback


def test_files_are_for_their_owner_alone(make_server, tmp_path):
    """Also in a data directory that somebody made before, for all to read."""
    data = tmp_path / "server-0" / "data"
    server = make_server(started=False)
    data.mkdir(mode=0o755)
    server.start()
    with httpx.Client(base_url=server.url) as client:
        assert put(client, None, "v") == 200
    assert namespace_files(data)
    for path in data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    subprocess.run(
        **command("tenants", "create", "x", "--data-dir", str(tmp_path / "made")),
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0
