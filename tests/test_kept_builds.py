"""What builds of environments leave for the next one: byte code, wheels, the resolver's answers."""

import marshal
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.image_files import image_file
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec, UvRun
from swefactory.sandboxes.build_tries import BuildTry
from swefactory.sandboxes.interpreters import find_interpreters
from swefactory.sandboxes.kept_answers import KeptAnswers
from swefactory.sandboxes.kept_bytecode import LEFT_OUT, KeptByteCode, check_argv, compile_argv
from swefactory.sandboxes.kept_wheels import KeptWheels, Pin, lock_of, needed, pins_of
from swefactory.sandboxes.shared_files import SharedFiles
from swefactory.sandboxes.wheel_filling import fill

HERE = ".".join(map(str, sys.version_info[:2]))
HASH = "    --hash=sha256:" + "0" * 64


def library(folder: Path, text: str) -> Path:
    """An environment's lib with one module, whose time is always the same."""
    package = folder / "lib" / "package"
    package.mkdir(parents=True)
    (package / "module.py").write_text(text)
    os.utime(package / "module.py", (10**9, 10**9))
    return folder / "lib"


def run_of(code: Path) -> object:
    """What a file of byte code does."""
    names: dict[str, object] = {}
    exec(marshal.loads(code.read_bytes()[16:]), names)
    return names["SAID"]


def compiled(lib: Path, kept: KeptByteCode) -> tuple[Path, int]:
    """The byte code of `lib`, and how many files had to be compiled."""
    missing = kept.lay(lib, HERE)
    for code in missing:
        py_compile.compile(str(code.parent.parent / "module.py"), str(code), doraise=True)
    kept.keep(missing)
    (code,) = (lib / "package" / "__pycache__").iterdir()
    return code, len(missing)


def unpacked(store: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel as uv unpacks it; its files are years old."""
    archive = store / "archive-v0" / name
    for path, text in {f"{name}.dist-info/METADATA": "Name: a", f"{name}.dist-info/WHEEL": "x", **files}.items():
        (archive / path).parent.mkdir(parents=True, exist_ok=True)
        (archive / path).write_text(text)
        os.utime(archive / path, (10**9, 10**9))
    return archive


def filled(lib: Path, *archives: Path) -> Path:
    """An environment's lib, filled as uv does it."""
    for archive in archives:
        for path in archive.rglob("*"):
            if path.is_file():
                (lib / path.relative_to(archive)).parent.mkdir(parents=True, exist_ok=True)
                os.link(path, lib / path.relative_to(archive))
        (lib / f"{archive.name}.dist-info" / "INSTALLER").write_text("uv")
    return lib


def test_what_two_wheels_have_in_common_is_one_file_of_one_time_in_all_environments(tmp_path: Path) -> None:
    shared = SharedFiles(tmp_path)
    files = {"a/same.py": "SAID = 1", "a/__init__.py": "", "a/run": "#!/bin/sh"}
    first = unpacked(tmp_path, "a-1", {**files, "a/other.py": "1"})
    shared.share(one := filled(tmp_path / "one", first))
    second = unpacked(tmp_path, "a-2", {**files, "a/other.py": "2", "b.py": "SAID = 1"})
    (second / "a" / "run").write_text("#!/bin/sh")
    (second / "a" / "run").chmod(0o755)
    shared.share(two := filled(tmp_path / "two", second))
    same = [place / "a" / "same.py" for place in (first, one, second, two)] + [second / "b.py", two / "b.py"]
    assert len({path.stat().st_ino for path in same}) == 1
    assert {path.stat().st_mtime for path in (*same, one / "a" / "__init__.py")} == {315532800.0}
    assert [(two / "a" / name).read_text() for name in ("same.py", "other.py")] == ["SAID = 1", "2"]
    assert not (two / "a" / "run").samefile(one / "a" / "run")  # one can be run, the other cannot
    for name, is_same in (("METADATA", False), ("WHEEL", True), ("INSTALLER", True)):
        assert (two / "a-2.dist-info" / name).samefile(one / "a-1.dist-info" / name) is is_same


@pytest.mark.parametrize("is_ours_too", [True, False])
def test_a_file_that_another_environment_has_keeps_its_time_and_its_inode(tmp_path: Path, is_ours_too: bool) -> None:
    """Until that environment is gone."""
    shared = SharedFiles(tmp_path)
    first = unpacked(tmp_path, "a-1", {"same.py": "SAID = 1"})
    shared.share(filled(tmp_path / "one", first))
    second = unpacked(tmp_path, "a-2", {"same.py": "SAID = 1"})
    before = filled(tmp_path / "before", second)
    shared.share(filled(tmp_path / "two", second) if is_ours_too else filled(tmp_path / "two", first))
    assert (before / "same.py").stat().st_mtime == 10**9
    assert (before / "same.py").samefile(second / "same.py")
    shutil.rmtree(tmp_path / "two")
    shutil.rmtree(before)
    shared.share(filled(tmp_path / "three", second))
    assert (tmp_path / "three" / "same.py").samefile(tmp_path / "one" / "same.py")


def test_wheels_that_no_environment_holds_go_and_what_others_share_stays(tmp_path: Path) -> None:
    shared = SharedFiles(tmp_path)
    files = {"same.py": "x" * 10_000, "other.py": "y" * 20_000}
    first = unpacked(tmp_path, "a-1", files)
    shared.share(filled(tmp_path / "one", first))
    second = unpacked(tmp_path, "a-2", {**files, "other.py": "z" * 40_000})
    shared.share(filled(tmp_path / "two", second))
    assert shared.drop() == 0
    own = [second / "other.py", second / "a-2.dist-info" / "METADATA"]
    n_bytes = sum(path.stat().st_blocks * 512 for path in own)
    shutil.rmtree(tmp_path / "two")
    assert shared.drop() == n_bytes > 40_000
    assert not second.exists()
    assert (first / "same.py").samefile(tmp_path / "one" / "same.py")
    shutil.rmtree(tmp_path / "one")
    assert shared.drop() > 30_000
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".content.lock"]


