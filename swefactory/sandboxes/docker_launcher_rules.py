"""What the launcher lets through to the docker engine. One property: what is not named here is refused.

    run    create a container as `docker_container` makes it, byte for byte, of an image with our label; start, restart
    exec   our supervisor in such a container, as its user
    copy   a tar into such a container
    kill   and remove such a container
    prune  images with our label
    look   at images, containers, events and sizes; each question is of our label or of a container that carries it
    build  from the templates of images/, see docker_launcher_orders: BuildOrder

There are no bind mounts, no other network, no privileges and no larger limits, because the body of a create is made
again from its few free values and must be the same. Pure: whether an id is ours, the caller asks the engine.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swefactory.errors import UsageError
from swefactory.sandbox_protocols import Limits
from swefactory.sandboxes.docker_container import USER, create_parameters, host_config
from swefactory.sandboxes.docker_engine import LABEL
from swefactory.sandboxes.docker_exec import SUPERVISE

Kind = Literal["container", "exec", "image", ""]
Body = Literal["", "create", "exec", "start", "tar"]
ID = r"[0-9a-f]{12,64}"
# Not the images of compose.yaml: who could make those would run as the launcher when it is next started.
_SANDBOXES = r"swefactory/(?!(worker|postgres|redis)\b)[a-z0-9]"
OUR_IMAGE = rf"{_SANDBOXES}[a-z0-9._/-]*:[A-Za-z0-9._-]{{1,128}}"
_FLAG, _NUMBER, _TIME = r"[01]|[Tt]rue|[Ff]alse", r"-?[0-9]{1,9}", r"[0-9]{1,12}(\.[0-9]{1,9})?"
_NO = r"0|[Ff]alse"
_VERSION = re.compile(r"/v(1\.[0-9]{2})(/.*)")
MAX_JSON_BYTES = 2**20


class Refused(UsageError):
    """Outside the schema; the sentence says what."""


@dataclass(frozen=True)
class Route:
    """One request that may pass. `subject` is what the path's id names and must be ours; `queries` are the parameters
    it may have. `body` says which rule its JSON must satisfy; "tar" is passed on as it comes."""

    method: str
    path: re.Pattern[str]
    subject: Kind = ""
    queries: Mapping[str, str] = field(default_factory=dict)
    body: Body = ""
    is_stream: bool = False


@dataclass(frozen=True)
class Passed:
    """A request that may pass once what it names, if anything, is found to be ours. `body` is written anew from what
    was examined: two parsers may read one text in two ways."""

    route: Route
    subject_id: str = ""
    image: str = ""
    container: str = ""
    body: bytes = b""


def _route(method: str, path: str, subject: Kind = "", body: Body = "", /, **queries: str) -> Route:
    return Route(method, re.compile(path), subject, queries, body, is_stream=body == "start")


_IMAGE = rf"/images/(?P<id>{OUR_IMAGE}|sha256:[0-9a-f]{{64}}|[a-z0-9][a-zA-Z0-9._:/-]*)"
_CONTAINER, _EXEC = rf"/containers/(?P<id>{ID})", rf"/exec/(?P<id>{ID})"
ROUTES = (
    _route("GET", "/_ping"),
    _route("HEAD", "/_ping"),
    _route("GET", "/version"),
    _route("GET", "/system/df", type=r"image"),
    _route("GET", "/images/json", only_ids=_FLAG, all=_FLAG, filters=r".*"),
    _route("GET", rf"{_IMAGE}/json", "image"),
    _route("DELETE", _IMAGE, "image", force=_NO, noprune=_NO),
    _route("POST", rf"{_IMAGE}/tag", "image", repo=rf"{_SANDBOXES}[a-z0-9._/-]*", tag=r"[A-Za-z0-9._-]+", force=_NO),
    _route("POST", "/containers/create", "", "create"),
    _route("GET", "/containers/json", all=_FLAG, size=_FLAG, limit=_NUMBER, trunc_cmd=_FLAG, filters=r".*"),
    _route("GET", rf"{_CONTAINER}/json", "container", size=_FLAG),
    _route("POST", rf"{_CONTAINER}/start", "container"),
    _route("POST", rf"{_CONTAINER}/restart", "container", t=_NUMBER),
    _route("POST", rf"{_CONTAINER}/kill", "container", signal=r"[A-Z0-9]+"),
    _route("DELETE", _CONTAINER, "container", v=_FLAG, link=_NO, force=_FLAG),
    _route("GET", rf"{_CONTAINER}/top", "container", ps_args=r"-eo pid,ppid,args|-eLo pid,lwp"),
    _route("PUT", rf"{_CONTAINER}/archive", "container", "tar", path=r"/"),
    _route("POST", rf"{_CONTAINER}/exec", "container", "exec"),
    _route("POST", rf"{_EXEC}/start", "exec", "start"),
    _route("POST", rf"{_EXEC}/resize", "exec", h=_NUMBER, w=_NUMBER),
    _route("GET", rf"{_EXEC}/json", "exec"),
    _route("GET", "/events", since=_TIME, until=_TIME, filters=r".*"),
)


def examine(method: str, path: str, query: Mapping[str, list[str]], body: bytes, maximum: Limits) -> Passed:
    """What must still be found to be ours. Raises Refused."""
    versioned = _VERSION.fullmatch(path)
    version, plain = (versioned[1], versioned[2]) if versioned else ("1.41", path)
    if ".." in plain or "//" in plain:
        raise Refused(f"the launcher follows no path such as {plain}")
    for route in ROUTES:
        if route.method == method and (found := route.path.fullmatch(plain)):
            _check_query(route, query)
            return _with_body(route, found.groupdict().get("id", ""), query, body, version, maximum)
    raise Refused(f"the launcher does not pass on {method} {plain}; it builds, runs, copies to, kills and prunes")


def _check_query(route: Route, query: Mapping[str, list[str]]) -> None:
    for name, values in query.items():
        if name not in route.queries:
            raise Refused(f"the launcher knows no parameter {name!r} of {route.path.pattern}")
        if len(values) != 1 or not re.fullmatch(route.queries[name], values[0]):
            raise Refused(f"the launcher refuses {name}={','.join(values)!r}")


def _with_body(
    route: Route, subject_id: str, query: Mapping[str, list[str]], body: bytes, version: str, maximum: Limits
) -> Passed:
    match route.body:
        case "create":
            asked = _object(body)
            return Passed(route, image=check_create(asked, version, maximum), body=_text(asked))
        case "exec":
            check_exec(asked := _object(body))
            return Passed(route, subject_id, body=_text(asked))
        case "start":
            check_start(asked := _object(body))
            return Passed(route, subject_id, body=_text(asked))
        case "tar":
            return Passed(route, subject_id)
        case _ if body not in (b"", b"{}", b"null"):
            raise Refused(f"the launcher takes no body with {route.path.pattern}")
    if "filters" in route.queries:
        return Passed(route, container=_filtered(route, query))
    return Passed(route, subject_id)


def _text(asked: dict[str, Any]) -> bytes:
    return json.dumps(asked).encode()


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Refused("the launcher was sent a body that is not JSON") from error
    if not isinstance(found, dict):
        raise Refused("the launcher was sent a body that is no JSON object")
    return found


def _filtered(route: Route, query: Mapping[str, list[str]]) -> str:
    """The container that the question is about; empty when it is about our label."""
    filters = _object((query.get("filters") or ["{}"])[0].encode())
    if not all(isinstance(values, list | dict) for values in filters.values()):
        raise Refused("the launcher was sent filters that are no lists")
    wanted = {name: list(values) for name, values in filters.items()}
    labels = wanted.get("label", [])
    if any(re.fullmatch(rf"{LABEL}=1|{LABEL}\.[a-z-]+(=.*)?", str(label)) for label in labels):
        return ""
    named = wanted.get("id", []) + wanted.get("container", [])
    if len(named) != 1 or not re.fullmatch(ID, str(named[0])):
        raise Refused("the launcher answers questions about what carries our label, or about one such container")
    if route.path.pattern == "/events" and "until" not in query:
        raise Refused("the launcher tells of events up to a time; give `until`")
    return str(named[0])


class _Ulimit(BaseModel):
    Name: str
    Hard: int


class _Host(BaseModel):
    """The free values of a container's bounds."""

    Memory: int = Field(gt=0)
    PidsLimit: int = Field(gt=0)
    NanoCpus: int = Field(gt=0)
    Ulimits: list[_Ulimit]
    StorageOpt: dict[str, str] | None = None


