"""The artifact store: whole or not there, named by content, honest about damage and full disks."""

import subprocess
import sys
from pathlib import Path

import pytest

from swefactory.artifacts import LocalArtifacts, digest_of
from swefactory.errors import ArtifactError


def test_what_was_put_is_got(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path)
    ref = store.put(b"a log\n" * 1000, "text/plain")
    assert ref.size_bytes == 6000
    assert store.get(ref.digest) == b"a log\n" * 1000


def test_equal_content_is_one_file(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path)
    assert store.put(b"x", "text/plain").digest == store.put(b"x", "application/json").digest
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path)
    ref = store.put(b"truth", "text/plain")
    other = store.put(b"lie", "text/plain")
    path, lie = (next(tmp_path.rglob(f"{r.digest.split(':')[1]}.z")) for r in (ref, other))
    path.write_bytes(lie.read_bytes())
    with pytest.raises(ArtifactError, match="no longer match"):
        store.get(ref.digest)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not below"):
        LocalArtifacts(tmp_path).get(digest_of(b"never stored"))


@pytest.mark.parametrize("name", ["sha256:../../etc/passwd", "md5:abc", "", "sha256:" + "Z" * 64])
def test_a_name_that_is_no_digest_reads_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact's name"):
        LocalArtifacts(tmp_path).get(name)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, sys
from swefactory.artifacts import LocalArtifacts
from swefactory.errors import ArtifactError
root = pathlib.Path({str(tmp_path)!r})
store = LocalArtifacts(root)
small = store.put(b"kept", "text/plain")
try:
    store.put(os.urandom(1_000_000), "text/plain")
except ArtifactError as error:
    print(error)
assert store.get(small.digest) == b"kept"
assert len([p for p in root.rglob("*") if p.is_file()]) == 1
"""
    mount = (
        f"mount -t tmpfs -o size=200k none {tmp_path} && exec {sys.executable} -c '{script.replace(chr(39), chr(34))}'"
    )
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, timeout=60)
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"no private mount can be made here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    assert "cannot store artifact" in ran.stdout
    assert "No space left" in ran.stdout
