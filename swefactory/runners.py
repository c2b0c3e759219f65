"""Which of our two runners carries out a test command, and how it is called. One property: pytest unless told.

    -m pytest …                            swefactory_run.py, pytest with our plugin
    -m unittest · manage.py test … ·       swefactory_unittest.py, unittest alone or under Django's own set-up
    tests/runtests.py … · -m django test

A test command is argv after the interpreter, as in Recipe. Pure.
"""

from collections.abc import Sequence

from swefactory.sandbox_protocols import INPUTS_DIR

PYTEST = ("-m", "pytest")
UNITTEST = ("-m", "unittest")


def uses_pytest(command: Sequence[str]) -> bool:
    """Whether pytest runs the tests; an instance without a command is of a time when all did."""
    return not command or tuple(command[:2]) == PYTEST


def program(command: Sequence[str]) -> str:
    """Our runner for this command, as a path inside a sandbox."""
    return f"{INPUTS_DIR}/{'swefactory_run.py' if uses_pytest(command) else 'swefactory_unittest.py'}"


def scripts(command: Sequence[str]) -> tuple[str, ...]:
    """The files of the checkout that start the tests: they steer them, so no patch may change them."""
    return (command[0],) if command and command[0].endswith(".py") else ()