class _Create(BaseModel):
    model_config = ConfigDict(regex_engine="python-re")  # the other one cannot look ahead
    Image: str = Field(pattern=rf"^({OUR_IMAGE})$")
    Labels: dict[str, str]
    HostConfig: _Host


def check_create(asked: dict[str, Any], version: str, maximum: Limits) -> str:
    """The image, when `asked` is what `docker_container` would make of its free values, within the limits."""
    from docker.types import ContainerConfig, HostConfig

    from swefactory.sandboxes.docker_store import HOME_LABEL

    try:
        free = _Create.model_validate(asked, strict=True)
        limits = _limits(free.HostConfig, maximum)
        label, home = free.Labels.get(f"{LABEL}.job", ""), free.Labels.get(HOME_LABEL, "")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"the launcher refuses this container: {where}: {first['msg']}") from error
    bounds = host_config(limits, storage_quota=free.HostConfig.StorageOpt is not None)
    parameters = {k: v for k, v in create_parameters(label, free.Image, home).items() if k != "use_config_proxy"}
    made = ContainerConfig(version, host_config=HostConfig(version=version, **bounds), **parameters)
    _same(json.loads(json.dumps(made)), asked, "")
    return free.Image


def _limits(host: _Host, maximum: Limits) -> Limits:
    sizes = {each.Name: each.Hard for each in host.Ulimits}
    quota = (host.StorageOpt or {}).get("size", str(maximum.disk_bytes))
    if not quota.isdigit():
        raise Refused(f"the launcher refuses a disk of {quota!r}")
    limits = Limits(
        memory_bytes=host.Memory,
        n_processes=host.PidsLimit,
        n_cpus=host.NanoCpus / 1e9,
        file_bytes=sizes.get("fsize", 0),
        disk_bytes=int(quota),
    )
    for name in ("memory_bytes", "n_processes", "n_cpus", "file_bytes", "disk_bytes"):
        if not 0 < getattr(limits, name) <= getattr(maximum, name):
            raise Refused(f"the launcher allows {name} of at most {getattr(maximum, name)}; {getattr(limits, name)}")
    return limits


