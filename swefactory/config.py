"""Settings: the only reader of the environment. One property: frozen once read.

Sources, first wins: arguments, SWEFACTORY_* variables, files in SWEFACTORY_SECRETS_DIR (one per setting,
as compose secrets are), defaults. Secrets are SecretStr, so that printing settings prints no secret.
"""

import json
import os
import re
from datetime import date
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.enums import Tier

_SHORTEST_SECRET = 8
_REDACTED = "[redacted]"


class Settings(BaseSettings):
    """Everything configurable. Sizes in bytes, durations in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="SWEFACTORY_",
        frozen=True,
        extra="ignore",
        secrets_dir=os.environ.get("SWEFACTORY_SECRETS_DIR"),
    )

    home: Path = Field(default=Path(".swefactory"), description="catalog, artifacts, caches live here")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite at HOME/catalog.db")
    database_password: SecretStr = Field(
        default=SecretStr(""), description="of database_url, where that should not hold it: a file among the secrets"
    )
    redis_url: str = "redis://127.0.0.1:6379/0"
    heartbeat_file: Path | None = Field(
        default=None, description="cluster: touched by a worker while the broker hears of it, by beat when it ticks"
    )

    github_url: str = Field(
        default="https://api.github.com", pattern="^https?://", description="REST base URL; GraphQL is beside it"
    )
    github_token: SecretStr = Field(default=SecretStr(""), description="one token, or several with ',' between them")
    github_token_files: str = Field(default="", description="files with a token a line, ':'-separated")
    github_app_id: str = Field(default="", description="a GitHub App: each of its installations is a credential")
    github_app_key_file: Path | None = Field(default=None, description="the App's private key, PEM")
    github_app_installations: str = Field(default="", description="ids, ','-separated; empty: all of the App")
    github_pause_s: float = Field(default=0.1, ge=0, description="between two requests of one credential, anywhere")
    min_stars: int = Field(default=0, ge=0, description="crawl no repository with fewer")
    max_repository_bytes: int = Field(default=0, ge=0, description="nor a larger one by GitHub's size; 0: any")
    pushed_after: date | None = Field(default=None, description="nor one without a push since")
    language: str = Field(default="", description="nor one mostly in another language; empty: any")
    forks: bool = Field(default=False, description="crawl forks too")
    archived: bool = Field(default=True, description="crawl archived repositories too")

    index_url: SecretStr = Field(
        default=SecretStr(""), description="package index to look names up; empty: uv's, pip's"
    )

    artifact_dir: Path | None = Field(
        default=None, description="where artifacts are kept, one folder for all hosts; default HOME/artifacts"
    )
    artifact_url: str = Field(
        default="",
        pattern="^(s3://[^/]+(/.*)?|)$",
        description="or s3://BUCKET/PREFIX; address and keys are boto3's own",
    )
    mirror_dir: Path | None = Field(default=None, description="where bare mirrors are kept; default HOME/mirrors")

    # Ten drop "it does not work" and no real problem: the shortest of 730 published by benchmarks has 16 words.
    min_statement_words: int = Field(default=10, ge=1, description="words a problem statement needs at least")
    benchmarks: str = Field(default="", description="more benchmark lists beside the delivered ones, ':'-separated")
    licenses: str = Field(default="", description="licences to mine, SPDX, ','-separated; empty: permissive ones")

    sandbox: str = Field(default="namespace", pattern="^(namespace|docker)$")
    docker_host: str = Field(default="", description="engine address; empty: the docker SDK's own default")
    launcher_url: str = Field(
        default="", pattern="^(http://|$)", description="docker through `swefactory launcher` there, not a socket here"
    )
    launcher_token: SecretStr = Field(default=SecretStr(""), description="what the launcher and its users share")
    build_settings: Path | None = Field(
        default=None, description="what `images bootstrap --cluster` wrote of another machine, for docker builds"
    )
    docker_base_image: str = Field(default="", description="base of environment images; empty: images/pins.toml")
    interpreters: str = Field(default="", description="more folders that hold Python interpreters, ':'-separated")

    disk_budget: int = Field(default=0, ge=0, description="bytes that environments and their caches may take; 0: any")
    image_registry: str = Field(default="", description="host[:port]/path that docker environments are shared through")
    image_push: bool = Field(default=False, description="send each docker environment there as soon as it is built")

    tier: Tier = Field(default=Tier.BRONZE, description="runs a state: 3 for bronze, 10 silver, 30 gold")
    n_validation_runs: int | None = Field(default=None, ge=2, description="runs a state, whatever the tier says")
    network_probe: bool = Field(
        default=True, description="one run with a network where tests fail without one; it is no evidence"
    )
    revalidate_days: float = Field(default=0, ge=0, description="a certificate older than this is due; 0: never")
    test_timeout_s: float = Field(default=1800, gt=0)
    build_timeout_s: float = Field(default=1800, gt=0)
    sandbox_memory_bytes: int = 4 * 2**30
    sandbox_processes: int = 512
    sandbox_cpus: float = 2.0
    sandbox_disk_bytes: int = 4 * 2**30
    log_cap_bytes: int = 8 * 2**20

    model_url: str = Field(
        default="",
        pattern="^(https?://|$)",
        description="base URL of an OpenAI-compatible server; empty: LiteLLM's own",
    )
    model_api_key: SecretStr = SecretStr("")

    judge_url: str = Field(
        default="",
        pattern="^(https?://|$)",
        description="base URL of the OpenAI-compatible server of a judge; empty: LiteLLM's own",
    )
    judge_api_key: SecretStr = SecretStr("")
    reward_url: str = Field(default="", pattern="^(https?://|$)", description="a reward model's endpoint")
    reward_api_key: SecretStr = SecretStr("")

    checkpoint_share: float = Field(default=0.1, gt=0, le=1, description="of a rollout's time, for checkpoints")
    lease_s: float = Field(default=60, gt=1)
    max_attempts: int = Field(default=3, ge=1)
    die_at: str = Field(default="", description="for tests: STAGE:STEP at which a process ends as by kill -9")

    dispatch_interval_s: float = Field(default=2, gt=0, description="cluster: how often due jobs are looked for")
    n_hints: int = Field(default=32, ge=1, description="cluster: hints per stage that may wait in its queue")
    hint_s: float = Field(default=120, gt=0, description="cluster: a hint unanswered for so long counts as lost")

    @field_validator("github_token_files", "github_app_key_file")
    @classmethod
    def _readable(cls, paths: str | Path | None) -> str | Path | None:
        """Said when the settings are read, not when the first request fails."""
        for path in str(paths or "").split(":"):
            if path and not os.access(path, os.R_OK):
                raise ValueError(f"cannot read {path}")
        return paths

    @cached_property
    def catalog_url(self) -> str:
        """The SQLAlchemy URL in force."""
        password = quote(self.database_password.get_secret_value(), safe="")
        if password and self.database_url:
            return re.sub(r"^([^/]*//[^/:@]+)@", rf"\1:{password}@", self.database_url)
        return self.database_url or f"sqlite:///{self.home.resolve() / 'catalog.db'}"

    @cached_property
    def github_tokens(self) -> tuple[str, ...]:
        """Every token, from the setting and from the files, each once."""
        texts = [self.github_token.get_secret_value()]
        texts += [Path(path).read_text(encoding="utf-8") for path in self.github_token_files.split(":") if path]
        return tuple(dict.fromkeys(token for text in texts for token in re.split(r"[,\s]+", text) if token))

    @cached_property
    def github_app_key(self) -> str:
        """The App's private key; empty without one."""
        return self.github_app_key_file.read_text(encoding="utf-8") if self.github_app_key_file else ""

    @property
    def artifacts_dir(self) -> Path:
        return (self.artifact_dir or self.home / "artifacts").resolve()

    @property
    def mirrors(self) -> Path:
        return (self.mirror_dir or self.home / "mirrors").resolve()

    @property
    def cache_dir(self) -> Path:
        """What can be deleted at any time and is then made again: checkouts, venvs, uv's cache."""
        return self.home.resolve() / "cache"

    @property
    def temporary_dir(self) -> Path:
        """Where each working process has a folder for its temporary files."""
        return self.cache_dir / "temporary"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret's text, for redaction; never empty strings."""
        index = urlsplit(self.index_url.get_secret_value()).password or ""
        others = (
            self.database_password,
            self.model_api_key,
            self.judge_api_key,
            self.reward_api_key,
            self.launcher_token,
        )
        keys = (key.get_secret_value() for key in others)
        return tuple(secret for secret in (*self.github_tokens, self.github_app_key, *keys, unquote(index)) if secret)

    def redact(self, text: str) -> str:
        """`text` with every secret's exact value replaced, also as JSON would write it. Shorter ones than eight
        characters are left: they are words such as EMPTY, and replacing those would mangle what is stored."""
        for secret in self.secrets:
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _REDACTED).replace(json.dumps(secret)[1:-1], _REDACTED)
        return text
