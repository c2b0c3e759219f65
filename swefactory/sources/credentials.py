"""Who asks GitHub: tokens and installations of a GitHub App. One property: a repository is always asked for by the
same credential, as long as that is in the pool.

Pinned by rendezvous hashing, because an ETag is good for one token only: adding or removing a credential moves only
the repositories that go to it or came from it. A credential's name is a digest, so that catalogs and logs hold no
token. Several tokens of one user share that user's limits: one a user is worth having.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from github import Auth, GithubException, GithubIntegration

from swefactory.config import Settings
from swefactory.errors import UsageError


@dataclass(frozen=True)
class Credential:
    """One identity. `name` is "token:<digest>" or "app:<id>:<installation>"; `auth` None asks as nobody."""

    name: str
    auth: Auth.Auth | None = field(default=None, repr=False)


ANONYMOUS = Credential("anonymous")


def of_token(token: str) -> Credential:
    """The credential of one token; nobody's for an empty one."""
    if not token:
        return ANONYMOUS
    return Credential(f"token:{hashlib.sha256(token.encode()).hexdigest()[:16]}", Auth.Token(token))


def of_settings(settings: Settings) -> tuple[Credential, ...]:
    """The pool that `settings` name; nobody alone when they name none. Asks GitHub only for an App's installations.
    Raises UsageError."""
    pool = [of_token(token) for token in settings.github_tokens]
    if settings.github_app_id:
        pool += _installations(settings)
    return tuple(pool) or (ANONYMOUS,)


def pinned(pool: Sequence[Credential], repository: str) -> Credential:
    """The credential that asks for `repository`."""
    return max(pool, key=lambda one: hashlib.sha256(f"{one.name}\0{repository.lower()}".encode()).digest())


def _installations(settings: Settings) -> list[Credential]:
    if not settings.github_app_key:
        raise UsageError("SWEFACTORY_GITHUB_APP_ID is set without SWEFACTORY_GITHUB_APP_KEY_FILE; name its private key")
    app = Auth.AppAuth(settings.github_app_id, settings.github_app_key)
    try:
        ids = [int(number) for number in settings.github_app_installations.split(",") if number.strip()]
        if not ids:
            integration = GithubIntegration(auth=app, base_url=settings.github_url.rstrip("/"), retry=None, timeout=60)
            ids = [found.id for found in integration.get_installations()]
    except (ValueError, GithubException) as error:
        raise UsageError(
            f"the GitHub App {settings.github_app_id} has no installation that can be used ({error}); check its id, "
            "its key and SWEFACTORY_GITHUB_APP_INSTALLATIONS"
        ) from error
    return [Credential(f"app:{settings.github_app_id}:{n}", app.get_installation_auth(n)) for n in sorted(ids)]