def test_byte_code_is_shared_where_source_time_and_path_are_the_same(tmp_path: Path) -> None:
    kept = KeptByteCode(tmp_path / "kept")
    first, n_first = compiled(library(tmp_path / "1", "SAID = 1"), kept)
    second, n_second = compiled(library(tmp_path / "2", "SAID = 1"), kept)
    other, n_other = compiled(library(tmp_path / "3", "SAID = 2"), kept)
    assert (n_first, n_second, n_other) == (1, 0, 1)
    assert first.samefile(second)
    assert (run_of(second), run_of(other)) == (1, 2)
    assert kept.drop() == 0, "both are in use"


def test_byte_code_that_a_build_left_is_neither_used_nor_kept(tmp_path: Path) -> None:
    kept = KeptByteCode(tmp_path / "kept")
    for name in ("1", "2"):
        lib = library(tmp_path / name, "SAID = 'source'")
        forged = tmp_path / name / "forged.py"
        forged.write_text("SAID = 'forged'")
        os.utime(forged, (10**9, 10**9))
        target = lib / "package" / "__pycache__" / f"module.cpython-{HERE.replace('.', '')}.pyc"
        py_compile.compile(str(forged), str(target), doraise=True)
        code, _ = compiled(lib, kept)
        assert run_of(code) == "source"


def test_byte_code_is_laid_through_no_link(tmp_path: Path) -> None:
    lib, outside = library(tmp_path / "env", "SAID = 1"), library(tmp_path / "outside", "SAID = 2")
    (lib / "package" / "__pycache__").symlink_to(outside)
    (lib / "linked").symlink_to(outside)
    compiled(lib, KeptByteCode(tmp_path / "kept"))
    assert sorted(path.name for path in outside.rglob("*")) == ["module.py", "package"]


def test_what_is_compiled_is_what_is_laid_and_the_tests_of_packages_are_left_out(tmp_path: Path) -> None:
    site = tmp_path / "lib" / f"python{HERE}" / "site-packages"
    for name in ("package/module", "package/tests/test_module", "package/testing", "package/inner/test/a", "tests/b"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / f"{name}.py").write_text("SAID = 1")
    missing = KeptByteCode(tmp_path / "kept").lay(tmp_path / "lib", HERE)
    subprocess.run(compile_argv(sys.executable, HERE, str(tmp_path / "lib")), check=True)
    assert {code.name.partition(".")[0] for code in missing} == {"module", "testing"}
    assert set(tmp_path.rglob("*.pyc")) == set(missing)
    assert f"-x '{LEFT_OUT}'" in image_file("install.sh").read_text()


