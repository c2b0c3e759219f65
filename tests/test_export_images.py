"""Images of an export: pushed to a real registry, or a layout in the folder, by a real engine; each row says which."""

import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from db.engine import session
from swefactory.artifacts import LocalArtifacts
from swefactory.config import Settings
from swefactory.exports import swebench_folder
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource, image_name, made_from
from swefactory.exports.oci import OciLayout
from swefactory.instance_runs import load_instance
from swefactory.sandboxes.docker_images import MADE_FROM
from swefactory.wiring import make_docker, make_services
from tests.test_exports import UNCERTIFIED, fill
from tests.test_exports_to_train import validated

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def image(catalog: Engine, settings: Settings, docker_engine: Any) -> Iterator[str]:
    """The name of an image of a few bytes in the place of an instance's: what it holds is not what is tested here."""
    fill(catalog, LocalArtifacts(settings.artifacts_dir))
    with session(catalog) as db:
        instance = load_instance(db, validated(db).id or 0)
    name = image_name(instance)
    repository, _, tag = name.partition(":")
    labels = [f"LABEL swefactory=1 {MADE_FROM}={made_from(instance)}"]
    root = packed({"testbed/a.py": b"x = 1\n"})
    docker_engine.api.import_image_from_data(root, repository=repository, tag=tag, changes=labels)
    yield name
    for tagged in docker_engine.images.get(name).tags:
        docker_engine.images.remove(tagged)


def written(
    catalog: Engine, settings: Settings, source: ImageSource, out: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The line of images.jsonl and the row that an export with these images holds."""
    images = Images(source, make_services(settings, catalog), make_docker(settings), settings.image_registry)
    folder = swebench_folder.write(catalog, images, UNCERTIFIED, out).target
    (line,), (row,) = ((folder / name).read_text().splitlines() for name in ("images.jsonl", "swebench.jsonl"))
    return json.loads(line), json.loads(row)


def test_images_are_pushed_and_each_row_names_the_registrys_digest(
    catalog: Engine, settings: Settings, image: str, registry: str, tmp_path: Path
) -> None:
    there = settings.model_copy(update={"image_registry": f"{registry}/team"})
    line, row = written(catalog, there, ImageSource.REGISTRY, tmp_path / "export")
    assert line["image"] == row["image"] == f"{registry}/team/{image}"
    assert (line["source"], row["image_source"]) == ("registry", "registry")
    repository, _, tag = image.partition(":")
    asked = urllib.request.Request(
        f"http://{registry}/v2/team/{repository}/manifests/{tag}", headers={"Accept": MANIFEST}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert line["digest"] == f"sha256:{hashlib.sha256(answer.read()).hexdigest()}"


def test_a_layout_holds_each_image_whole_and_every_blob_is_what_its_name_says(
    catalog: Engine, settings: Settings, image: str, tmp_path: Path, docker_engine: Any
) -> None:
    line, row = written(catalog, settings, ImageSource.OCI, tmp_path / "export")
    layout = tmp_path / "export" / "oci"
    assert (line["image"], row["image_source"]) == (image, "oci")
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == image
    assert entry["digest"] == line["digest"]
    blobs = {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs.items())
    manifest = json.loads(blobs[entry["digest"].removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
    for part in (manifest["config"], *manifest["layers"]):
        assert part["size"] == len(blobs[part["digest"].removeprefix("sha256:")])
    with tarfile.open(fileobj=io.BytesIO(blobs[manifest["layers"][0]["digest"].removeprefix("sha256:")])) as layer:
        assert layer.extractfile("testbed/a.py").read() == b"x = 1\n"  # type: ignore[union-attr]
    sums = (tmp_path / "export" / "SHA256SUMS").read_text()
    assert all(f"{name}  oci/blobs/sha256/{name}" in sums for name in blobs)


def test_a_layer_that_two_images_share_is_stored_once(tmp_path: Path) -> None:
    """As `docker save` of 20.10 writes them: the second time a layer comes as a link."""

    def saved(config: bytes, layers: list[bytes]) -> bytes:
        names = [f"{n}/layer.tar" for n in range(len(layers))]
        told = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": names}]).encode()
        return packed({"c.json": config, **dict(zip(names, layers, strict=True)), "manifest.json": told})

    layout = OciLayout(tmp_path / "oci")
    layout.add("one:1", [saved(b"{}", [b"base", b"one"])])
    layout.add("two:1", [saved(b"{ }", [b"base", b"two"])])
    blobs = list((tmp_path / "oci" / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3 + 2 + 2  # layers, configurations, manifests
