"""The artifact store in a bucket of Amazon S3 or of anything that speaks its protocol (MinIO, Ceph, R2, …).

One property: an artifact is whole or not there, as a bucket shows an object when all of it has come and not before.
The same keys and bytes as in a folder, so that copying one to the other is all that moving takes. Address, region and
credentials are boto3's own: AWS_ENDPOINT_URL_S3, AWS_SHARED_CREDENTIALS_FILE, a machine's role, …

Source: https://docs.aws.amazon.com/boto3/latest/guide/configuration.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from swefactory.artifacts import digest_of, key_of, packed, unpacked
from swefactory.errors import ArtifactError
from swefactory.protocols import ArtifactRef

_ABSENT = {"404", "NoSuchKey"}
_CONFIG = Config(connect_timeout=10, read_timeout=60)


class S3Artifacts:
    """Artifacts in `bucket`, below `prefix`. Connects with the first request, in whichever process makes it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def put(self, content: bytes, media_type: str) -> ArtifactRef:
        """Sends `content` unless it is there."""
        digest = digest_of(content)
        with self._told(f"store artifact {digest[:19]}… ({len(content)} bytes)"):
            if not self._has(digest):
                self._client.put_object(**self._object(digest), Body=packed(content))
        return ArtifactRef(digest, len(content), media_type)

    def get(self, digest: str) -> bytes:
        """The bytes named `digest`, checked against it."""
        wanted = self._object(digest)
        with self._told(f"read artifact {digest}"):
            stored: bytes = self._client.get_object(**wanted)["Body"].read()
        return unpacked(stored, digest, f"s3://{self._bucket}/{wanted['Key']}")

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401  boto3 makes its classes while it runs
        return boto3.session.Session().client("s3", config=_CONFIG)

    def _has(self, digest: str) -> bool:
        try:
            self._client.head_object(**self._object(digest))
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return False
            raise
        return True

    def _object(self, digest: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key_of(digest)}

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, Boto3Error, ClientError) as error:
            raise ArtifactError(
                f"cannot {what} in the bucket {self._bucket}: {error}; look at SWEFACTORY_ARTIFACT_URL and at boto3's "
                "own settings (AWS_ENDPOINT_URL_S3, credentials, region)"
            ) from error