def _same(made: Any, asked: Any, where: str) -> None:  # noqa: ANN401 - any JSON
    if isinstance(made, dict) and isinstance(asked, dict):
        for name in sorted({*made, *asked}):
            _same(made.get(name), asked.get(name), f"{where}.{name}" if where else name)
    elif type(made) is not type(asked) or made != asked:
        raise Refused(f"the launcher refuses this container: {where} is {asked!r} instead of {made!r}")


_EXEC_FIELDS = {"Container", "User", "Privileged", "Tty", "AttachStdin", "AttachStdout", "AttachStderr", "Cmd", "Env",
                "WorkingDir", "DetachKeys", "detachKeys", "Detach", "ConsoleSize"}  # fmt: skip


def check_exec(asked: dict[str, Any]) -> None:
    """Our supervisor, as the sandbox's user; what it starts is the sandbox's affair."""
    if strange := sorted(set(asked) - _EXEC_FIELDS):
        raise Refused(f"the launcher knows no {strange[0]!r} of a command")
    if asked.get("Privileged"):
        raise Refused("the launcher runs no privileged command")
    if asked.get("User") != USER:
        raise Refused(f"the launcher runs commands as {USER}, not as {asked.get('User')!r}")
    command = asked.get("Cmd")
    if not isinstance(command, list) or not command or command[0] != SUPERVISE:
        raise Refused(f"the launcher runs commands under {SUPERVISE} only")


def check_start(asked: dict[str, Any]) -> None:
    if strange := sorted(set(asked) - {"Tty", "Detach", "ConsoleSize"}):
        raise Refused(f"the launcher knows no {strange[0]!r} of a command's start")
    if asked.get("Detach"):
        raise Refused("the launcher starts no command that nobody listens to")
