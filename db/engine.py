"""Engines and schema. One property: a catalog at another schema than the code's is refused, never guessed at."""


class CatalogError(RuntimeError):
    """The catalog cannot be used as it is; the message says why and what to do."""
