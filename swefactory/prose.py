"""How much an issue says. One property: what a template or an image contributes is no word.

No words: images, HTML comments and tags, addresses, headings, check boxes, rules and `_No response_`. Code and
tracebacks do count: many good issues are little more. Pure.
"""

import re

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|<(?:img|video|source)\b[^>]*>", re.IGNORECASE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
_TAG = re.compile(r"</?[a-z][^>\n]*>", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:https?|ftp)://\S+|www\.\S+")
_TEMPLATE_LINE = re.compile(
    r"^[ \t]*(?:\#{1,6}[ \t].*|\*\*[^*\n]+\*\*:?|[-*+][ \t]+\[[ xX]\].*|_no response_|[-=*_ \t]{3,})[ \t\r]*$",
    re.MULTILINE | re.IGNORECASE,
)
_WORD = re.compile(r"\w*[^\W\d_]\w*")


def n_words(text: str) -> int:
    """How many words a person wrote: runs of word characters with a letter in them."""
    text = _IMAGE.sub(" ", _COMMENT.sub(" ", text))
    text = _ADDRESS.sub(" ", _LINK.sub(r" \1 ", text))
    return len(_WORD.findall(_TEMPLATE_LINE.sub("", _TAG.sub(" ", text))))


def shows_or_links(text: str) -> bool:
    """Whether it holds an image, a film or an address."""
    text = _COMMENT.sub(" ", text)
    return bool(_IMAGE.search(text) or _ADDRESS.search(text))
