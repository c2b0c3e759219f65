"""GitHub's last answers to GET requests, with their ETags. One property: what is here was said at exactly that
address to exactly that credential, so that a 304 makes it the present answer.

Answers are kept by credential because GitHub's ETags differ between tokens (github/docs issue 34689). A lost row
costs one request.
"""

import zlib

from sqlalchemy import Engine, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel

from db.engine import reading, told
from db.models import utc_now

_ANSWER: Table = SQLModel.metadata.tables["api_answer"]
_C = _ANSWER.c


class SqlAnswers:
    """The Protocol swefactory.protocols.Answers, in the catalog."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, credential: str, url: str) -> tuple[str, bytes] | None:
        """The ETag and the body of the last answer; None without one."""
        wanted = select(_C.etag, _C.body).where(_C.credential == credential, _C.url == url)
        with told(self._engine), reading(self._engine).connect() as connection:
            row = connection.execute(wanted).one_or_none()
        return (row.etag, zlib.decompress(row.body)) if row else None

    def put(self, credential: str, url: str, etag: str, body: bytes) -> None:
        """Takes the place of the former answer."""
        with told(self._engine), self._engine.begin() as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            values = {"etag": etag, "body": zlib.compress(body), "stored_at": utc_now()}
            row = insert(_ANSWER).values(credential=credential, url=url, **values)
            connection.execute(row.on_conflict_do_update(index_elements=["credential", "url"], set_=values))
