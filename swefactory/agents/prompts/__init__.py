"""The texts an agent is given, as files. One property: each is stored as it is sent, apart from named @PLACES@."""

from importlib.resources import files


def prompt_text(name: str) -> str:
    """The text of the file `name` in this folder."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
