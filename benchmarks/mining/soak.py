"""Do four processes keep within GitHub's limits? One property: it ends with 1 when a limit was hit or a repository is
missing.

    python benchmarks/mining/soak.py [--repositories 40] [--processes 4] [--json]

A GitHub on loopback enforces what the real one does, with an hour scaled down to a quarter of a minute and a minute to
six seconds: requests and points a window (403, remaining 0), points a minute and requests at once (403 with
Retry-After, which counts as a hit). `swefactory run -j N` crawls generated repositories with two tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swefactory.demo import graphql
from swefactory.demo.loopback import QuietHandler, serving
from swefactory.demo.payloads import connection

_TOKENS = ("soak-token-one", "soak-token-two")
_WINDOW_S, _MINUTE_S = 15.0, 6.0
_LIMITS = {"core": 60, "graphql": 60}  # a window and token
_POINTS = {"core": 90, "graphql": 200}  # a minute and token
_AT_ONCE = 10
_PULLS = 30
_LATENCY_S = 0.03
_MOST_RUNS = 6


@dataclass
class Meter:
    """What one token asked of one resource."""

    begun: float = 0.0
    used: int = 0
    recent: deque[float] = field(default_factory=deque)
    starts: list[float] = field(default_factory=list)


@dataclass
class Limits:
    """What is enforced, and what happened: `hits` counts refusals by their kind."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    meters: dict[tuple[str, str], Meter] = field(default_factory=dict)
    at_once: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    def enter(self, token: str, resource: str) -> tuple[str, dict[str, str]]:
        """The limit that is hit, "" for none, and the headers that tell of the window."""
        with self.lock:
            now = time.time()
            meter = self.meters.setdefault((token, resource), Meter(now))
            meter.starts.append(now)
            if now - meter.begun >= _WINDOW_S:
                meter.begun, meter.used = now, 0
            while meter.recent and now - meter.recent[0] > _MINUTE_S:
                meter.recent.popleft()
            meter.recent.append(now)
            self.at_once[token] += 1
            self.most_at_once = max(self.most_at_once, self.at_once[token])
            if hit := self._hit(token, resource, meter):
                self.hits[hit] += 1
            meter.used += not hit
            left = max(0, _LIMITS[resource] - meter.used)
            reset = int(meter.begun + _WINDOW_S) + 1
            return hit, {
                "X-RateLimit-Limit": str(_LIMITS[resource]),
                "X-RateLimit-Remaining": str(left),
                "X-RateLimit-Reset": str(reset),
            }

    def _hit(self, token: str, resource: str, meter: Meter) -> str:
        if self.at_once[token] > _AT_ONCE:
            return "secondary: at once"
        if len(meter.recent) > _POINTS[resource]:
            return "secondary: points a minute"
        return "primary" if meter.used >= _LIMITS[resource] else ""

    def leave(self, token: str) -> None:
        with self.lock:
            self.at_once[token] -= 1


