"""Who asks GitHub: tokens, token files and installations of an App against a GitHub on loopback."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.sources.credentials import of_settings, of_token, pinned
from swefactory.sources.github import GitHubSource
from swefactory.sources.github_client import GitHubClient
from tests.fake_github import MemoryAnswers, MemoryQuotas


def test_tokens_come_from_the_setting_and_from_files_each_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("ccc\naaa\n")
    (tmp_path / "two").write_text("ddd")
    files = f"{tmp_path / 'one'}:{tmp_path / 'two'}"
    settings = Settings(home=tmp_path, github_token="aaa, bbb", github_token_files=files)  # type: ignore[arg-type]
    assert settings.github_tokens == ("aaa", "bbb", "ccc", "ddd")
    assert len({credential.name for credential in of_settings(settings)}) == 4


def test_every_token_is_a_secret(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("second-token\n")
    settings = Settings(
        home=tmp_path,
        github_token="first-token",  # type: ignore[arg-type]
        github_token_files=str(tmp_path / "one"),
    )
    assert settings.redact("first-token second-token") == "[redacted] [redacted]"
    pool = of_settings(settings)
    assert "token" not in repr(pool).replace("token:", "")


def test_a_token_file_that_cannot_be_read_is_said_when_settings_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot read"):
        Settings(home=tmp_path, github_token_files=str(tmp_path / "nothing"))


def test_without_any_the_pool_is_nobody(tmp_path: Path) -> None:
    assert [credential.name for credential in of_settings(Settings(home=tmp_path))] == ["anonymous"]


def test_a_repository_stays_with_its_credential_and_few_move_when_the_pool_grows() -> None:
    pool = [of_token(f"token-{n}") for n in range(4)]
    names = [f"acme/tool-{n}" for n in range(400)]
    before = {name: pinned(pool, name).name for name in names}
    assert before == {name: pinned(pool[::-1], name).name for name in names}
    assert min(Counter(before.values()).values()) > 60, "each has its share"
    after = {name: pinned([*pool, of_token("another")], name).name for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert 40 < len(moved) < 130
    assert {after[name] for name in moved} == {of_token("another").name}
    assert pinned(pool, "Acme/Tool-1") == pinned(pool, "acme/tool-1")


class App:
    """GitHub's side of an App with two installations."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def reply(self, path: str, authorisation: str) -> tuple[int, object]:
        self.seen.append((path, authorisation.split(" ")[0]))
        if path.startswith("/app/installations?") or path == "/app/installations":
            return 200, [{"id": 12, "url": ""}, {"id": 11, "url": ""}]
        if path.startswith("/app/installations/"):
            number = path.split("/")[3]
            return 201, {"token": f"installation-{number}", "expires_at": "2099-01-01T00:00:00Z"}
        known = authorisation in ("token installation-11", "token installation-12")
        return (200, {"full_name": "acme/tool"}) if known else (401, {"message": "Bad credentials"})


@pytest.fixture
def app() -> Iterator[tuple[App, str]]:
    served = App()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = served.reply(self.path, self.headers.get("Authorization") or "")
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def key_file(tmp_path: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return path


def test_each_installation_of_an_app_is_a_credential(app: tuple[App, str], tmp_path: Path) -> None:
    served, url = app
    settings = Settings(home=tmp_path, github_url=url, github_app_id="7", github_app_key_file=key_file(tmp_path))
    pool = of_settings(settings)
    assert [credential.name for credential in pool] == ["app:7:11", "app:7:12"]
    client = GitHubClient(url, pool, MemoryQuotas(), MemoryAnswers())
    assert GitHubSource(lambda: client).repository("acme/tool").name == "acme/tool"
    assert served.seen[0][1] == "Bearer", "the App signs for itself"
    assert served.seen[-1] == ("/repos/acme/tool", "token")
    assert settings.github_app_key in settings.secrets


def test_named_installations_need_no_question(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, github_url="http://127.0.0.1:9", github_app_id="7", github_app_key_file=key_file(tmp_path),
        github_app_installations="5, 3",
    )  # fmt: skip
    assert [credential.name for credential in of_settings(settings)] == ["app:7:3", "app:7:5"]


def test_an_app_without_a_key_or_with_nonsense_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SWEFACTORY_GITHUB_APP_KEY_FILE"):
        of_settings(Settings(home=tmp_path, github_app_id="7"))
    settings = Settings(
        home=tmp_path, github_app_id="7", github_app_key_file=key_file(tmp_path), github_app_installations="five"
    )
    with pytest.raises(UsageError, match="INSTALLATIONS"):
        of_settings(settings)
