"""Archives that become more than they are: in memory, on the disk, in depth, or without an end."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import command
from tenancy import cli, cli_json, make_tenant

from botwire_server.store import bounded

MEGABYTE = 1_048_576
MOST_MEMORY = 300 * MEGABYTE

Members = dict[str, Callable[[Any], None]]


def sealed(file: Path, members: Members) -> Path:
    """An archive whose seal is right. Each member writes itself to a stream."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, write in members.items():
            with archive.open(name, "w", force_zip64=True) as out:
                write(out)
        archive.comment = b"0" * 64
    content = file.read_bytes()[:-64]
    file.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    return file


def archive(file: Path, lines: Callable[[], Any], records: int, *, namespaces: int = 1) -> Path:
    """An archive that is right but for what its only member holds."""
    digest = hashlib.sha256()
    for line in lines():
        digest.update(line)
    members = [
        {
            "kind": "entries",
            "path": "namespaces/0/entries.jsonl",
            "records": records,
            "sha256": digest.hexdigest(),
        }
    ]
    manifest = {
        "format": "botwire-server tenant",
        "version": 1,
        "tenant": "bomb",
        "tier": "unlimited",
        "exported_at": "2026-11-20T12:00:00.000Z",
        "namespaces": [
            {
                "name": f"n{number}",
                "id": f"{number:015x}",
                "created_at": 1.0,
                "members": [] if number else members,
            }
            for number in range(namespaces)
        ],
    }

    def write(out: Any) -> None:
        for line in lines():
            out.write(line)

    return sealed(
        file,
        {
            "namespaces/0/entries.jsonl": write,
            "manifest.json": lambda out: out.write(json.dumps(manifest).encode()),
        },
    )


def record(key: str, value: bytes, revision: int = 1) -> bytes:
    return (
        b'{"key":"%s","value":%s,"revision":%d,"created_at":1.0,"updated_at":1.0,"expires_at":null}\n'
        % (key.encode(), value, revision)
    )


def import_(data: Path, file: Path, *more: str) -> tuple[int, str, int]:
    """Exit code, what it said, and the most memory it took."""
    run = command("tenants", "import", str(file), "--data-dir", str(data), *more)
    # What is told of a process includes the one that forked it, so a small one does.
    run["args"] = [sys.executable, "-c", MEASURING, *run["args"]]
    done = subprocess.run(
        **run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    said, _, most = done.stdout.rpartition("most: ")
    return done.returncode, said, int(most) * 1024


MEASURING = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("most:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
sys.exit(code)
"""


def held(data: Path) -> int:
    return sum(path.stat().st_size for path in data.rglob("*") if path.is_file())


@pytest.fixture
def data(tmp_path) -> Path:
    make_tenant(tmp_path / "data", "somebody")
    return tmp_path / "data"


def repeated(begin: bytes, piece: bytes, end: bytes, *, megabytes: int) -> Callable[[Any], None]:
    def write(out: Any) -> None:
        out.write(begin)
        for _ in range(megabytes):
            out.write(piece * (MEGABYTE // len(piece)))
        out.write(end)

    return write


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'{"a":1},', b"1.5,", b" ", b'"a",', b"[", b'"'])
@pytest.mark.parametrize("where", ["manifest", "record"])
def test_little_becomes_no_great_memory(data, tmp_path, where, piece):
    before = held(data)
    write = repeated(
        b'{"format":[' if where == "manifest" else b'{"key":[', piece, b"0]}\n", megabytes=60
    )
    name = "manifest.json" if where == "manifest" else "namespaces/0/entries.jsonl"
    if where == "manifest":
        file = sealed(tmp_path / "bomb.zip", {name: write})
    else:

        def lines():
            yield b'{"key":"k","value":['
            for _ in range(60):
                yield piece * (MEGABYTE // len(piece))
            yield b"0]}\n"

        file = archive(tmp_path / "bomb.zip", lines, 1)
    assert file.stat().st_size < MEGABYTE
    code, said, memory = import_(data, file)
    assert code == 1 and "Nothing of it was taken in" in said, said
    assert "Traceback" not in said
    assert memory < MOST_MEMORY
    assert held(data) < before + MEGABYTE


def small_becomes_large(tmp_path: Path) -> Path:
    value = b'"%s"' % (b"x" * MEGABYTE)

    def lines():
        for number in range(200):
            yield record(f"k{number}", value, number + 1)

    return archive(tmp_path / "bomb.zip", lines, 200)


def test_little_becomes_no_great_file(data, tmp_path):
    before = held(data)
    file = small_becomes_large(tmp_path)
    assert file.stat().st_size < MEGABYTE
    code, said, _ = import_(data, file)
    assert code == 1 and "--any-size" in said and "would become" in said
    assert held(data) < before + MEGABYTE
    # One's own comes back all the same.
    code, said, _ = import_(data, file, "--any-size")
    assert code == 0, said
    assert cli_json(data, "tenants", "show", "bomb")["entries"] == 200
    assert held(data) - before < 2 * 200 * MEGABYTE


@pytest.mark.parametrize("namespaces", [1, 400])
def test_room_is_asked_for_before_anything_is_built(data, tmp_path, namespaces):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        make_tenant(small, "somebody")
        before = held(small)
        if namespaces == 1:
            file = small_becomes_large(tmp_path)
        else:  # each is a file, also an empty one
            file = archive(tmp_path / "many.zip", lambda: [record("k", b"1")], 1, namespaces=400)
        code, said, _ = import_(small, file, "--any-size")
        assert code == 1 and "are free" in said and "Nothing was changed" in said, said
        assert held(small) < before + MEGABYTE
        assert cli_json(small, "tenants", "list")[0]["tenant"] == "somebody"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_record_is_no_deeper_than_the_server_takes_it(data, tmp_path):
    for depth, code in ((64, 0), (200, 1), (900, 1), (100_000, 1)):
        value = b"[" * depth + b"]" * depth
        file = archive(tmp_path / f"{depth}.zip", lambda value=value: [record("k", value)], 1)
        done = cli(data, "tenants", "import", str(file), "--as", f"t{depth}", expect=code)
        assert code == 0 or "Nothing of it was taken in" in done.stderr


@pytest.mark.parametrize("kind", ["device", "pipe", "directory", "link to a device"])
def test_what_is_no_file_is_not_read(data, tmp_path, kind):
    path = {"device": Path("/dev/zero"), "directory": tmp_path}.get(kind, tmp_path / "there")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    code, said, memory = import_(data, path)
    assert code in (1, 2) and ("is no file" in said or "is a directory" in said)
    assert memory < MOST_MEMORY


def test_texts_that_look_heavy_are_taken():
    text = "[{," * 1_000_000
    assert bounded.loads(json.dumps({"value": text}).encode()) == {"value": text}
    with pytest.raises(ValueError, match="memory"):
        bounded.loads(b"[" + b"[]," * 1_000_000 + b"0]")
