"""Variables: what orchestrators inject is ignored, a mistake refused, a secret read as meant."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from typing import Any

import httpx
import pytest
from embedding_endpoint import EmbeddingEndpoint
from serving import PATIENCE, Server, command, environment

from botwire_server.config import Config, variable
from botwire_server.environment import injected, tidy, unknown

SETTINGS = {variable(name) for name in Config.__dataclass_fields__}


def kubernetes(service: str, ip: str, **ports: int) -> dict[str, str]:
    """What Kubernetes tells every container of a service: the variables of its documentation."""
    stem = service.upper().replace("-", "_")
    host = f"[{ip}]" if ":" in ip else ip
    made = {f"{stem}_SERVICE_HOST": ip}
    for name, port in ports.items():
        made.setdefault(f"{stem}_SERVICE_PORT", str(port))
        made.setdefault(f"{stem}_PORT", f"tcp://{host}:{port}")
        made |= {
            f"{stem}_SERVICE_PORT_{name.upper()}": str(port),
            f"{stem}_PORT_{port}_TCP": f"tcp://{host}:{port}",
            f"{stem}_PORT_{port}_TCP_PROTO": "tcp",
            f"{stem}_PORT_{port}_TCP_PORT": str(port),
            f"{stem}_PORT_{port}_TCP_ADDR": ip,
        }
    return made


def linked(alias: str, ip: str, port: int, **variables: str) -> dict[str, str]:
    """What Docker tells a container that is linked to another."""
    stem = alias.upper().replace("-", "_")
    url = f"tcp://{ip}:{port}"
    return {
        f"{stem}_NAME": f"/web/{alias}",
        f"{stem}_PORT": url,
        f"{stem}_PORT_{port}_TCP": url,
        f"{stem}_PORT_{port}_TCP_START": url,
        f"{stem}_PORT_{port}_TCP_END": f"tcp://{ip}:{port + 1}",
        f"{stem}_PORT_{port}_TCP_PORT_START": str(port),
        f"{stem}_PORT_{port}_TCP_PORT_END": str(port + 1),
        f"{stem}_PORT_{port}_TCP_ADDR": ip,
        f"{stem}_PORT_{port}_TCP_PORT": str(port),
        f"{stem}_PORT_{port}_TCP_PROTO": "tcp",
    } | {f"{stem}_ENV_{name}": value for name, value in variables.items()}


ORCHESTRATORS = {
    "kubernetes": kubernetes("botwire-server", "10.0.0.5", http=8000, metrics=9464),
    "kubernetes, IPv6": kubernetes("botwire-server", "fd00::5", http=8000),
    "kubernetes, other services": kubernetes("botwire-server-metrics", "10.0.0.6", web=9464)
    | kubernetes("botwire-server-data-dir", "10.0.0.7", a_b_c=80)
    | kubernetes("botwire-server-embedder", "10.0.0.8", http=11434),
    "docker": linked(
        "botwire-server",
        "172.17.0.5",
        8000,
        BOTWIRE_SERVER_HOST="0.0.0.0",
        BOTWIRE_SERVER_EMBEDDER_KEY="of another container",
        PATH="/usr/bin",
    ),
    "compose 1": linked("botwire-server-1", "172.17.0.6", 8000, GPG_KEY="x")
    | linked("botwire_server_botwire_1", "172.17.0.6", 8000, LANG="C"),
}
TYPOS = {
    "BOTWIRE_SERVER_PROT": "tcp://10.0.0.5:8000",
    "BOTWIRE_SERVER_SERVICE_HOST": "example.org",
    "BOTWIRE_SERVER_SERVICE_PORT": "http",
    "BOTWIRE_SERVER_METRICS_PORT": "9464",
    "BOTWIRE_SERVER_PORT_8000_TCP_PROTO": "http",
    "BOTWIRE_SERVER_PORT_8000": "tcp://10.0.0.5:8000",
    "BOTWIRE_SERVER_NAME": "botwire",
    "BOTWIRE_SERVER_ENV_PORT": "8000",
    "BOTWIRE_SERVER_DATA_DIR_FILE": "/run/secrets/dir",
    "botwire_server_port": "8000",
    "BOTWIRE-SERVER-PORT": "8000",
    "\ufeffBOTWIRE_SERVER_PORT": "8000",
}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command(*arguments, **variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("by", ORCHESTRATORS)
def test_what_an_orchestrator_injects_is_ignored(by, tmp_path):
    data = str(tmp_path / "data")
    for arguments in (["--version"], ["tenants", "create", "acme", "--data-dir", data]):
        done = run(*arguments, **ORCHESTRATORS[by])
        assert (done.returncode, done.stderr) == (0, ""), by
    done = run("doctor", "--data-dir", data, **ORCHESTRATORS[by])
    assert f"{len(ORCHESTRATORS[by])} that Kubernetes or Docker sets" in done.stdout
    assert "is no setting" not in done.stdout


def test_a_server_starts_among_them_with_its_own_settings(make_server, monkeypatch):
    injected_ = {name: value for some in ORCHESTRATORS.values() for name, value in some.items()}
    monkeypatch.setattr(
        "serving.environment",
        lambda **more: environment(**injected_, BOTWIRE_SERVER_DAILY_WRITES="1", **more),
    )
    server = make_server()
    statuses = [
        httpx.put(f"{server.url}/memory/ns/k", json={"value": n}).status_code for n in (1, 2)
    ]
    assert statuses == [200, 429]


def test_no_setting_is_ever_taken_for_injected():
    """Whatever it is set to, unless the port is an address: that is Kubernetes."""
    values = ["8000", "10.0.0.5", "tcp", "/a/b", "localhost:9464", "on", "x", "127.0.0.1:80"]
    for name, value in itertools.product(SETTINGS, values):
        assert injected({name: value}) == set()
    assert injected({"BOTWIRE_SERVER_PORT": "tcp://10.0.0.5:8000"}) == {"BOTWIRE_SERVER_PORT"}


def test_what_orchestrators_may_inject_for_any_name_is_known():
    """Services and links of random names, ports and addresses leave nothing that is refused."""
    draw = random.Random(13)
    for _ in range(500):
        words = draw.choices(["metrics", "port", "host", "tcp", "env", "name", "8000", "x"], k=3)
        name = "-".join(["botwire", "server", *words[: draw.randint(0, 3)]])
        ip = draw.choice(["10.1.2.3", "fd00::1", "::ffff:1.2.3.4"])
        ports = {draw.choice(["http", "a_1_tcp", "name", "port"]): draw.randint(1, 65_535)}
        made = kubernetes(name, ip, **ports)
        if draw.random() < 0.5:
            made |= linked(name, "172.17.0.2", 8000, BOTWIRE_SERVER_X="y", NAME="z")
        assert tidy(made) and list(unknown(made, SETTINGS)) == [], name


@pytest.mark.parametrize("name", TYPOS)
def test_a_mistake_is_refused_in_a_sentence(name, tmp_path):
    done = run("tenants", "list", "--data-dir", str(tmp_path / "data"), **{name: TYPOS[name]})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert name.strip("\ufeff") in done.stderr
    assert not (tmp_path / "data").exists()


def test_help_helps_also_whom_a_mistake_brought_here():
    mistake = {"BOTWIRE_SERVER_PROT": "1"}
    hint = run("tenants", "list", **mistake).stderr
    assert "did you mean BOTWIRE_SERVER_PORT?" in hint
    for arguments in (["--version"], ["--help"], ["serve", "--help"], ["keys", "create", "-h"]):
        assert run(*arguments, **mistake).returncode == 0


@pytest.mark.parametrize("around", ["\n", "\r\n", "\r", " ", "\t", "\ufeff"])
def test_what_an_editor_leaves_around_a_value_is_taken_away(around, tmp_path):
    """Also a data directory: one whose name ends in a carriage return would be another."""
    data = tmp_path / "data"
    done = run(
        "tenants",
        "create",
        "acme",
        BOTWIRE_SERVER_DATA_DIR=f"{data}{around}",
        BOTWIRE_SERVER_DURABILITY=f"{around}full{around}",
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    found = run(
        "doctor", BOTWIRE_SERVER_LOG_LEVEL=f"info{around}", BOTWIRE_SERVER_DATA_DIR=str(data)
    )
    assert found.returncode == 0, found.stderr


# Secrets.


@pytest.fixture
def endpoint():
    made = EmbeddingEndpoint()
    yield made
    made.close()


def serve_with_a_key(make_server, monkeypatch, endpoint, *options: str, **variables: str) -> Server:
    monkeypatch.setattr("serving.environment", lambda **more: environment(**variables, **more))
    return make_server("--embedder", f"openai:mini@{endpoint.url}", *options)


def store(server: Server) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/memory/semantic",
        json={"agent_id": "a", "content": "Ann plays chess"},
        timeout=PATIENCE,
    )


AROUND = [("", "\n"), ("", "\r\n"), ("\ufeff", "\n"), (" ", " \n\n"), ("", "")]


@pytest.mark.parametrize(("before", "behind"), AROUND)
@pytest.mark.parametrize("place", ["variable", "file", "option"])
def test_a_secret_is_read_as_it_was_meant(
    make_server, monkeypatch, tmp_path, endpoint, before, behind, place
):
    written = f"{before}sk-secret{behind}"
    variables, options = {}, []
    if place == "variable":
        variables = {"BOTWIRE_SERVER_EMBEDDER_KEY": written}
    elif place == "option":
        options = ["--embedder-key", written]
    else:
        (tmp_path / "secret").write_text(written, newline="")
        variables = {"BOTWIRE_SERVER_EMBEDDER_KEY_FILE": f"{tmp_path / 'secret'}{behind}"}
    server = serve_with_a_key(make_server, monkeypatch, endpoint, *options, **variables)
    assert store(server).status_code == 201
    assert endpoint.keys[0] == "Bearer sk-secret"


def test_a_secret_is_never_guessed_at(make_server, monkeypatch, endpoint):
    """Quotation marks around it, or anything that no header takes: a sentence, not the secret."""
    for key in ('"sk-secret"', "'sk-secret'", "sk secret", "sk-ßecret", "sk-\x07ecret"):
        with pytest.raises(AssertionError, match="BOTWIRE_SERVER_EMBEDDER_KEY") as refused:
            serve_with_a_key(make_server, monkeypatch, endpoint, BOTWIRE_SERVER_EMBEDDER_KEY=key)
        assert "ecret" not in str(refused.value)
        assert "Traceback" not in str(refused.value)


SECRETS = sorted(
    variable(name)
    for name, field in Config.__dataclass_fields__.items()
    if field.metadata.get("secret")
)


def test_every_secret_has_a_file():
    assert SECRETS == ["BOTWIRE_SERVER_EMBEDDER_KEY", "BOTWIRE_SERVER_SUMMARIZER_KEY"]
    said = run("serve", "--help").stdout
    for name in SECRETS:
        assert name in said


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("what", ["missing", "both", "directory", "empty", "bytes", "unreadable"])
def test_a_file_that_is_no_secret_is_refused_by_name(tmp_path, name, what):
    path = tmp_path / "secret"
    variables = {f"{name}_FILE": str(path)}
    if what == "both":
        path.write_text("one")
        variables[name] = "sk-two"
    elif what == "directory":
        path.mkdir()
    elif what == "empty":
        path.write_text("\n")
    elif what == "bytes":
        path.write_bytes("sk-secret".encode("utf-16"))
    elif what == "unreadable":
        path.symlink_to(path)
    data = str(tmp_path / "data")
    done = run("serve", "--data-dir", data, "--port", "0", **variables)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{name}_FILE" in done.stderr
    assert "sk-two" not in done.stderr
    assert not os.path.exists(data)
    # Commands that need no secret run all the same.
    assert run("tenants", "create", "acme", "--data-dir", data, **variables).returncode == 0
    assert run("--version", **variables).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_another_user_owns_is_named(tmp_path):
    path = tmp_path / "secret"
    path.write_text("sk-secret")
    path.chmod(0o600)
    os.chmod(tmp_path, 0o711)
    program = (
        "import os\n"
        "from botwire_server.environment import secret\n"
        "from botwire_server.errors import Unusable\n"
        "os.setuid(12345)\n"
        "try:\n    secret(os.environ, 'X')\n"
        "except Unusable as error:\n    print(error.message)\n"
    )
    arguments = command(X_FILE=str(path))
    arguments["args"] = [arguments["args"][0], "-c", program]
    done = subprocess.run(**arguments, capture_output=True, text=True, check=True).stdout
    assert "X_FILE names" in done and "may not read" in done


def test_an_option_wins_over_both(make_server, monkeypatch, tmp_path, endpoint):
    (tmp_path / "secret").write_text("sk-file\n")
    server = serve_with_a_key(
        make_server,
        monkeypatch,
        endpoint,
        "--embedder-key",
        "sk-option",
        BOTWIRE_SERVER_EMBEDDER_KEY="sk-variable",
        BOTWIRE_SERVER_EMBEDDER_KEY_FILE=str(tmp_path / "secret"),
    )
    assert store(server).status_code == 201
    assert endpoint.keys[0] == "Bearer sk-option"


def test_other_commands_read_the_file_too(tmp_path, endpoint):
    (tmp_path / "secret").write_text("sk-file\n")
    variables: dict[str, Any] = {
        "BOTWIRE_SERVER_DATA_DIR": str(tmp_path / "data"),
        "BOTWIRE_SERVER_EMBEDDER": f"openai:mini@{endpoint.url}",
        "BOTWIRE_SERVER_EMBEDDER_KEY_FILE": str(tmp_path / "secret"),
    }
    found = run("doctor", **variables)
    assert found.returncode == 0, found.stdout
    assert "variable BOTWIRE_SERVER_EMBEDDER_KEY_FILE" in found.stdout
    assert "sk-file" not in found.stdout
    assert endpoint.keys[0] == "Bearer sk-file"
    run("tenants", "create", "acme", **variables)
    assert run("reembed", **variables).returncode == 0
