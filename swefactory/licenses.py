"""Which licences may be mined. Pure.

(Signatures; the insides follow.)
"""

from collections.abc import Iterable


def parse_allow_list(text: str) -> frozenset[str]:
    """A comma-separated list of SPDX identifiers, canonical; empty text: the default list. Raises UsageError."""
    raise NotImplementedError


def allowed(spdx: str, allow_list: Iterable[str]) -> bool:
    """Whether a repository under this SPDX identifier or expression may be mined; unknown licences may not."""
    raise NotImplementedError
