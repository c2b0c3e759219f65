"""A tiny Django project whose tests need Django's set-up, with a bug, its fix and the test that shows it."""

from tests.fake_sandbox import diff_of

BASE = {
    "manage.py": """#!/usr/bin/env python
import os
import sys


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
""",
    "requirements.txt": "Django>=4.2,<4.3\n",
    "site1/__init__.py": "",
    "site1/settings.py": """
SECRET_KEY = "only for tests"
INSTALLED_APPS = ["polls"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
""",
    "polls/__init__.py": "",
    "polls/models.py": """from django.db import models


class Poll(models.Model):
    votes = models.IntegerField(default=0)

    @property
    def is_popular(self):
        return self.votes > 10
""",
    "polls/tests.py": """from django.test import TestCase

from polls.models import Poll


class PollTests(TestCase):
    def test_unpopular(self):
        self.assertFalse(Poll.objects.create(votes=9).is_popular)
""",
}
TESTS = """from django.test import SimpleTestCase, TestCase, TransactionTestCase

from polls.models import Poll


class EveryRow(TransactionTestCase):
    def test_rows_do_not_stay(self):
        self.assertEqual(Poll.objects.count(), 0)
        Poll.objects.create(votes=1)

    def test_rows_do_not_stay_twice(self):
        self.test_rows_do_not_stay()


class PollTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.poll = Poll.objects.create(votes=10)

    def test_unpopular(self):
        self.assertFalse(Poll.objects.create(votes=9).is_popular)

    def test_popular(self):
        self.assertTrue(Poll.objects.get(votes=10).is_popular)


class NoRow(SimpleTestCase):
    def test_parts(self):
        for votes in (10, 11):
            with self.subTest(votes=votes):
                self.assertTrue(Poll(votes=votes).is_popular)

    def test_no_database(self):
        with self.assertRaises(AssertionError):
            Poll.objects.count()
"""
GOOD = {"polls/models.py": BASE["polls/models.py"].replace("> 10", ">= 10")}
TEST_PATCH = diff_of(BASE, {**BASE, "polls/tests.py": TESTS})
COMMAND = ("manage.py", "test")
FAIL_TO_PASS = ("polls/tests.py::PollTests::test_popular", "polls/tests.py::NoRow::test_parts")
PASS_TO_PASS = (
    "polls/tests.py::PollTests::test_unpopular", "polls/tests.py::NoRow::test_no_database",
    "polls/tests.py::EveryRow::test_rows_do_not_stay", "polls/tests.py::EveryRow::test_rows_do_not_stay_twice",
)  # fmt: skip
