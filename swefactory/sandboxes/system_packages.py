"""Which of Debian's packages this machine lacks. One property: asked of the package database, nothing is installed.

The namespace sandbox shows the machine's own programs and libraries, so an environment's system packages must be here;
the docker sandbox installs them into the environment's image.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_FORMAT = "${db:Status-Status}\t${Package}\t${Provides}\n"


def require_packages(subject: str, names: Sequence[str]) -> None:
    """Raises Rejected(SYSTEM_PACKAGE_MISSING), which names every one that is not installed."""
    if not names:
        return
    if shutil.which("dpkg-query") is None:
        detail = f"{subject} needs Debian's {', '.join(names)}; no dpkg here can tell whether they are installed"
        raise Rejected(RejectReason.SYSTEM_PACKAGE_MISSING, f"{detail}; use the docker sandbox")
    if absent := sorted(set(names) - _installed()):
        raise missing(subject, absent, "install them (apt install), or use the docker sandbox")


def missing(subject: str, names: Iterable[str], advice: str) -> Rejected:
    """The verdict that `names` cannot be had."""
    return Rejected(
        RejectReason.SYSTEM_PACKAGE_MISSING, f"{subject} needs system packages: {', '.join(names)}; {advice}"
    )


def unknown_to_apt(log: str) -> list[str]:
    """The packages that a log of apt-get says it cannot have."""
    found = re.findall(r"Unable to locate package (\S+)|Package '?([\w.+-]+)'? has no installation candidate", log)
    return sorted({name.strip("'") for pair in found for name in pair if name})


def _installed() -> set[str]:
    """Names of packages, with what they stand for: libncurses-dev provides libncurses5-dev."""
    done = subprocess.run(["dpkg-query", "-W", "-f", _FORMAT], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise InfrastructureError(f"dpkg-query failed: {done.stderr.strip()}; is the package database readable?")
    here: set[str] = set()
    for line in done.stdout.splitlines():
        status, name, provides = line.split("\t")
        if status == "installed":
            here |= {name, *(each.split()[0] for each in provides.split(",") if each.strip())}
    return here
