"""Settings: what they make of several of their sources together."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from swefactory.config import Settings


@pytest.mark.parametrize("password", ["plain-and-long", "p@ss:w/rd%41?#", r"back\1slash"])
def test_a_password_of_its_own_completes_the_catalogs_address(password: str) -> None:
    told = Settings(
        database_url="postgresql+psycopg://us@host:5433/catalog?connect_timeout=5", database_password=password
    )
    url = make_url(told.catalog_url)
    assert (url.username, url.password, url.host, url.port, url.database) == ("us", password, "host", 5433, "catalog")
    assert url.query == {"connect_timeout": "5"}
    assert password not in told.redact(f"it was {password}")
    assert password not in repr(told)


@pytest.mark.parametrize("url", ["postgresql://us:theirs@host/c", "sqlite:///some/us@file.db"])
def test_an_address_with_a_password_or_without_a_user_stays_as_it_is(url: str) -> None:
    assert Settings(database_url=url, database_password="another").catalog_url == url


def test_the_embedded_catalog_needs_none(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, database_password="unused").catalog_url == f"sqlite:///{tmp_path / 'catalog.db'}"
