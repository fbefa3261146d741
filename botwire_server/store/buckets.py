"""Backups in a bucket of S3-compatible storage, through boto3 (the extra `s3`).

Credentials, region and endpoint come from where boto3 looks for them: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL_S3, profiles, the machine's role.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from botwire_server.errors import Unavailable, Unusable
from botwire_server.lazy import boto3, botocore
from botwire_server.store.places import (
    LOCKED,
    Directory,
    Missing,
    Place,
    checked,
    is_ours,
    new_file,
    other_size,
)
from botwire_server.store.staging import staging

SCHEME = "s3://"
# The lock is renewed while its holder lives; one that is older was left by a crash.
LEASE_SECONDS = 120.0
_MOST_AT_ONCE = 1_000
# What looks like an address and is none that is known; most often a slip in s3://.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_MISSING = {"NoSuchKey", "404", "NotFound"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def place_at(text: str) -> Place:
    """Where `text` says that a backup lies: s3://bucket/prefix, or a directory."""
    if not text.strip():
        raise Unusable("The backup's place is empty: name a directory or s3://bucket/prefix.")
    if not text.startswith(SCHEME):
        if _ADDRESS.match(text):
            raise Unusable(
                f"{text} is no place for backups: name a directory, or s3://bucket/prefix. A "
                "directory whose name looks so is written with ./ before it."
            )
        return Directory(Path(text).absolute())
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise Unusable("The backup's address must name a bucket, such as s3://bucket/prefix.")
    return Bucket(bucket, prefix.strip("/"))


class Bucket:
    """Backups in a bucket, below a prefix."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            self._client: Any = boto3.session.Session().client("s3")
        except ImportError as error:
            raise Unusable(
                "Backups to s3:// need boto3: run `pip install 'botwire-server[s3]'`."
            ) from error
        except botocore.exceptions.BotoCoreError as error:
            raise _refused(error) from error

    @property
    def shown(self) -> str:
        """See `Place`."""
        return f"{SCHEME}{self._bucket}/{self._prefix}".rstrip("/")

    def require(self) -> None:
        """See `Place`."""
        if not self.paths("generations/"):
            raise Unusable(f"{self.shown} holds no backup.")

    def paths(self, prefix: str) -> list[str]:
        """See `Place`."""
        with _explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return [path for key in keys if is_ours(path := key.removeprefix(self._prefix))]

    def read(self, path: str, *, most: int) -> bytes:
        """See `Place`."""
        with _explained():
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(path))
            with closing(answer["Body"]) as body:
                content: bytes = body.read(most + 1)
        if len(content) > most:
            raise other_size(path)
        return content

    def fetch(self, path: str, file: Path, *, size: int) -> None:
        """See `Place`."""
        with _explained():
            key = self._key(path)
            if self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"] != size:
                raise other_size(path)
            with new_file(file) as opened:
                sink = _Sink(opened, size, path)
                self._client.download_fileobj(self._bucket, key, sink)
        if sink.left:
            raise other_size(path)

    def write(self, path: str, content: bytes) -> None:
        """See `Place`."""
        with _explained():
            self._client.put_object(Bucket=self._bucket, Key=self._key(path), Body=content)

    def put(self, path: str, file: Path) -> None:
        """See `Place`."""
        with _explained():
            self._client.upload_file(str(file), self._bucket, self._key(path))
        file.unlink()

    def settle(self) -> None:
        """See `Place`. An upload that was answered is durable."""

    def remove(self, paths: Iterable[str]) -> None:
        """See `Place`."""
        keys = [self._key(path) for path in paths]
        with _explained():
            versioned = self._versioned() if keys else False
            for start in range(0, len(keys), _MOST_AT_ONCE):
                some = [{"Key": key} for key in keys[start : start + _MOST_AT_ONCE]]
                if versioned:
                    some = [version for each in some for version in self._versions(each["Key"])]
                self._delete(some)

    def scratch(self, data_dir: Path) -> AbstractContextManager[Path]:
        """See `Place`. In the data directory: what a crash leaves there is cleared away."""
        return staging(data_dir)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Place`. Storage that knows no conditional writes locks nobody out."""
        token = secrets.token_hex(8).encode()
        self._take_lock(token)
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(token, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with _explained():
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + "lock")

    def _take_lock(self, token: bytes) -> None:
        key = {"Bucket": self._bucket, "Key": self._prefix + "lock"}
        for _ in range(2):
            with _explained():
                try:
                    self._client.put_object(**key, Body=token, IfNoneMatch="*")
                    return
                except botocore.exceptions.ClientError as error:
                    if _code(error) not in _TAKEN:
                        raise
                held = self._client.head_object(**key)
                age = time.time() - held["LastModified"].timestamp()
                if age < LEASE_SECONDS:
                    raise Unavailable(LOCKED)
                self._client.delete_object(**key)
        raise Unavailable(LOCKED)

    def _renew(self, token: bytes, ended: threading.Event) -> None:
        while not ended.wait(LEASE_SECONDS / 4):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + "lock", Body=token)
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                continue  # the next turn may work; what matters fails by itself

    def _versioned(self) -> bool:
        try:
            answer = self._client.get_bucket_versioning(Bucket=self._bucket)
        except botocore.exceptions.ClientError:  # not every storage, nor every key, can tell
            return False
        return answer.get("Status") in ("Enabled", "Suspended")

    def _versions(self, key: str) -> Iterator[dict[str, str]]:
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket, Prefix=key
        )
        for page in pages:
            for each in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                if each["Key"] == key:
                    yield {"Key": key, "VersionId": each["VersionId"]}

    def _delete(self, objects: list[dict[str, str]]) -> None:
        for start in range(0, len(objects), _MOST_AT_ONCE):
            answer = self._client.delete_objects(
                Bucket=self._bucket,
                Delete={"Objects": objects[start : start + _MOST_AT_ONCE], "Quiet": True},
            )
            if answer.get("Errors"):
                raise Unavailable("The storage did not remove everything; do this again.")

    def _key(self, path: str) -> str:
        return self._prefix + checked(path)


class _Sink:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: BinaryIO, size: int, path: str) -> None:
        self._file = file
        self._path = path
        self.left = size

    def write(self, part: bytes) -> int:
        self.left -= len(part)
        if self.left < 0:
            raise other_size(self._path)
        return self._file.write(part)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except botocore.exceptions.ClientError as error:
        if _code(error) in _MISSING:
            raise Missing from error
        raise _refused(error) from error
    except (botocore.exceptions.BotoCoreError, boto3.exceptions.Boto3Error) as error:
        raise _refused(error) from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refused(error: Exception) -> Unavailable:
    """What went wrong, by its code or class: its text may quote anything."""
    cause = _code(error) if hasattr(error, "response") else type(error).__name__
    hint = {
        "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
        "EndpointConnectionError": "is AWS_ENDPOINT_URL_S3 right?",
        "NoSuchBucket": "make the bucket first",
        "NoRegionError": "set AWS_REGION",
    }.get(cause, "see your storage's documentation")
    return Unavailable(f"The storage did not do it ({cause}): {hint}.")
