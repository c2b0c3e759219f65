"""The texts an agent is given, as files. One property: each is stored as it is sent, apart from named @PLACES@."""

from importlib.resources import files

PROMPTS = ("system", "task", "continue")  # each the name of a file; an agent's configuration may replace its text


def prompt_text(name: str) -> str:
    """The text of the file `name` in this folder."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
