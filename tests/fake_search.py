"""GitHub's search of repositories over a list: its qualifiers, its pages, and its 1,000 results at most."""

from datetime import date
from typing import Any
from urllib.parse import parse_qs


def repository(name: str, created: str = "2020-05-01", stars: int = 10, **more: Any) -> dict[str, Any]:
    """As the search lists it: a fork's source is not told."""
    return {
        "full_name": name,
        "clone_url": f"https://github.com/{name}.git",
        "html_url": f"https://github.com/{name}",
        "default_branch": "main",
        "description": "A tool",
        "license": {"key": "mit", "spdx_id": "MIT"},
        "stargazers_count": stars,
        "size": 3,
        "language": "Python",
        "topics": ["cli"],
        "created_at": f"{created}T12:00:00Z",
        "pushed_at": "2024-04-01T00:00:00Z",
        "archived": False,
        "fork": False,
        "score": 1.0,
    } | more


def search(repositories: list[dict[str, Any]], query: str) -> tuple[dict[str, Any], int]:
    """Body and status of `GET /search/repositories?query`."""
    asked = {key: values[0] for key, values in parse_qs(query).items()}
    per_page, page = int(asked["per_page"]), int(asked["page"])
    if (page - 1) * per_page >= 1000:
        return {"message": "Only the first 1000 search results are available"}, 422
    words = [word.partition(":")[::2] for word in asked["q"].split()]
    if any(value == "klingon" for _, value in words):
        return {"message": "Validation Failed", "errors": [{"message": "klingon is no language"}]}, 422
    found = [one for one in repositories if all(_fits(one, name, value) for name, value in words)]
    found.sort(key=lambda one: -one["stargazers_count"])
    shown = found[:1000][(page - 1) * per_page : page * per_page]
    return {"total_count": len(found), "incomplete_results": False, "items": shown}, 200


def _fits(one: dict[str, Any], name: str, value: str) -> bool:
    match name:
        case "created" | "pushed":
            return _between(date.fromisoformat(one[f"{name}_at"][:10]), value, date.fromisoformat)
        case "stars":
            return _between(one["stargazers_count"], value, int)
        case "language":
            return bool(one["language"] and one["language"].lower() == value.lower())
        case "license":
            return bool(one["license"] and one["license"]["key"] == value)
        case "topic":
            return value in one["topics"]
        case "fork":
            return True
    raise AssertionError(f"an unknown qualifier: {name}:{value}")


def _between(value: Any, text: str, read: Any) -> bool:
    if text.startswith(">="):
        return bool(value >= read(text[2:]))
    least, _, most = text.partition("..")
    return bool(read(least) <= value <= read(most))
