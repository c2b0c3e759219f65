"""Images of a docker engine as an OCI layout: oci-layout, index.json, blobs/sha256/HEX. One property: a layer that
several images share is stored once, and every blob's bytes were hashed on the way.

Docker's own `save` is a tar of another form; its layers become blobs as they are (uncompressed, so that a blob's
digest is the layer's diff id). Read by skopeo, podman and containerd: `skopeo copy oci:oci:NAME docker-daemon:NAME`.
"""

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from swefactory.errors import InfrastructureError
from swefactory.exports.folder import ExportFolder

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = 2**20


class OciLayout:
    """A layout while images are added to it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._blobs = folder, folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._manifests: list[dict[str, Any]] = []
        self._sizes: dict[str, int] = {}

    def add(self, name: str, saved: Iterable[bytes]) -> str:
        """Adds an image from what the engine's `save` streams; its manifest's digest."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for block in saved:
                file.write(block)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                return self._converted(name, archive)

    def finish(self, folder: ExportFolder) -> None:
        """Writes the index and notes every file."""
        index = {"schemaVersion": 2, "manifests": self._manifests}
        base = self._folder.relative_to(folder.path)
        for digest in sorted(self._sizes):
            folder.written(f"{base}/blobs/sha256/{digest}", digest)
        folder.write(f"{base}/oci-layout", '{"imageLayoutVersion": "1.0.0"}')
        folder.write(f"{base}/index.json", json.dumps(index, sort_keys=True))

    def _converted(self, name: str, archive: tarfile.TarFile) -> str:
        manifest = json.loads(self._member(archive, "manifest.json").read())[0]
        config = self._put(self._member(archive, manifest["Config"]))
        layers = [self._put(self._member(archive, path)) for path in manifest["Layers"]]
        content = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._descriptor(_CONFIG, config),
            "layers": [self._descriptor(_LAYER, layer) for layer in layers],
        }
        digest = self._put_bytes(json.dumps(content, sort_keys=True).encode())
        annotations = {"org.opencontainers.image.ref.name": name}
        self._manifests.append({**self._descriptor(_MANIFEST, digest), "annotations": annotations})
        return f"sha256:{digest}"

    @staticmethod
    def _member(archive: tarfile.TarFile, path: str) -> IO[bytes]:
        try:
            found = archive.extractfile(path)  # follows the links that docker makes for layers it has twice
        except KeyError:
            found = None
        if found is None:
            raise InfrastructureError(f"what docker saved holds no {path}; is the engine older than 1.10?")
        return found

    def _descriptor(self, kind: str, digest: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": self._sizes[digest]}

    def _put(self, source: IO[bytes]) -> str:
        hashed, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self._blobs, delete=False) as part:
            while block := source.read(_BLOCK):
                part.write(block)
                hashed.update(block)
                size += len(block)
        os.chmod(part.name, 0o644)
        digest = hashed.hexdigest()
        os.replace(part.name, self._blobs / digest)
        self._sizes[digest] = size
        return digest

    def _put_bytes(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self._blobs / digest).write_bytes(content)
        self._sizes[digest] = len(content)
        return digest
