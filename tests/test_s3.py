"""Backups in a bucket, against S3-compatible storage that runs: `scripts/test-s3` starts one.

Left out where there is none: TEST_S3_ENDPOINT is its address.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import pytest
from backing_up import fill, held, sound
from serving import query
from tenancy import Keyed, cli, cli_json
from test_backup import FIRST, back_up, data, restore

from botwire_server.lazy import boto3
from botwire_server.store import buckets
from botwire_server.store.buckets import place_at

__all__ = ["data"]  # a fixture

ENDPOINT = os.environ.get("TEST_S3_ENDPOINT")
pytestmark = [
    pytest.mark.skipif(ENDPOINT is None, reason="scripts/test-s3 runs this"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_numbers = itertools.count(1)


@pytest.fixture
def client(monkeypatch):
    """The storage, as its owner sees it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(ENDPOINT))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.client("s3")


@pytest.fixture
def bucket(client) -> str:
    """A bucket of one's own."""
    name = f"bucket-{os.getpid()}-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def dest(bucket) -> str:
    """Where to back up to."""
    return f"s3://{bucket}/some/prefix"


def stored(client, bucket: str) -> dict[str, bytes]:
    """Every object, also versions that lie below others."""
    answer = client.list_object_versions(Bucket=bucket)
    found = {}
    for each in answer.get("Versions", []):
        body = client.get_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
        found[f"{each['Key']}@{each['VersionId']}"] = body["Body"].read()
    return found


def test_there_and_back(data, dest, client, bucket, tmp_path):
    done = back_up(data, dest)
    assert (done["backup"], done["copied"]) == (dest, 3)
    fill(data, {"acme": {"north": {"a": "changed"}}})
    assert back_up(data, dest)["copied"] == 1
    for key in stored(client, bucket):
        assert key.startswith("some/prefix/")
        assert not key.startswith("some/prefix/lock")  # let go of
    restore(tmp_path / "other", dest)
    assert held(tmp_path / "other")["acme"]["north"] == {"a": "changed", "b": "two"}
    sound(tmp_path / "other")
    first = cli_json_of(dest)[-1]["generation"]
    restore(tmp_path / "other", dest, "--generation", first, "--yes")
    assert held(tmp_path / "other") == FIRST
    # Nothing is left of what was prepared here.
    sound(data)


def cli_json_of(dest: str) -> list[dict]:
    from botwire_server.store import restore as reading

    return reading.listing(place_at(dest))


def test_one_tenant_beside_a_server(data, dest):
    back_up(data, dest, "--tenant", "acme")
    fill(data, {"acme": {"north": {"a": "LATER"}}})
    with Keyed(data) as server:
        client = server.client(str(server.key("acme")["key"]))
        assert client.get("/memory/north/a").json()["value"] == "LATER"
        restore(data, dest, "--tenant", "acme", "--yes")
        assert client.get("/memory/north/a").json()["value"] == "one"
    sound(data)


def test_generations_go(data, dest, client, bucket):
    for number in range(4):
        fill(data, {"acme": {"north": {"a": f"text number {number}"}}})
        back_up(data, dest, "--keep", "2")
    content = b"".join(stored(client, bucket).values())
    assert b"text number 3" in content and b"text number 2" in content
    assert b"text number 1" not in content


@pytest.mark.parametrize("versioned", [False, True])
def test_a_purge_reaches_the_backup(data, dest, client, bucket, versioned):
    if versioned:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    fill(data, {"acme": {"zebra-ns": {"quokka-key": "wombat-text"}}})
    back_up(data, dest)
    back_up(data, dest, "--tenant", "acme")
    fill(data, {"acme": {"zebra-ns": {"quokka-key": "wombat-text again"}}})
    back_up(data, dest)
    [[digest]] = query(
        data / "control.db",
        "SELECT hash FROM keys JOIN tenants t ON t.id = tenant_id WHERE t.name = 'acme'",
    )
    receipt = cli_json(data, "tenants", "purge", "acme", "--yes", "--backup", dest)
    assert receipt["backups"] == [{"backup": dest, "generations": 3, "objects": 5}]
    for name, content in stored(client, bucket).items():
        for word in (b"zebra", b"quokka", b"wombat", b"acme", digest):
            assert word not in content, (name, word)
    assert f"tenants/{receipt['tenant_id']}" not in "".join(stored(client, bucket))


def test_a_bit_that_is_wrong_is_found(data, dest, client, bucket, tmp_path):
    back_up(data, dest)
    [key, *_] = [
        each["Key"]
        for each in client.list_objects_v2(Bucket=bucket)["Contents"]
        if "/tenants/" in each["Key"]
    ]
    content = bytearray(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    content[5_000] ^= 1
    client.put_object(Bucket=bucket, Key=key, Body=bytes(content))
    assert "not what was written" in restore(tmp_path / "other", dest, "--yes", expect=1)
    assert not (tmp_path / "other" / "control.db").exists()
    client.delete_object(Bucket=bucket, Key=key)
    assert "is missing" in restore(tmp_path / "other", dest, "--yes", expect=1)


def test_two_at_once_do_not_meet(data, dest, client, bucket, monkeypatch):
    with place_at(dest).locked():
        failed = cli(data, "backup", dest, expect=1)
        assert "Another command" in failed.stderr
        # One that was left by a crash is taken over.
        monkeypatch.setattr(buckets, "LEASE_SECONDS", -1.0)
        back_up(data, dest)


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "AWS_ENDPOINT_URL_S3"),
        ({"bucket": "no-such-bucket"}, "NoSuchBucket"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_wrong_with_the_storage_is_told(data, client, bucket, monkeypatch, wrong, told):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name, value in wrong.items():
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
            if value is not None:
                monkeypatch.setenv(name, value)
    place = f"s3://{wrong.get('bucket', bucket)}/prefix"
    for command in (["backup"], ["restore", "--yes"]):
        message = cli(data, *command, place, expect=1).stderr
        assert told in message or "holds no backup" in message
        assert "anything" not in message


def test_an_address_without_a_bucket(data):
    assert "must name a bucket" in cli(data, "backup", "s3://", expect=1).stderr


def test_without_boto3(data, dest, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setattr(boto3, "_module", None)
    assert "botwire-server[s3]" in cli(data, "backup", dest, expect=1).stderr


def test_scratch_files_are_private(data, dest, monkeypatch):
    seen = []
    original = buckets.Bucket.put

    def put(self, path: str, file: Path) -> None:
        seen.append(file.stat().st_mode & 0o077 | file.parent.stat().st_mode & 0o077)
        original(self, path, file)

    monkeypatch.setattr(buckets.Bucket, "put", put)
    back_up(data, dest)
    assert seen == [0] * 4
