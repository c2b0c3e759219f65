"""Repositories' names in what people and packages write. One property: what is returned is owner/name. Pure.

pallets/click · https://github.com/pallets/click(.git)(/) · git@github.com:pallets/click.git ─► pallets/click
"""

import re
from urllib.parse import unquote, urlsplit

from swefactory.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_HOSTS = ("github.com", "www.github.com")
_SSH = re.compile(r"(?:ssh://)?git@github\.com[:/](.+)")
# First words of GitHub's own pages, which look like owners.
_PAGES = frozenset((
    "about", "apps", "collections", "contact", "customer-stories", "enterprise", "events", "explore", "features",
    "login", "marketplace", "new", "notifications", "orgs", "organizations", "pricing", "search", "security",
    "settings", "site", "sponsors", "stars", "team", "topics", "trending", "user-attachments", "users",
))  # fmt: skip


def is_name(text: str) -> bool:
    """Whether `text` looks like owner/name on GitHub."""
    return bool(_NAME.fullmatch(text)) and not text.endswith((".git", "/.", "/.."))


def name_of(text: str) -> str:
    """The name that somebody wrote, as such or as an address. Raises UsageError."""
    path = _path(text.strip())
    name = (path if path is not None else text.strip()).strip("/").removesuffix(".git")
    if is_name(text) or (path is not None and is_name(name)):
        return name
    raise UsageError(
        f"{text!r} is not a repository's name; write owner/name, for example pallets/click, or its address on GitHub"
    )


def name_in_address(address: str) -> str | None:
    """The repository an address on GitHub leads to, from whichever of its pages; None for another address."""
    path = _path(address.strip().removeprefix("git+"))
    words = [word for word in (path or "").split("/") if word]
    if len(words) < 2 or words[0].lower() in _PAGES:
        return None
    name = f"{words[0]}/{words[1].removesuffix('.git')}"
    return name if is_name(name) else None


def names_in(text: str, where: str) -> list[str]:
    """One name a line; empty lines and what follows a '#' say nothing. Raises UsageError that names each wrong line."""
    names, wrong = [], []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        word = re.sub(r"(^|\s)#.*", "", line).strip()
        try:
            names += [name_of(word)] if word else []
        except UsageError:
            wrong.append(f"line {number}: {word[:80]!r}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(
            f"{where} has lines that name no repository ({'; '.join(wrong[:5])}{more}); write owner/name or its "
            "address on GitHub, one a line; nothing was queued"
        )
    return list(dict.fromkeys(names))


def _path(address: str) -> str | None:
    """The path of an address on GitHub; None for anything else."""
    if found := _SSH.fullmatch(address):
        return found[1]
    try:
        parts = urlsplit(address if "://" in address else f"https://{address}")
        is_there = parts.scheme in ("http", "https", "git", "ssh") and parts.hostname in _HOSTS
    except ValueError:  # a broken address in brackets
        return None
    return unquote(parts.path) if is_there else None
