"""Two tenants with the same names for everything, at once: each passes the tests of the client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import Server, environment
from tenancy import cli_json, make_tenant, planted

TESTS = Path(__file__).parent
FILES = ("test_client.py", "test_contract.py", "test_extensions.py")
# The first two put a key of their own into the URL; the last takes long and is about one tenant.
LEFT_OUT = (
    "test_client.py::test_botwire_url_alone_points_the_client_here[http://KEY@{host}]",
    "test_client.py::test_botwire_url_alone_points_the_client_here[http://x:KEY@{host}/]",
    "test_extensions.py::test_of_two_racing_writers_exactly_one_wins",
)


def run_at_once(server: Server, directory: Path, *selected: str) -> dict[str, tuple[int, str]]:
    """The tests of the client by two tenants at the same time: exit code and what was said."""
    processes = {}
    for name in ("acme", "globex"):
        key = make_tenant(server.data, name)
        url = server.url.replace("http://", f"http://{key}@")
        arguments = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        arguments += ["-W", "error", "--basetemp", str(directory / f"pytest-{name}")]
        arguments += [f"--deselect=tests/{test}" for test in LEFT_OUT]
        processes[name] = subprocess.Popen(
            [*arguments, *selected, *FILES],
            cwd=TESTS,
            env=environment(
                TEST_SERVER_URL=url,
                BOTWIRE_URL=url,
                PYTHONPATH=os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return {
        name: (process.wait(300), process.communicate()[0]) for name, process in processes.items()
    }


def namespaces(server: Server, tenant: str) -> dict[str, int]:
    rows = cli_json(server.data, "namespaces", "list", tenant)
    return {row["namespace"]: row["entries"] for row in rows}


def test_two_tenants_run_the_tests_of_the_client_at_once(make_server, tmp_path):
    server = make_server()
    for name, (code, said) in run_at_once(server, tmp_path).items():
        assert code == 0, f"{name}: {said}"
        assert "passed" in said
    # The same names, except those that the tests draw at random.
    of_acme, of_globex = (
        {name: held for name, held in namespaces(server, tenant).items() if len(name) < 36}
        for tenant in ("acme", "globex")
    )
    assert of_acme == of_globex
    assert len(of_acme) > 50
    # What one lets go of, the other keeps.
    before = namespaces(server, "globex")
    cli_json(server.data, "tenants", "purge", "acme", "--yes")
    assert namespaces(server, "globex") == before


FAULTS = {
    "a namespace is found whosever it is": (
        "store/registry.py",
        'FROM namespaces WHERE tenant_id = ? AND name = ?",\n            tenant_id,\n'
        "            name,\n        )\n        return None if row",
        "FROM namespaces WHERE ? != '' AND name = ?\",\n            tenant_id,\n"
        "            name,\n        )\n        return None if row",
    ),
    "every key opens the tenant that asked first": (
        "store/registry.py",
        "else TenantRow(*row[10:])",
        "else self.__dict__.setdefault('first', TenantRow(*row[10:]))",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_notices_when_they_are_not_apart(make_server, tmp_path, fault):
    server = make_server(root=planted(tmp_path / "planted", *FAULTS[fault]))
    ran = run_at_once(server, tmp_path, "-x", "-k", "every_kind_of_key")
    assert 1 in [code for code, _ in ran.values()], ran