def test_byte_code_that_is_not_whole_is_noticed_by_every_interpreter(tmp_path: Path) -> None:
    for version, found in find_interpreters(()).items():
        (folder := tmp_path / version).mkdir()
        (folder / "module.py").write_text("SAID = 'a sentence that is long enough to be cut'\n" * 100)
        program = str(found.path)
        subprocess.run(compile_argv(program, version, str(folder)), check=True)
        (code,) = folder.rglob("*.pyc")
        check = check_argv(program, version, str(folder))
        assert subprocess.run(check, check=False).returncode == 0, version
        code.write_bytes(code.read_bytes()[:-30])
        assert subprocess.run(check, check=False, capture_output=True).returncode == 1, version


LOCK = (
    f"# exclude-newer: 2020-01-01T00:00:00Z\none==1 \\\n{HASH} \\\n{HASH}\nTwo.x==2 ; python_version < '3'\nthree==3\n"
)


def test_a_lock_is_its_pins_with_their_hashes() -> None:
    pins = pins_of(LOCK)
    assert list(pins) == ["one", "two-x", "three"]
    assert pins["one"].lock == f"# exclude-newer: 2020-01-01T00:00:00Z\none==1 \\\n{HASH} \\\n{HASH}\n"
    assert lock_of(pins.values()) == LOCK.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("  cause: Because One.x==1.4.1 has no usable wheels and you require One.x==1.4.1, we can", "one-x"),
        ("hint: Wheels are required for `one` because building from source is disabled for all packages", "one"),
        ("hint: Wheels are\n  required for `one` because building", "one"),
        ("cause: Because one==1.10.0 has no wheels with a matching Python version tag (e.g., `cp27`) and only", "one"),
        ("error: Failed to download `one==0.7.0`\n  cause: Hash mismatch for `one==0.7.0`", "one"),
        ("error: Failed to fetch one", ""),
    ],
)
def test_uv_names_the_package_without_a_wheel(said: str, name: str) -> None:
    assert needed(said) == name


def test_a_wheel_with_compiled_code_belongs_to_its_bound(tmp_path: Path) -> None:
    kept, cache = KeptWheels(tmp_path / "kept"), tmp_path / "cache" / "sdists-v0"
    cache.mkdir(parents=True)
    early, late = pins_of(LOCK), pins_of(LOCK.replace("2020", "2021"))
    for name, wheel in (("one", "one-1-py3-none-any.whl"), ("two-x", "two_x-2-cp38-cp38-linux_x86_64.whl")):
        (cache / wheel).write_bytes(b"wheel")
        (cache / "src" / "dist").mkdir(parents=True, exist_ok=True)
        (cache / "src" / "dist" / wheel).write_bytes(b"what setup.py left in its own folder")
        assert kept.keep(early[name], "3.8", cache.parent)
        assert kept.find(early[name], "3.8")
        assert kept.find(early[name], "3.9") is None
    assert kept.find(late["one"], "3.8")
    assert kept.find(late["two-x"], "3.8") is None
    assert kept.drop() == 0, "somebody may be installing them"


def test_no_link_is_taken_for_a_wheel(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "one-1-py3-none-any.whl").symlink_to(tmp_path / "secret")
    assert KeptWheels(tmp_path / "kept").keep(pins_of(LOCK)["one"], "3.8", cache) is None


class Scripted:
    """A builder of which each answer is told beforehand; `said` is what a fill from wheels says of a package."""

    def __init__(self, cache: Path, answers: dict[str, list[int]]) -> None:
        self.cache, self.answers, self.asked = cache, answers, list[str]()

    def wheels(self, lock: str, built: Sequence[Path]) -> CommandResult:
        self.asked.append(f"wheels {len(pins_of(lock))}+{len(built)}")
        lacking = next((name for name in self.answers if f"{name}==" in lock), "")
        said = f"Wheels are required for `{lacking}`" if lacking else "filled"
        return CommandResult(1 if lacking else 0, said.encode(), 1.0)

    def source(self, pin: Pin, how: BuildTry, kept: KeptWheels) -> tuple[CommandResult, Path | None]:
        self.asked.append(f"{pin.name} {how.name}")
        code = self.answers[pin.name].pop(0)
        if code == 0 and not self.answers[pin.name]:
            (self.cache / pin.name).mkdir(parents=True)
            (self.cache / pin.name / f"{pin.name}-1-py3-none-any.whl").write_bytes(b"wheel")
        result = CommandResult(code, b"no version of setuptools", 1.0)
        return result, kept.keep(pin, "3.8", self.cache / pin.name) if code == 0 else None

    def text(self, result: CommandResult) -> str:
        return result.output.decode()

    def failure(self, result: CommandResult) -> Exception:
        return Rejected(RejectReason.BUILD_FAILED, self.text(result))


