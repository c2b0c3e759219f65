"""compose.yaml as it is written: who reaches docker's socket, and what every service of ours must have."""

from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parent.parent / "compose.yaml"
_SOCKET = "docker.sock"


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(_FILE.read_text())["services"]
    return found


def test_the_launcher_alone_reaches_dockers_socket_and_shares_nothing_else_with_this_machine() -> None:
    binds = {name: [v for v in service.get("volumes", ()) if v.startswith(("/", "."))]
             for name, service in services().items()}  # fmt: skip
    assert {name for name, found in binds.items() if found} == {"launcher"}
    assert all(_SOCKET in bind for bind in binds["launcher"])
    assert services()["launcher"]["networks"] == ["inside"]


def test_without_a_registry_only_images_and_a_folder_to_read_differ() -> None:
    """compose.airgap.yaml, where `!reset` takes the builds out."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!reset", lambda loader, node: None)
    changed = yaml.load(_FILE.with_name("compose.airgap.yaml").read_text(), Loader)["services"]
    assert set(changed) == set(services())
    for name, change in changed.items():
        assert change["pull_policy"] == "never"
        assert set(change) <= {"pull_policy", "build", "image", "environment", "volumes"}, name
        assert all(volume.endswith(":ro") and _SOCKET not in volume for volume in change.get("volumes", ()))


def test_who_opens_sandboxes_does_so_through_the_launcher() -> None:
    for name in ("environment", "validation", "rollout"):
        service = services()[name]
        assert service["environment"]["SWEFACTORY_LAUNCHER_URL"] == "http://launcher:2390"
        assert services()["launcher"]["secrets"][0] in service["secrets"]
        assert "github_token" not in str(service)


def test_each_secret_is_a_file_that_those_who_need_it_are_shown() -> None:
    shown = {name: {each if isinstance(each, str) else each["source"] for each in service.get("secrets", ())}
             for name, service in services().items()}  # fmt: skip
    of = {secret: {name for name, found in shown.items() if secret in found} for secret in set().union(*shown.values())}
    assert of["github_token"] == {"crawl"}
    assert of["model_api_key"] == {"rollout"}
    assert of["launcher_token"] == {"launcher", "environment", "validation", "rollout"}
    assert of["database_password"] == set(services()) - {"redis", "launcher"}
    assert "PASSWORD:" not in _FILE.read_text().replace("SWEFACTORY_DATABASE_PASSWORD", "")


def test_whatever_goes_on_says_how_it_is() -> None:
    passing = {"migrate", "admin"}
    assert {name for name, service in services().items() if "healthcheck" not in service} == passing


def test_no_service_is_privileged_and_ours_have_no_capability() -> None:
    for name, service in services().items():
        assert "privileged" not in service, name
        assert service.get("network_mode") is None, name
        if service["image"] == "swefactory/worker":
            assert service["cap_drop"] == ["ALL"], name
