# -*- coding: utf-8 -*-
"""The pytest plugin: writes what pytest collected and how each test ended, in one file for every pytest from 3 to 9.

Events, in their order (see swefactory_run.py for the line format):

    start          python, pytest, plugin            versions
                   now, utc_offset, cpu_share        conditions that swefactory_run.py measured
    configured     rootdir, ignored                  options of absent plugins that were left out
    collect_error  id, message                       a file or folder that could not be collected
    item           n, id, file                       one for each test to run, duplicates too
    phase          n, id, when, outcome, xfail, s, message       setup, call and teardown of each
    internal_error message
    end            exit_code, n_items, n_finished, n_failed      the last is pytest's own count of failures

Canaries: tests that must fail, in a module of a random name beside each folder's test files. They run through the same
conftest files, fixtures and hooks; one that is not reported as failed shows that failures are hidden here.
"""

import hashlib
import os
import sys

import pytest

VERSION = "2"

_MESSAGE_CHARACTERS = 2000

_CANARY = """\
import unittest

import pytest


def test_{name}_assert():
    assert "{name}" == "must fail"


def test_{name}_raises():
    with pytest.raises(ZeroDivisionError):
        pass


class Test_{name}(unittest.TestCase):
    def test_{name}_unittest(self):
        self.assertEqual("{name}", "must fail")
"""

OUR_ARGUMENTS = [
    # First, because pytest before 3.5 takes everything after it that is no option for a setting, test files too.
    "-o", "cache_dir=" + os.path.join(os.environ.get("TMPDIR") or "/tmp", "swefactory-pytest-cache"),
    "--continue-on-collection-errors",  # a file that cannot be collected must not hide the others
    "--maxfail=0",  # takes back -x
    "-p", "no:randomly",  # the order is ours
    "-p", "no:random_order",
    "-p", "no:rerunfailures",  # a rerun hides a flaky test
    "-p", "no:flaky",
    "-p", "no:stepwise",
]  # fmt: skip

_MARKERS = ("flaky", "random_order")  # of the plugins above: --strict-markers must not refuse them

# Options of plugins that may be absent here and that take a value as the next argument.
_WITH_VALUE = frozenset(
    """
    -n --numprocesses --dist --tx --maxprocesses --max-worker-restart --rsyncdir --rsyncignore
    --cov --cov-config --cov-report --cov-fail-under --cov-context
    --reruns --reruns-delay --only-rerun --rerun-except --max-runs --min-passes
    --random-order-bucket --random-order-seed --randomly-seed
    --timeout --timeout-method --timeout_method --session-timeout
    --html --css --asyncio-mode --durations-path --splits --group --ds --dc --mypy-config-file
    --benchmark-min-rounds --benchmark-max-time --benchmark-min-time --benchmark-columns --benchmark-sort
    --black-line-length --allow-hosts --sw-skip --testmon-env --hypothesis-profile --hypothesis-seed --log-level
    """.split()
)


def neutralising_arguments():
    """Arguments that switch off plugins that are here: they would spread the tests or set the exit code."""
    found = []
    if _is_installed("xdist"):
        found += ["-n0", "--dist=no"]
    if _is_installed("pytest_cov"):
        found += ["--no-cov"]
    if int(pytest.__version__.split(".")[0]) >= 6:
        found += ["-o", "required_plugins="]
    return found


def _is_installed(name):
    try:
        from importlib.util import find_spec
    except ImportError:
        from pkgutil import find_loader as find_spec
    return find_spec(name) is not None


def _text(value):
    """Any value as text; Python 2 keeps ids and messages as bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if sys.version_info[0] == 2 and not isinstance(value, unicode):  # noqa: F821
        try:
            return unicode(value)  # noqa: F821
        except UnicodeError:
            return str(value).decode("utf-8", "replace")
    return value if isinstance(value, type(u"")) else str(value)


def _message(report):
    """The end of a report's explanation: the error stands last."""
    try:
        return _text(report.longrepr or "")[-_MESSAGE_CHARACTERS:]
    except Exception as error:  # a repr of the tested code may fail
        return "no message: " + _text(type(error).__name__)


def _hash(seed, value):
    return hashlib.sha256((_text(seed) + u"\n" + _text(value)).encode("utf-8", "backslashreplace")).hexdigest()