def test_what_has_no_wheel_is_built_once_with_its_tries_in_order(tmp_path: Path) -> None:
    spec, kept = EnvironmentSpec("sha256:00", "3.8", LOCK), KeptWheels(tmp_path / "kept")
    builder = Scripted(tmp_path / "cache", {"one": [1, 0], "three": [0]})
    assert fill(spec, kept, builder) == "filled"
    assert builder.asked == [
        "wheels 3+0", "one dated", "one dated, lifted", "wheels 2+1", "three dated", "wheels 1+2"
    ]  # fmt: skip
    again = Scripted(tmp_path / "unused", {"one": [], "three": []})
    assert fill(spec, kept, again) == "filled"
    assert again.asked == ["wheels 1+2"]


def test_a_build_that_leaves_no_wheel_or_never_works_is_a_verdict(tmp_path: Path) -> None:
    spec, kept = EnvironmentSpec("sha256:00", "3.8", LOCK), KeptWheels(tmp_path / "kept")
    with pytest.raises(Rejected, match="the build of one left no wheel"):
        fill(spec, kept, Scripted(tmp_path / "1", {"one": [0, 0]}))
    never = Scripted(tmp_path / "2", {"one": [1] * 5})
    with pytest.raises(Rejected, match="no version of setuptools"):
        fill(spec, kept, never)
    assert never.answers["one"] == []


def test_a_build_that_is_killed_is_no_reason_for_other_build_requirements(tmp_path: Path) -> None:
    spec, kept = EnvironmentSpec("sha256:00", "3.8", LOCK), KeptWheels(tmp_path / "kept")
    builder = Scripted(tmp_path / "cache", {"one": [137, 0]})
    with pytest.raises(Rejected):
        fill(spec, kept, builder)
    assert builder.asked == ["wheels 3+0", "one dated"]


PAST, FUTURE = ("--exclude-newer", "2020-01-01T00:00:00Z"), ("--exclude-newer", "2999-01-01T00:00:00Z")
PINS = (*FUTURE, "--no-deps")
DONE, FAILED = (0, b"lock"), (1, b"")
NO = b"No solution found when resolving dependencies"


@pytest.mark.parametrize(
    ("arguments", "ended", "said", "n_asked"),
    [
        (PAST, DONE, b"", 1),
        (FUTURE, DONE, b"", 2),
        ((), DONE, b"", 2),
        (PINS, DONE, b"", 1),
        (PINS, FAILED, NO, 1),
        (PAST, FAILED, NO, 1),
        (FUTURE, FAILED, NO, 2),
        (PAST, FAILED, NO + b": error sending request", 2),
        (PAST, FAILED, NO + b": the index said 403", 2),
        (PAST, FAILED, b"panicked", 2),
    ],
)
def test_an_answer_is_kept_when_another_day_would_give_the_same(
    tmp_path: Path, arguments: Sequence[str], ended: tuple[int, bytes], said: bytes, n_asked: int
) -> None:
    asked = []

    def run() -> UvRun:
        asked.append(1)
        return UvRun(CommandResult(ended[0], said, 1.0), ended[1] or None, built=False)

    kept = KeptAnswers(tmp_path / "answers")
    answers = [kept.ask(arguments, {"in": "pytest"}, "python", run) for _ in range(2)]
    assert len(asked) == n_asked
    assert answers[0].written == answers[1].written
    assert answers[0].result.output == answers[1].result.output
    kept.ask(arguments, {"in": "pytest"}, "another python", run)
    assert len(asked) == n_asked + 1
    assert kept.n_bytes() == kept.drop()
    assert kept.n_bytes() == 0
