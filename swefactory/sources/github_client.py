"""Requests to GitHub through PyGithub's requester, within the limits. One property: never sleeps long.

    take a place in the credential's quota ─► ask (with the ETag of the last answer) ─► note what the headers say

A limit, an outage or a broken answer becomes Transient with GitHub's own waiting time, so that the job waits in the
catalog and not in a worker. PyGithub's objects are not used: they trip over null fields and ask again for each part.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import requests
from github import Github, GithubException
from github.Requester import Requester

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient, UsageError
from swefactory.protocols import Answers, ApiUsage, Quotas
from swefactory.sources.credentials import ANONYMOUS, Credential, pinned
from swefactory.sources.payloads import Json, as_object, object_of, text_of

PAUSE_S = 30.0  # after an outage
_LIMIT_PAUSE_S = 60.0  # GitHub's rule where it names no time
_PATIENCE_S = 2.0  # a wait up to this is slept, a longer one is the job's
_LONGEST_WAIT_S = 3700.0  # GitHub's windows are an hour
_DOUBTED = (401, 404)  # GitHub has been seen to lose a repository or a token for a moment: asked once more


class TooMuch(Transient):
    """GitHub gave up on a query; a smaller one may pass."""


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    text: str

    def number(self, header: str) -> int | None:
        value = self.headers.get(header, "").partition(".")[0]
        return int(value) if value.isdigit() else None


class GitHubClient:
    """One API address, asked by a pool of credentials."""

    def __init__(self, base_url: str, pool: Sequence[Credential], quotas: Quotas, answers: Answers) -> None:
        self.base_url = base_url.rstrip("/")
        self._pool = tuple(pool)
        self._quotas = quotas
        self._answers = answers
        self._requesters: dict[str, Requester] = {}
        self._usage = ApiUsage()

    def usage(self) -> ApiUsage:
        """What was asked since this was last called."""
        told, self._usage = self._usage, ApiUsage()
        return told

    def get(
        self, subject: str, path: str, *, resource: str = "core", is_verdict: bool = True, keep: bool = True
    ) -> object:
        """JSON at `path`, free of quota when it has not changed. `subject`, a repository's name or what else is
        asked for, chooses the credential and stands in messages. That nothing is at `path` is the verdict that there
        is no such repository, unless not `is_verdict`. What is never the same twice is not to be kept (`keep`)."""
        credential = pinned(self._pool, subject)
        known = self._answers.get(credential.name, path) if keep else None
        reply = self._ask(credential, subject, "GET", path, resource, etag=known[0] if known else "")
        if reply.status in _DOUBTED:
            reply = self._ask(credential, subject, "GET", path, resource)
        if reply.status == 304 and known:
            return _json(known[1].decode(), self._broken(subject))
        self._check(credential, reply, subject, resource, is_verdict)
        answer = _json(reply.text, self._broken(subject))
        if keep and (etag := reply.headers.get("etag")):
            self._answers.put(credential.name, path, etag, reply.text.encode())
        return answer

    def query(self, subject: str, text: str, variables: Mapping[str, object]) -> Json:
        """The answer to a GraphQL query, errors within it included. Its points are counted from `rateLimit`."""
        credential = pinned(self._pool, subject)
        address = self._requester(credential).graphql_url
        body = {"query": text, "variables": dict(variables)}
        reply = self._ask(credential, subject, "POST", address, "graphql", body)
        if reply.status in _DOUBTED:
            reply = self._ask(credential, subject, "POST", address, "graphql", body)
        if reply.status in (502, 504):
            raise TooMuch(f"{self.base_url} answered {reply.status} for {subject}; asked again later", PAUSE_S)
        self._check(credential, reply, subject, "graphql", is_verdict=False)
        answer = as_object(_json(reply.text, self._broken(subject)))
        cost = object_of(object_of(answer, "data"), "rateLimit").get("cost")
        points = cost if isinstance(cost, int) else 1
        self._usage = replace(self._usage, n_graphql_points=self._usage.n_graphql_points + points)
        return answer

    def _ask(
        self,
        credential: Credential,
        subject: str,
        verb: str,
        path: str,
        resource: str,
        body: Mapping[str, object] | None = None,
        etag: str = "",
    ) -> _Reply:
        wait_s = self._quotas.take(credential.name, resource, _PATIENCE_S)
        if wait_s > _PATIENCE_S:
            raise _limited(subject, wait_s)
        time.sleep(wait_s)
        headers = {"If-None-Match": etag} if etag else {}
        with self._explained(subject):
            status, told, text = self._requester(credential).requestJson(verb, path, headers=headers, input=body)
        reply = _Reply(status, {key.lower(): str(value) for key, value in told.items()}, text)
        self._note(credential, resource, reply)
        self._count(verb, reply)
        return reply

    def _count(self, verb: str, reply: _Reply) -> None:
        used = self._usage
        if verb == "POST":
            self._usage = replace(used, n_graphql=used.n_graphql + 1)
        elif reply.status == 304:
            self._usage = replace(used, n_rest_free=used.n_rest_free + 1)
        else:
            self._usage = replace(used, n_rest=used.n_rest + 1)

    def _requester(self, credential: Credential) -> Requester:
        if credential.name not in self._requesters:
            github = Github(
                auth=credential.auth,
                base_url=self.base_url,
                retry=None,
                timeout=60,
                seconds_between_requests=0,  # the quotas pace, across processes
                seconds_between_writes=0,  # a GraphQL query is a POST, but writes nothing
            )
            self._requesters[credential.name] = github.requester
        return self._requesters[credential.name]

    def _note(self, credential: Credential, resource: str, reply: _Reply) -> None:
        left, limit = reply.number("x-ratelimit-remaining"), reply.number("x-ratelimit-limit")
        reset = reply.number("x-ratelimit-reset")
        if left is not None and limit is not None and reset is not None:
            self._quotas.note(credential.name, resource, left, limit, datetime.fromtimestamp(reset, UTC))

    def _broken(self, subject: str) -> Transient:
        return Transient(f"{self.base_url} answered for {subject} with broken JSON; asked again later", PAUSE_S)

    @contextmanager
    def _explained(self, subject: str) -> Iterator[None]:
        """Turns what requests and PyGithub raise into our error tree."""
        try:
            yield
        except requests.exceptions.RequestException as error:
            reason = type(error).__name__
            raise Transient(
                f"{self.base_url} broke off while asked for {subject} ({reason}); goes on later", PAUSE_S
            ) from error
        except GithubException as error:  # an App's installation could not get its token
            if error.status in (401, 403, 404):
                raise UsageError(
                    f"{self.base_url} gives the GitHub App no token ({error.status}, asked for {subject}): check "
                    "SWEFACTORY_GITHUB_APP_ID, its key and its installations"
                ) from error
            raise Transient(f"{self.base_url} answered {error.status} for {subject}; goes on later", PAUSE_S) from error
        except RuntimeError as error:  # PyGithub's word for a redirection to another host
            raise UsageError(
                f"asked for {subject}: {error}; correct SWEFACTORY_GITHUB_URL ({self.base_url})"
            ) from error

    def _check(self, credential: Credential, reply: _Reply, subject: str, resource: str, is_verdict: bool) -> None:
        """Raises what a status of 400 and more means."""
        if reply.status < 400:
            return
        message = _message(reply.text)
        if reply.status == 401 or (credential is ANONYMOUS and reply.headers.get("x-ratelimit-limit") == "0"):
            have = "wants a token" if credential is ANONYMOUS else f"refuses the credential {credential.name}"
            raise UsageError(
                f"{self.base_url} {have} (asked for {subject}): set SWEFACTORY_GITHUB_TOKEN to a valid one"
            )
        if _is_limit(reply, message):
            wait_s = _wait_s(reply)
            is_primary = reply.headers.get("x-ratelimit-remaining") == "0"
            self._quotas.block(credential.name, wait_s, resource if is_primary else None)
            raise _limited(subject, wait_s)
        if reply.status >= 500:
            raise Transient(f"{self.base_url} answered {reply.status} for {subject}; asked again later", PAUSE_S)
        if reply.status in (404, 410) and not is_verdict:
            raise Transient(
                f"{self.base_url} answered {reply.status} for a part of {subject}; is SWEFACTORY_GITHUB_URL right? "
                "asked again later",
                PAUSE_S,
            )
        if reply.status in (404, 410):
            raise Rejected(RejectReason.REPOSITORY_NOT_FOUND, self.absent(subject))
        if reply.status in (403, 451):
            raise Rejected(
                RejectReason.REPOSITORY_NOT_FOUND, f"GitHub refuses access to {subject}: {message or reply.status}"
            )
        if reply.status == 422 and resource == "search":
            raise UsageError(f"{self.base_url} does not understand {subject}: {_reasons(reply.text) or message}")
        raise InfrastructureError(
            f"{self.base_url} answered {reply.status} for {subject}: {message or 'no reason given'}"
        )

    def absent(self, subject: str) -> str:
        """Why a repository that is not there is dropped."""
        return f"{self.base_url} knows no repository {subject}, or the token may not see it; check the name"


def _limited(subject: str, wait_s: float) -> Transient:
    return Transient(f"GitHub's rate limit is reached while crawling {subject}; goes on in {wait_s:.0f} s", wait_s)


def _json(text: str, otherwise: Transient) -> Any:  # noqa: ANN401 - what JSON can hold
    try:
        return json.loads(text)
    except ValueError as error:
        raise otherwise from error


def _message(text: str) -> str:
    try:
        return text_of(as_object(json.loads(text)), "message")
    except ValueError:
        return ""


def _reasons(text: str) -> str:
    """What GitHub says of each part of a request that it refuses."""
    try:
        errors = as_object(json.loads(text)).get("errors")
    except ValueError:
        return ""
    return "; ".join(text_of(as_object(error), "message") for error in errors) if isinstance(errors, list) else ""


def _is_limit(reply: _Reply, message: str) -> bool:
    if reply.status == 429:
        return True
    told = "retry-after" in reply.headers or reply.headers.get("x-ratelimit-remaining") == "0"
    return reply.status == 403 and (told or "rate limit" in message.lower())


def _wait_s(reply: _Reply) -> float:
    """Retry-After, else the reset of an exhausted limit, else a minute; between a second and an hour."""
    reset = reply.number("x-ratelimit-reset")
    if (retry_after := reply.number("retry-after")) is not None:
        wait_s = float(retry_after)
    elif reply.headers.get("x-ratelimit-remaining") == "0" and reset is not None:
        wait_s = reset - time.time() + 1
    else:
        wait_s = _LIMIT_PAUSE_S
    return min(max(wait_s, 1.0), _LONGEST_WAIT_S)
