"""Which licences may be mined."""

import pytest

from swefactory.errors import UsageError
from swefactory.licenses import PERMISSIVE, allowed, parse_allow_list


@pytest.mark.parametrize(
    "spdx",
    [
        "MIT", "mit", "Apache-2.0", "BSD-3-Clause", "MIT OR GPL-3.0-only", "GPL-3.0-only OR (MIT AND ISC)",
        "Apache-2.0 WITH LLVM-exception", "(MIT OR GPL-2.0-only) AND ISC",
    ],
)  # fmt: skip
def test_permissive_ones_may_be_mined_by_default(spdx: str) -> None:
    assert allowed(spdx, PERMISSIVE)


@pytest.mark.parametrize(
    "spdx",
    [
        "", "  ", "NOASSERTION", "noassertion", "NONE", "Other", "BSD", "LicenseRef-Proprietary", "GPL-3.0-only",
        "AGPL-3.0", "MIT AND GPL-3.0-only", "GPL-3.0-only WITH Classpath-exception-2.0", "MIT OR", "MIT GPL", "(((",
        "MIT OR Unheard-1.0",
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_allowed_is_not(spdx: str) -> None:
    assert not allowed(spdx, PERMISSIVE)


def test_an_allow_list_says_what_is_allowed() -> None:
    wide = parse_allow_list(" mit, gpl-3.0-or-later ,NOASSERTION")
    assert wide == {"MIT", "GPL-3.0-or-later", "NOASSERTION"}
    assert [allowed(spdx, wide) for spdx in ("MIT", "GPL-3.0-or-later", "", "Other", "ISC")] == [True] * 4 + [False]
    assert parse_allow_list("") == PERMISSIVE == parse_allow_list(",".join(PERMISSIVE))
    assert allowed("anything at all", parse_allow_list("*"))


@pytest.mark.parametrize("text", ["MIT,Unheard", "MIT OR ISC", "MIT,("])
def test_an_allow_list_with_what_is_no_licence_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no SPDX identifier"):
        parse_allow_list(text)
