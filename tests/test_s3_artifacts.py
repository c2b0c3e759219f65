"""The artifact store in a bucket: as the one in a folder, with the same keys and bytes."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from swefactory.artifacts import LocalArtifacts, digest_of, key_of
from swefactory.config import Settings
from swefactory.errors import ArtifactError
from swefactory.protocols import ArtifactStore
from swefactory.wiring import make_artifacts

_BUCKET, _SECRET = "sealed", "a-secret-key-of-s3"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket, and its address and keys where boto3 looks for them."""
    told = {"ENDPOINT_URL_S3": server, "ACCESS_KEY_ID": "someone", "SECRET_ACCESS_KEY": _SECRET,
            "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "1"}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    made = boto3.resource("s3").create_bucket(Bucket=_BUCKET)
    yield made
    made.objects.delete()
    made.delete()


def store_of(url: str) -> ArtifactStore:
    return make_artifacts(Settings(artifact_url=url))


def test_what_was_put_is_got_by_another_and_equal_content_is_one_object(bucket: Any) -> None:
    ref = store_of(f"s3://{_BUCKET}/of/ours").put(b"a log\n" * 1000, "text/plain")
    assert (ref.size_bytes, ref.digest) == (6000, digest_of(b"a log\n" * 1000))
    assert store_of(f"s3://{_BUCKET}/of/ours/").get(ref.digest) == b"a log\n" * 1000
    assert store_of(f"s3://{_BUCKET}/of/ours").put(b"a log\n" * 1000, "application/json").digest == ref.digest
    assert [found.key for found in bucket.objects.all()] == [f"of/ours/{key_of(ref.digest)}"]


def test_moving_from_a_folder_is_copying_its_files(bucket: Any, tmp_path: Path) -> None:
    ref = LocalArtifacts(tmp_path).put(b"kept in a folder so far", "text/plain")
    for path in tmp_path.rglob("*.z"):
        bucket.upload_file(str(path), path.relative_to(tmp_path).as_posix())
    assert store_of(f"s3://{_BUCKET}").get(ref.digest) == b"kept in a folder so far"


@pytest.mark.parametrize("stored", [zlib.compress(b"lie"), b"no zlib at all"])
def test_a_damaged_object_is_refused(bucket: Any, stored: bytes) -> None:
    digest = digest_of(b"truth")
    bucket.put_object(Key=key_of(digest), Body=stored)
    with pytest.raises(ArtifactError, match=f"{digest} at s3://{_BUCKET}/sha256/.* (is damaged|cannot be read)"):
        store_of(f"s3://{_BUCKET}").get(digest)


def test_what_is_missing_and_where_is_said(bucket: Any) -> None:
    with pytest.raises(ArtifactError, match=rf"cannot read artifact .* in the bucket {_BUCKET}.*NoSuchKey"):
        store_of(f"s3://{_BUCKET}").get(digest_of(b"never stored"))
    with pytest.raises(ArtifactError, match="is not an artifact's name"):
        store_of(f"s3://{_BUCKET}").get("sha256:../../etc/passwd")
    with pytest.raises(ArtifactError, match=r"cannot store artifact .* in the bucket elsewhere.*NoSuchBucket"):
        store_of("s3://elsewhere").put(b"x", "text/plain")


def test_a_server_that_is_away_is_one_sentence_without_the_key(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(ArtifactError, match="cannot store artifact") as caught:
        store_of(f"s3://{_BUCKET}").put(b"x", "text/plain")
    assert _SECRET not in str(caught.value)


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="artifact_url"):
        Settings(artifact_url="https://bucket")