class Recorder(object):
    """Registered as an object, not by name: pytest neither rewrites it nor looks for it on sys.path."""

    def __init__(self, write, canary, order, root):
        self._write, self._canary, self._order = write, canary, order
        self._root = root
        self._canaries = []
        self._current = -1
        self._numbers = {}
        self._ignored = []
        self._session = None
        self.n_items = 0
        self.n_finished = 0

    def n_failed(self):
        """Failed phases and collections as pytest counted them itself, beside what was recorded."""
        return int(self._session.testsfailed) if self._session is not None else None

    def plant_canaries(self, files):
        """Writes a canary module into the folder of each test file; their paths. No two have one name: without an
        __init__.py, pytest takes modules of one name for one module."""
        folders = sorted(set(os.path.dirname(name.split("::")[0]) for name in files))
        planted = []
        for n, folder in enumerate(folders):
            path = os.path.join(folder, "test_" + self._canary + ("_%d.py" % n if n else ".py"))
            with open(os.path.join(self._root, path), "w") as module:
                module.write(_CANARY.format(name=self._canary))
            planted.append(path)
        return planted

    # ------------------------------------------------------------ configuration

    def pytest_addoption(self, parser):
        """Leaves options out that no plugin here knows, instead of ending with a usage error: addopts often names
        options of coverage and of other plugins that do not matter to an outcome."""
        parse = parser.parse

        def tolerant(args, namespace=None):
            return parse(self._known(parser, list(args)), namespace=namespace)

        parser.parse = tolerant

    def _known(self, parser, args):
        source = parser._getparser() if hasattr(parser, "_getparser") else parser.optparser
        options = set(source._option_string_actions)
        kept, skip_value = [], False
        for i, arg in enumerate(args):
            if skip_value:
                skip_value = False
                continue
            if arg == "--":
                return kept + args[i:]
            name = arg[:2] if arg.startswith("-n") else arg.split("=")[0]
            is_short = not arg.startswith("--") and name != "-n"
            if not arg.startswith("-") or is_short or name in options or any(o.startswith(name) for o in options):
                kept.append(arg)
                continue
            self._ignored.append(arg)
            has_next = i + 1 < len(args) and not args[i + 1].startswith("-")
            skip_value = arg in _WITH_VALUE and has_next
        return kept

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config):
        for marker in _MARKERS:
            config.addinivalue_line("markers", marker + ": belongs to a plugin that is switched off here")
        self._write("configured", rootdir=_text(getattr(config, "rootpath", None) or config.rootdir), ignored=self._ignored)

    # ------------------------------------------------------------ collection

    def pytest_collectreport(self, report):
        if report.failed:
            self._write("collect_error", id=_text(report.nodeid), message=_message(report))

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, collector, name, obj):
        """Collects the canaries' functions whatever python_functions says."""
        if name.startswith("test_" + self._canary) and self._is_canary(collector):
            return list(collector._genfunctions(name, obj))
        return None

    def pytest_itemcollected(self, item):
        if self._is_canary(item):
            self._canaries.append(item)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        """After everybody else: puts canaries back that -m or -k took out, and sets the order."""
        yield
        present = set(id(item) for item in items)
        items.extend(item for item in self._canaries if id(item) not in present)
        if self._order == "reversed":
            items.reverse()
        elif self._order.startswith("random:"):
            seed = self._order[len("random:") :]
            items.sort(key=lambda item: self._random_key(seed, item))

    def _random_key(self, seed, item):
        """Files in a random order, classes in a file, tests in a class: a fixture of a module is still set up once."""
        return (_hash(seed, self._file(item)), _hash(seed, item.parent.nodeid), _hash(seed, item.nodeid))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session):
        self._session = session
        self.n_items = len(session.items)
        for n, item in enumerate(session.items):
            self._numbers[id(item)] = n
            self._write("item", n=n, id=_text(item.nodeid), file=self._file(item))

    def _file(self, node):
        """The node's file below the root. A link keeps its own place: that is where its canary stands."""
        path = str(getattr(node, "path", None) or getattr(node, "fspath", ""))
        found = os.path.relpath(path, self._root)
        if found.startswith(os.pardir):
            found = os.path.relpath(os.path.realpath(path), os.path.realpath(self._root))
        return _text(found).replace(os.sep, "/")

    def _is_canary(self, node):
        name = os.path.basename(self._file(node))
        return name.startswith(("test_" + self._canary + ".", "test_" + self._canary + "_"))

    # ------------------------------------------------------------ the run

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self._current = self._numbers.get(id(item), -1)
        yield
        self.n_finished += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        outcome = _text(report.outcome)
        self._write(
            "phase",
            n=self._current,
            id=_text(report.nodeid),
            when=_text(report.when),
            outcome=outcome,
            xfail=hasattr(report, "wasxfail"),
            s=round(float(getattr(report, "duration", 0.0) or 0.0), 6),
            message="" if outcome == "passed" else _message(report),
        )

    def pytest_internalerror(self, excrepr):
        self._write("internal_error", message=_text(excrepr)[-_MESSAGE_CHARACTERS:])