class _Handler(QuietHandler):
    limits: Limits

    def do_GET(self) -> None:
        self._serve("core", b"")

    def do_POST(self) -> None:
        self._serve("graphql", self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _serve(self, resource: str, body: bytes) -> None:
        token = (self.headers.get("Authorization") or "").split(" ")[-1]
        hit, told = self.limits.enter(token, resource)
        try:
            time.sleep(_LATENCY_S)
            if hit.startswith("secondary"):
                self._write(403, {"message": "You have exceeded a secondary rate limit"}, {**told, "Retry-After": "6"})
            elif hit:
                self._write(403, {"message": "API rate limit exceeded"}, told)
            else:
                self._write(200, _graph(json.loads(body)) if body else self._rest(), told)
        finally:
            self.limits.leave(token)

    def _rest(self) -> Any:  # noqa: ANN401 - JSON
        _, _, owner, name, *rest = self.path.partition("?")[0].split("/")
        if rest == ["pulls"]:
            return [{"number": _PULLS, "updated_at": _at(_PULLS)}]
        return {
            "full_name": f"{owner}/{name}",
            "clone_url": "",
            "default_branch": "main",
            "license": {"spdx_id": "MIT"},
        }

    def _write(self, status: int, body: object, headers: Mapping[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _graph(asked: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{asked['variables']['owner']}/{asked['variables']['name']}"
    pulls = [_pull(number) for number in range(_PULLS, 0, -1)]
    issue = {
        "__typename": "Issue", "number": 0, "title": "It breaks", "body": "It breaks on Mondays", "url": "",
        "createdAt": _at(1), "author": None, "repository": {"nameWithOwner": name}, "comments": connection([]),
        "timelineItems": connection([]),
    }  # fmt: skip
    repository = {
        "nameWithOwner": name,
        "pullRequests": connection(pulls),
        "issueOrPullRequest": lambda arguments: {**issue, "number": arguments["number"]},
    }
    data = {"repository": repository, "rateLimit": {"cost": 1}}
    return {"data": graphql.answer(asked["query"], asked["variables"], data)}


def _pull(number: int) -> dict[str, Any]:
    return {
        "__typename": "PullRequest", "number": number, "title": f"Change {number}", "body": f"Fixes #{100 + number}",
        "url": "", "createdAt": _at(1), "mergedAt": _at(number), "updatedAt": _at(number), "baseRefOid": "b" * 40,
        "headRefOid": "c" * 40, "mergeCommit": {"oid": "d" * 40}, "author": None,
        "files": connection([{"path": "tests/test_x.py"}]), "commits": connection([]),
        "closingIssuesReferences": connection([]),
    }  # fmt: skip


def _at(day: int) -> str:
    return f"2024-01-{day:02}T00:00:00Z"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repositories", type=int, default=40)
    options.add_argument("--processes", type=int, default=4)
    options.add_argument("--json", action="store_true")
    args = options.parse_args()

    class Handler(_Handler):
        limits = Limits()

    with tempfile.TemporaryDirectory(prefix="swefactory-soak-") as home, serving(Handler) as url:
        started = time.monotonic()
        n_runs, n_crawled = _crawl(Path(home), url, args.repositories, args.processes)
        duration_s = time.monotonic() - started
    report = {
        "duration_s": round(duration_s, 1),
        "runs": n_runs,
        "crawled": n_crawled,
        "hits": dict(Handler.limits.hits),
        "most_at_once": Handler.limits.most_at_once,
        "requests": {f"{token} {resource}": len(m.starts) for (token, resource), m in _meters(Handler.limits)},
        "most_in_a_second": {
            f"{token} {resource}": _densest(m.starts) for (token, resource), m in _meters(Handler.limits)
        },
    }
    print(json.dumps(report, indent=None if args.json else 1))
    return int(n_crawled != args.repositories or any(hit.startswith("secondary") for hit in Handler.limits.hits))


def _meters(limits: Limits) -> list[tuple[tuple[str, str], Meter]]:
    return sorted(limits.meters.items(), key=lambda item: item[0])


def _densest(starts: list[float]) -> int:
    return max((sum(at <= other < at + 1 for other in starts) for at in starts), default=0)


def _crawl(home: Path, url: str, n_repositories: int, n_processes: int) -> tuple[int, int]:
    """Runs until nothing waits any more: how many runs it took, and how many repositories were crawled."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEFACTORY_")}
    ours = {
        "SWEFACTORY_HOME": str(home), "SWEFACTORY_GITHUB_URL": url, "SWEFACTORY_GITHUB_TOKEN": ",".join(_TOKENS),
    }  # fmt: skip

    def swefactory(*command: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "swefactory.cli.main", *command]
        return subprocess.run(program, env={**kept, **ours}, capture_output=True, text=True, timeout=300, check=False)

    added = swefactory("repo", "add", *(f"acme/tool-{n}" for n in range(n_repositories)))
    if added.returncode:
        raise SystemExit(added.stderr)
    n_runs = 1
    while (
        ran := swefactory("run", "-j", str(n_processes), "--stage", "crawl")
    ).returncode == 3 and n_runs < _MOST_RUNS:
        n_runs += 1
        time.sleep(2)
    if ran.returncode:
        print(ran.stdout[-1000:], ran.stderr[-1000:], file=sys.stderr)
    crawls = json.loads(swefactory("query", "crawls", "--json").stdout)
    return n_runs, sum(row["pull_requests"] == _PULLS for row in crawls)


if __name__ == "__main__":
    raise SystemExit(main())
