"""Repositories by the packages that come from them: an index on loopback, in each of the forms that indexes have."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from swefactory.errors import UsageError
from swefactory.package_indexes import bare, configured_index
from swefactory.repository_names import name_in_address
from swefactory.sources.package_index import Lead, PackageIndex
from tests.discovery_home import Home
from tests.fake_github import FakeGitHub
from tests.fake_index import FakeIndex, metadata, serving_index, source, wheel

WHEEL, SDIST = "tool-1.0-py3-none-any.whl", "tool-1.0.tar.gz"
SOURCE = "Project-URL: Source, https://github.com/acme/tool"


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with serving_index() as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", FakeGitHub(url="http://127.0.0.1:9"))


def lead(index: FakeIndex, package: str = "tool") -> Lead:
    [found] = PackageIndex(index.url).leads([package])
    return found


@pytest.mark.parametrize("only_html", [False, True])
def test_metadata_beside_the_file_is_enough(index: FakeIndex, only_html: bool) -> None:
    index.only_html = only_html
    index.add("tool", WHEEL, metadata(SOURCE))
    assert lead(index) == Lead("tool", "acme/tool", "Source: https://github.com/acme/tool")
    assert index.requests == ["/simple/tool/", f"/files/tool/{WHEEL}.metadata"]


@pytest.mark.parametrize("key", ["dist-info-metadata", "data-dist-info-metadata"])
def test_the_older_names_of_the_key_count(index: FakeIndex, key: str) -> None:
    index.add("tool", WHEEL, metadata(SOURCE), **{"core-metadata": False, key: True})
    assert lead(index).repository == "acme/tool"


@pytest.mark.parametrize(("filename", "content"), [(WHEEL, wheel(metadata(SOURCE))), (SDIST, source(metadata(SOURCE)))])
def test_metadata_is_read_inside_a_file_that_has_none_beside_it(
    index: FakeIndex, filename: str, content: bytes
) -> None:
    index.add("tool", filename)
    index.files[f"/files/tool/{filename}"] = content
    assert lead(index).repository == "acme/tool"


@pytest.mark.parametrize("only_html", [False, True])
def test_the_newest_final_release_that_was_not_taken_back_is_asked(index: FakeIndex, only_html: bool) -> None:
    index.only_html = only_html
    for version, name, more in (
        ("1.9", "old", {}), ("1.10", "right", {}), ("1.11", "taken-back", {"yanked": True}), ("2.0rc1", "early", {}),
    ):  # fmt: skip
        content = metadata(f"Home-page: https://github.com/acme/{name}")
        index.add("tool", f"tool-{version}-py3-none-any.whl", content, **more)
    index.add("tool", "tool.egg")
    assert lead(index).repository == "acme/right"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (["Home-page: https://github.com/acme/home", SOURCE], "acme/tool"),
        (["Project-URL: Log, https://github.com/acme/log/blob/main/C.md", "Home-page: https://acme.org"], "acme/log"),
        (["Project-URL: Repository, git+https://github.com/acme/tool.git"], "acme/tool"),
        (["Project-URL: source code , http://www.github.com/acme/tool.git"], "acme/tool"),
        (["Project-URL: Funding, https://github.com/acme/money", "Home-page: https://github.com/sponsors/acme"], None),
        (["Project-URL: A, https://x.org", "Project-URL: A, https://github.com/acme/twice/issues"], "acme/twice"),
        (["Home-page: UNKNOWN"], None),
        ([], None),
    ],
)  # fmt: skip
def test_which_address_counts(index: FakeIndex, fields: list[str], name: str | None) -> None:
    index.add("tool", WHEEL, metadata(*fields))
    assert lead(index).repository == name


def test_each_package_that_leads_nowhere_says_why(index: FakeIndex, home: Home) -> None:
    index.add("elsewhere", WHEEL, metadata("Home-page: https://gitlab.com/acme/tool"))
    index.add("silent", WHEEL, metadata())
    index.add("empty", "tool.egg")
    index.add("forged", WHEEL.replace("1.0", "2.0"), metadata(SOURCE), **{"core-metadata": {"sha256": "00"}})
    index.add("hollow", SDIST)
    index.files[f"/files/hollow/{SDIST}"] = b"no archive"
    index.add("Good".lower(), WHEEL.replace("1.0", "3.0"), metadata(SOURCE))
    rows = home.discover("--packages", "elsewhere,silent,empty,forged", "--packages", "hollow,absent,Good",
                         SWEFACTORY_INDEX_URL=index.url)  # fmt: skip
    assert [row["verdict"] for row in rows] == ["nowhere"] * 6 + ["queued"]
    says = {row["package"]: row["detail"] for row in rows}
    assert "Home-page: https://gitlab.com/acme/tool" in says["elsewhere"]
    assert "names no address" in says["silent"]
    assert "no file of it" in says["empty"]
    assert "is not what" in says["forged"]
    assert "no metadata that can be read" in says["hollow"]
    assert "no package of this name" in says["absent"]
    assert home.watched() == ["acme/tool"]


def test_packages_of_one_repository_queue_it_once(index: FakeIndex, home: Home, tmp_path: Path) -> None:
    index.add("tool", WHEEL, metadata(SOURCE))
    index.add("tool-extras", WHEEL, metadata("Home-page: https://github.com/Acme/Tool/tree/main/extras"))
    file = tmp_path / "requirements.txt"
    file.write_text(
        "# all of it\n-r base.txt\ntool[fast]>=1.0 ; python_version > '3' # why\nTool_Extras==1 \\\n  --hash=x\n"
    )
    said = home.run("repo", "discover", "--packages-file", str(file), SWEFACTORY_INDEX_URL=index.url)
    assert "1 repositories found: 1 queued" in said
    file.write_text("tool\nwhat is this\n")
    home.run("repo", "discover", "--packages-file", str(file), code=2, SWEFACTORY_INDEX_URL=index.url)
    assert "line 2: 'what is this'" in home.said


def test_an_index_that_does_not_answer_ends_with_3_and_keeps_the_rest(index: FakeIndex, home: Home) -> None:
    index.add("tool", WHEEL, metadata(SOURCE))
    index.statuses = [503]
    assert home.verdicts("--packages", "tool", SWEFACTORY_INDEX_URL=index.url) == {"acme/tool": "queued"}
    index.statuses = [503] * 3
    [row] = home.discover("--packages", "tool", code=3, SWEFACTORY_INDEX_URL=index.url)
    assert "503" in row["detail"]
    assert "did not answer for 1 packages" in home.said


def test_credentials_go_to_the_index_alone_and_into_no_message(index: FakeIndex, home: Home) -> None:
    index.login = "me:hunter22!"
    index.add("tool", WHEEL, metadata(SOURCE))
    asked = index.url.replace("http://", "http://me:hunter22%21@")
    with serving_index() as other:  # another host, which is not told who asks
        other.login = index.login
        index.add("moved", WHEEL, metadata(), url=other.url.replace("simple/", f"files/{WHEEL}"))
        assert [lead.repository for lead in PackageIndex(asked).leads(["tool"])] == ["acme/tool"]
        with pytest.raises(UsageError, match="other credentials"):
            list(PackageIndex(asked).leads(["moved"]))
    wrong = index.url.replace("http://", "http://me:wrong-one@")
    home.run("-v", "repo", "discover", "--packages", "tool", code=2, SWEFACTORY_INDEX_URL=wrong)
    assert "wants other credentials" in home.said
    home.run(
        "repo", "discover", "--packages", "tool", code=3, SWEFACTORY_INDEX_URL="http://me:wrong-one@127.0.0.1:9/simple"
    )
    assert "wrong-one" not in home.said
    home.run("repo", "discover", "--packages", "tool", code=2, SWEFACTORY_INDEX_URL="ftp://me:wrong-one@example.org")
    assert "wrong-one" not in home.said


VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE", "PIP_INDEX_URL", "PIP_CONFIG_FILE")


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No index is configured but in files below the returned folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    return tmp_path


def test_the_index_is_the_one_that_uv_or_pip_were_told(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip, uv = bare_machine / ".config/pip/pip.conf", bare_machine / ".config/uv/uv.toml"
    for file in (pip, uv):
        file.parent.mkdir(parents=True)
    pip.write_text("[global]\nindex-url = https://pip.example/simple\n")
    assert configured_index() == "https://pip.example/simple"
    uv.write_text('[pip]\nindex-url = "https://uvpip.example/simple"\n')
    assert configured_index() == "https://uvpip.example/simple"
    uv.write_text('[[index]]\nurl = "https://more.example"\n[[index]]\nurl = "https://uv.example"\ndefault = true\n')
    assert configured_index() == "https://uv.example"
    uv.write_text("broken = [")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    assert configured_index() == "https://variable.example/simple"
    monkeypatch.setenv("UV_INDEX_URL", "https://uv-old.example/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mine=https://me:pw@uv-new.example/simple")
    assert configured_index() == "https://me:pw@uv-new.example/simple"
    assert bare(configured_index() or "") == "https://uv-new.example/simple"


def test_without_an_index_it_says_what_to_set(bare_machine: Path, home: Home) -> None:
    if configured_index():
        pytest.skip("this machine's own files name an index")
    home.run("repo", "discover", "--packages", "tool", code=2)
    assert "set SWEFACTORY_INDEX_URL" in home.said


def test_an_index_on_disk_is_refused() -> None:
    with pytest.raises(UsageError, match="SWEFACTORY_INDEX_URL"):
        PackageIndex("file:///srv/simple")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://github.com/acme/tool/", "acme/tool"),
        ("github.com/acme/tool", "acme/tool"),
        ("https://GitHub.com/acme/tool.git#readme", "acme/tool"),
        ("git+ssh://git@github.com/acme/tool.git", "acme/tool"),
        ("https://github.com/acme", None),
        ("https://github.com/orgs/acme/repositories", None),
        ("https://acme.github.io/tool", None),
        ("https://github.com.evil.example/acme/tool", None),
        ("https://evil.example/github.com/acme/tool", None),
        ("https://github.com/../tool", None),
        ("https://[broken/acme/tool", None),
        ("", None),
    ],
)
def test_an_address_leads_to_a_repository_or_to_none(address: str, name: str | None) -> None:
    assert name_in_address(address) == name
