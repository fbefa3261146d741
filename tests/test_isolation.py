"""Two tenants with the same names for everything, at once: each passes the tests of the client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import Server, environment, until
from tenancy import cli_json, make_tenant

from harness.planted import Fault, planted

TESTS = Path(__file__).parent
FILES = ("test_client.py", "test_contract.py")
# They put a key of their own into the URL.
LEFT_OUT = (
    "test_client.py::test_botwire_url_alone_points_the_client_here[http://KEY@{host}]",
    "test_client.py::test_botwire_url_alone_points_the_client_here[http://x:KEY@{host}/]",
)


def start_tests(
    *arguments: str, root: Path = TESTS.parent, **variables: str
) -> subprocess.Popen[str]:
    """Run tests against the package in `root`, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    path = os.pathsep.join([str(root), str(TESTS)])
    return subprocess.Popen(
        command,
        cwd=TESTS,
        env=environment(PYTHONPATH=path, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def namespaces(server: Server, tenant: str) -> dict[str, int]:
    rows = cli_json(server.data, "namespaces", "list", tenant)
    return {row["namespace"]: row["entries"] for row in rows}


def test_two_tenants_run_the_tests_of_the_client_at_once(make_server, tmp_path):
    server = make_server()
    running = {}
    for name in ("acme", "globex"):
        key = make_tenant(server.data, name)
        url = server.url.replace("http://", f"http://{key}@")
        running[name] = start_tests(
            f"--basetemp={tmp_path / f'pytest-{name}'}",
            *(f"--deselect=tests/{test}" for test in LEFT_OUT),
            *FILES,
            TEST_SERVER_URL=url,
            BOTWIRE_URL=url,
        )
    for name, process in running.items():
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, f"{name}: {said}"
        assert "passed" in said

    def same():
        # The same names, except those that the tests draw at random.
        of_acme, of_globex = (
            {name: held for name, held in namespaces(server, tenant).items() if len(name) < 36}
            for tenant in ("acme", "globex")
        )
        return of_acme == of_globex and of_acme

    time.sleep(2.5)  # the registry is told once a second
    assert len(until(same, "both have the same")) > 50
    # What one lets go of, the other keeps.
    before = namespaces(server, "globex")
    cli_json(server.data, "tenants", "purge", "acme", "--yes")
    assert namespaces(server, "globex") == before


FAULTS = {
    "a namespace is found whosever it is": Fault(
        "store/registry.py",
        'FROM namespaces WHERE tenant_id = ? AND name = ?",\n            tenant_id,\n'
        "            name,\n        )\n        return found",
        "FROM namespaces WHERE ? != '' AND name = ?\",\n            tenant_id,\n"
        "            name,\n        )\n        return found",
    ),
    "every key opens the tenant that asked first": Fault(
        "store/registry.py",
        "else TenantRow(*row[10:])",
        "else globals().setdefault('_first', TenantRow(*row[10:]))",
    ),
    "a body may name the tenant": Fault(
        "web/botwire/__init__.py",
        "        value = self._rules.value.of(fields)\n",
        "        value = self._rules.value.of(fields)\n"
        "        tenant = request.scope['tenant']\n"
        "        named = tenant._directory.registry.tenant(str(fields.get('tenant')))\n"
        "        tenant._row = named or tenant._row\n",
    ),
    "an operator's key reaches data": Fault(
        "web/auth.py",
        "            if row is None:\n                raise Forbidden(",
        "            if row is None:\n                row = self._registry.tenant('acme')\n"
        "            if row is None:\n                raise Forbidden(",
    ),
    "a revoked key works": Fault(
        "store/rows.py",
        "return self.revoked_at is None and (",
        "return (",
    ),
    "a scope is not asked for": Fault(
        "store/tenant.py",
        '        self.require("purge")\n',
        "",
    ),
}


# The test that meets each of them first.
NOTICED_BY = {
    "a namespace is found whosever it is": "test_a_foreign_key_meets_nothing",
    "every key opens the tenant that asked first": "test_a_foreign_key_meets_nothing",
    "a body may name the tenant": "test_naming_another_tenant_changes_nothing",
    "an operator's key reaches data": "test_an_operators_key_is_none_of_a_tenant",
    "a revoked key works": "test_without_a_key_that_works_nobody_gets_in",
    "a scope is not asked for": "test_a_key_lacking_the_scope_or_the_namespace",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_table_of_routes_notices(tmp_path, fault):
    """Or else its refusals would prove nothing."""
    process = start_tests(
        *("-x", "-q", f"--basetemp={tmp_path / 'pytest'}", "-k", NOTICED_BY[fault]),
        "test_access.py",
        root=planted(tmp_path / "planted", FAULTS[fault]),
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "FAILED" in said
