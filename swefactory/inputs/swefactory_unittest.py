# -*- coding: utf-8 -*-
"""Runs unittest suites without pytest, alone or under Django's own set-up, and records them as the pytest plugin does.

    python /opt/inputs/swefactory_unittest.py  <  the request of swefactory_run.py and "command", one of
        ["-m", "unittest"]                      no set-up
        ["manage.py", "test", OPTIONS…]         a script of the checkout that starts Django's test runner: it runs as it
        ["tests/runtests.py", OPTIONS…]         is, but what it runs are the files asked for, under our result
        ["-m", "django", "test", OPTIONS…]      the same without a script
    and "collect_only": true                    ends after loading: 0 all loaded, 1 some not, 5 no test

For Python 2.7 to 3.14 and Django from 1.8. The record's lines are those of swefactory_plugin.py, ids included: a test
that both can run has one id. A test that was begun says so at once (begin: n, id). One property: a test has passed only
when unittest called addSuccess for it and nothing else; canaries are planted and counted as the plugin does it.
"""

import os
import re
import sys
import time
import traceback
import unittest

import swefactory_run

VERSION = "1"

_MESSAGE_CHARACTERS = 2000
_NOT_LOADED = ("_FailedTest", "LoadTestsFailure", "ModuleImportFailure")  # what unittest puts in place of tests
_HOLDER = re.compile(r"(setUp|tearDown)(Class|Module) \((.+)\)$")
_SET_UP = frozenset(("setUp", "asyncSetUp", "_pre_setup", "_callSetUp", "_setup_and_call"))
_TEAR_DOWN = frozenset(("tearDown", "asyncTearDown", "doCleanups", "_post_teardown", "_callTearDown", "_callCleanup"))

_CANARY = """\
import unittest


class Test_{name}(unittest.TestCase):
    def test_{name}_assert(self):
        assert "{name}" == "must fail"

    def test_{name}_raises(self):
        with self.assertRaises(ZeroDivisionError):
            pass

    def test_{name}_equal(self):
        self.assertEqual("{name}", "must fail")
"""
_DJANGO_CANARY = """

from django.test import {base}


class {base}_{name}({base}):
    def test_{name}_django(self):
        self.assertEqual("{name}", "must fail")
"""


class Collected(BaseException):
    """All files are loaded, and nothing more was asked for."""


def text(value):
    """Any value as text; Python 2 keeps ids and messages as bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, type(u"")) else str(value)


def message(err):
    """The end of an exception's traceback: the error stands last."""
    try:
        return text("".join(traceback.format_exception(*err)))[-_MESSAGE_CHARACTERS:]
    except Exception as error:  # a repr of the tested code may fail
        return u"no message: " + text(type(error).__name__)


def is_suite(value):
    return not isinstance(value, unittest.TestCase) and hasattr(value, "__iter__")


def flattened(suite):
    """The tests of a suite of suites, in their order."""
    return [test for part in suite for test in (flattened(part) if is_suite(part) else [part])]


def class_name(test):
    """As unittest names the class where its set-up failed."""
    cls = type(test)
    return "%s.%s" % (cls.__module__, getattr(cls, "__qualname__", cls.__name__))


def phase_of(test, err):
    """In which phase an exception came, by the functions it went through."""
    code = getattr(getattr(test, getattr(test, "_testMethodName", ""), None), "__code__", None)
    names, frame = set(), err[2]
    while frame is not None:
        if frame.tb_frame.f_code is code:
            return "call"
        names.add(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    return "setup" if names & _SET_UP else "teardown" if names & _TEAR_DOWN else "call"


def loaded_from(path, name):
    """A module by its file, under a name that no other has."""
    if sys.version_info[0] == 2:
        import imp

        return imp.load_source(name.replace(".", "_"), path)
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, path)
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder(object):
    """Loads the files, numbers their tests and writes what becomes of each."""

    def __init__(self, write, canary, order, root):
        self._write, self._canary, self._order, self._root = write, canary, order, root
        self._clock = getattr(time, "monotonic", time.time)
        self._tests, self._files, self._numbers = [], [], {}
        self._marks, self._succeeded, self._failed, self._finished = {}, set(), set(), set()
        self._n_bad_files = 0
        self._n_more = 0  # failures recorded for which unittest counts none: a class' set-up fails once for all its tests
        self.result = None

    # ------------------------------------------------------------ loading

    def load(self, files, is_django):
        """The tests of the files and of canaries beside them, in no order yet."""
        self._write("configured", rootdir=text(self._root), ignored=[])
        found = [(test, path) for path in files for test in self._tests_of(path)]
        if self._canary:
            kinds = self._django_kinds(found) if is_django else []
            found += [(test, path) for path in self._planted(files, kinds) for test in self._tests_of(path)]
        return found

    def _tests_of(self, path):
        """Loaded as pytest would: by the name that the file has below the first folder that is no package."""
        names, folder = [os.path.basename(path)[: -len(".py")]], os.path.dirname(path)
        while folder and os.path.exists(os.path.join(self._root, folder, "__init__.py")):
            names.insert(0, os.path.basename(folder))
            folder = os.path.dirname(folder)
        base = os.path.normpath(os.path.join(self._root, folder))
        if base not in sys.path:
            sys.path.insert(0, base)
        name = ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names)
        try:
            __import__(name)
            module = sys.modules[name]
            if not self._is_of(module, path):  # a module of the same name in another folder that is no package
                module = loaded_from(os.path.join(self._root, path), path[: -len(".py")].replace(os.sep, "."))
            found = flattened(unittest.TestLoader().loadTestsFromModule(module))
        except unittest.SkipTest:
            return []
        except KeyboardInterrupt:
            raise
        except BaseException:  # a module may end the process politely
            self._not_loaded(path, message(sys.exc_info()))
            return []
        for test in found:
            if type(test).__name__ in _NOT_LOADED:
                self._not_loaded(path, text(getattr(test, "_exception", test.id()))[-_MESSAGE_CHARACTERS:])
        return [test for test in found if type(test).__name__ not in _NOT_LOADED]

    def _not_loaded(self, path, said):
        self._n_bad_files += 1
        self._write("collect_error", id=text(path), message=said)
        if self._canary is None:
            sys.stderr.write("%s\n%s\n" % (path, said))

    def _is_of(self, module, path):
        there = os.path.splitext(getattr(module, "__file__", None) or "")[0]
        return os.path.realpath(there) == os.path.realpath(os.path.splitext(os.path.join(self._root, path))[0])

    def _planted(self, files, kinds):
        """Writes a canary module into the folder of each test file; their paths."""
        code = _CANARY.format(name=self._canary)
        code += "".join(_DJANGO_CANARY.format(name=self._canary, base=kind) for kind in kinds)
        planted = []
        for folder in sorted(set(os.path.dirname(path) for path in files)):
            planted.append(os.path.join(folder, "test_" + self._canary + ".py"))
            with open(os.path.join(self._root, planted[-1]), "w") as module:
                module.write(code)
        try:
            from importlib import invalidate_caches
        except ImportError:  # Python 2.7 has none
            return planted
        invalidate_caches()
        return planted

    def _django_kinds(self, found):
        """Test cases of Django that are in use here: one that needs a database must not ask for one that no test has."""
        from django import test

        kinds = [kind for kind in ("SimpleTestCase", "TestCase") if hasattr(test, kind)]
        return [kind for kind in kinds if any(isinstance(each, getattr(test, kind)) for each, _ in found)]

    def ordered(self, found, classes=()):
        """A suite in the order asked for. Django's kinds of test cases stay apart: some leave the database changed."""
        if self._order == "reversed":
            found.reverse()
        elif self._order.startswith("random:"):
            seed = self._order[len("random:") :]
            found.sort(key=lambda pair: self._random_key(seed, *pair))
        found.sort(key=lambda pair: next((n for n, cls in enumerate(classes) if isinstance(pair[0], cls)), len(classes)))
        for n, (test, path) in enumerate(found):
            self._tests.append(test)
            self._files.append(path.replace(os.sep, "/"))
            self._numbers[id(test)] = n
            self._write("item", n=n, id=self._id(test), file=text(self._files[n]))
        return unittest.TestSuite(self._tests)

    def _random_key(self, seed, test, path):
        """Files in a random order, classes in a file, tests in a class: a class is still set up once."""
        return tuple(digest(seed, value) for value in (path, class_name(test), text(test.id())))

    def _id(self, test):
        """pytest's node id where it has one."""
        n = self._numbers.get(id(test))
        path = text(self._files[n]) if n is not None else u""
        name = getattr(test, "_testMethodName", None)
        if name and hasattr(type(test), name) and not isinstance(test, unittest.FunctionTestCase):
            return u"::".join((path, text(type(test).__name__), text(name)))
        return u"::".join((path, text(test.id())))

    # ------------------------------------------------------------ running

    @property
    def n_items(self):
        return len(self._tests)

    @property
    def n_finished(self):
        return len(self._finished)

    def n_failed(self):
        """As unittest counted them itself, beside what was recorded."""
        counted = sum(len(getattr(self.result, kind, ())) for kind in ("failures", "errors", "unexpectedSuccesses"))
        return counted + self._n_more + self._n_bad_files

    def begin(self, test):
        n = self._numbers.get(id(test), -1)
        self._marks[n] = self._clock()
        self._write("begin", n=n, id=self._id(test))

    def phase(self, test, when, outcome, said=u"", xfail=False):
        """One phase that did not simply pass."""
        n = self._numbers.get(id(test), -1)
        self._failed.add(n)
        self._phase(test, n, when, outcome, said, xfail, self._elapsed(n))
        if n not in self._marks:  # Django prepares a test before unittest begins it
            self._finished.add(n)

    def _phase(self, test, n, when, outcome, said, xfail, seconds):
        self._write(
            "phase", n=n, id=self._id(test), when=when, outcome=outcome, xfail=xfail, s=round(seconds, 6), message=said
        )

    def _elapsed(self, n):
        """Seconds since the test began or had its last phase."""
        now = self._clock()
        then = self._marks.get(n, now)
        if n in self._marks:
            self._marks[n] = now
        return now - then

    def succeeded(self, test):
        self._succeeded.add(self._numbers.get(id(test), -1))

    def finish(self, test):
        n = self._numbers.get(id(test), -1)
        if n in self._succeeded and n not in self._failed:
            for when, seconds in (("setup", 0.0), ("call", self._elapsed(n)), ("teardown", 0.0)):
                self._phase(test, n, when, "passed", u"", False, seconds)
        self._finished.add(n)

    def holder(self, holder, outcome, said):
        """What befell a class or a module, as the tests' own: set-up stops all that are left, tear-down speaks of the
        last that ran."""
        matched = _HOLDER.match(text(holder.id()))
        part, kind, name = matched.groups() if matched else (None, None, None)
        named = [
            n for n, test in enumerate(self._tests)
            if name == (class_name(test) if kind == "Class" else type(test).__module__)
        ]  # fmt: skip
        if part == "setUp":
            concerned = [n for n in named if n not in self._finished]
        else:
            concerned = [n for n in named if n in self._finished][-1:]
        if not concerned:
            self._write("collect_error", id=text(holder.id()), message=said)
            self._n_more += outcome != "failed"
            return
        for n in concerned:
            self._failed.add(n)
            self._finished.add(n)
            self._phase(self._tests[n], n, "setup" if part == "setUp" else "teardown", outcome, said, False, 0.0)
        self._n_more += len(concerned) - 1 if outcome == "failed" else 0


class Result(unittest.TestResult):
    """Hands everything to the recorder and lets unittest count, too."""

    def __init__(self, recorder):
        unittest.TestResult.__init__(self)
        self._recorder = recorder
        recorder.result = self

    def startTest(self, test):
        self._recorder.begin(test)
        unittest.TestResult.startTest(self, test)

    def stopTest(self, test):
        unittest.TestResult.stopTest(self, test)
        self._recorder.finish(test)

    def addSuccess(self, test):
        self._recorder.succeeded(test)
        unittest.TestResult.addSuccess(self, test)

    def addError(self, test, err):
        if isinstance(test, unittest.TestCase):
            self._recorder.phase(test, phase_of(test, err), "failed", message(err))
        else:
            self._recorder.holder(test, "failed", message(err))
        unittest.TestResult.addError(self, test, err)

    def addFailure(self, test, err):
        self._recorder.phase(test, phase_of(test, err), "failed", message(err))
        unittest.TestResult.addFailure(self, test, err)

    def addSubTest(self, test, subtest, err):
        """A failing part is the test's failure, and its message says which part."""
        if err is not None:
            said = text(subtest._subDescription()) + u"\n" + message(err)
            self._recorder.phase(test, "call", "failed", said[-_MESSAGE_CHARACTERS:])
        unittest.TestResult.addSubTest(self, test, subtest, err)

    def addSkip(self, test, reason):
        whole = getattr(test, "test_case", test)  # of a part
        if isinstance(whole, unittest.TestCase):
            self._recorder.phase(whole, "call", "skipped", text(reason))
        else:
            self._recorder.holder(whole, "skipped", text(reason))
        unittest.TestResult.addSkip(self, test, reason)

    def addExpectedFailure(self, test, err):
        self._recorder.phase(test, "call", "skipped", message(err), xfail=True)
        unittest.TestResult.addExpectedFailure(self, test, err)

    def addUnexpectedSuccess(self, test):
        self._recorder.phase(test, "call", "failed", u"Unexpected success")
        unittest.TestResult.addUnexpectedSuccess(self, test)


def digest(seed, value):
    import hashlib

    return hashlib.sha256((text(seed) + u"\n" + text(value)).encode("utf-8", "backslashreplace")).hexdigest()


# ---------------------------------------------------------------- without and with Django


def run_suite(recorder, suite):
    """unittest's result of the suite."""
    result = Result(recorder)
    for hook in ("startTestRun", "stopTestRun"):
        getattr(result, hook)()
        if hook == "startTestRun":
            suite.run(result)
    return result


def run_plain(recorder, files, collect_only):
    found = recorder.load(files, False)
    if collect_only:
        raise Collected(len(found))
    run_suite(recorder, recorder.ordered(found))
    return 1 if recorder.n_failed() else 0


def take_over_django(recorder, files, collect_only):
    """Whatever runner the project chooses: it runs our suite, under our result."""
    import django.test.runner
    import django.test.utils

    def build_suite(self, *args, **kwargs):
        self.parallel = 1
        found = recorder.load(files, True)
        if collect_only:
            raise Collected(len(found))
        return recorder.ordered(found, tuple(getattr(self, "reorder_by", ())))

    def run(self, suite, **kwargs):
        return run_suite(recorder, suite)

    ours = {"build_suite": build_suite, "run_suite": run}
    for name, method in ours.items():
        setattr(django.test.runner.DiscoverRunner, name, method)
    get_runner = django.test.utils.get_runner

    def get_our_runner(*args, **kwargs):
        return type("RecordedRunner", (get_runner(*args, **kwargs),), dict(ours))

    django.test.utils.get_runner = get_our_runner


def run_django(command, files):
    """The exit code of the project's own script, or of Django's `test` where it has none."""
    try:
        if command[0] == "-m":
            from django.core.management import execute_from_command_line

            sys.argv[:] = ["django-admin"] + command[2:]
            execute_from_command_line(list(sys.argv))
        else:
            import runpy

            sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
            sys.argv[:] = command + labels(command[0], files)
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


def labels(script, files):
    """Django's own runtests.py installs only the applications that its labels name. Others are not handed any: some
    take no arguments."""
    if os.path.basename(script) != "runtests.py" or not os.path.exists(os.path.join("django", "__init__.py")):
        return []
    below = [os.path.relpath(path, os.path.dirname(script) or os.curdir) for path in files]
    return [os.path.splitext(path)[0].replace(os.sep, ".") for path in below]


def run(recorder, command, files, collect_only, write):
    """1 where tests failed, 0 where none did, 3 where the run itself broke."""
    try:
        if command[:2] == ["-m", "unittest"]:
            sys.argv[:] = [os.path.join(os.path.dirname(unittest.__file__), "__main__.py")] + files
            return run_plain(recorder, files, collect_only)
        code = run_django(command, files)
        expected = 1 if recorder.n_failed() else 0
        if bool(code) == bool(expected) and recorder.result is not None:
            return expected
        raise RuntimeError("%s ended with %r and ran %d tests" % (command[0], code, recorder.n_finished))
    except Collected:
        raise
    except BaseException:
        write("internal_error", message=swefactory_run.explanation())
        traceback.print_exc()
        return 3


# ---------------------------------------------------------------- the process


def prepare(is_django):
    """Imports what must come from where Python found it at its start, before the checkout is on sys.path. Django may
    be the checkout; then it is found where the environment has put the project."""
    import doctest  # noqa: F401

    try:
        import unittest.mock  # noqa: F401
    except ImportError:
        pass
    try:
        import unittest.async_case  # noqa: F401
    except ImportError:
        pass
    if not is_django:
        return u"unittest"
    import django

    return u"Django " + text(django.get_version())


def silent(event, **fields):
    """Takes the place of a record's writer."""


def main():
    request = swefactory_run.read_request()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    collect_only = bool(request.get("collect_only"))
    key = request.pop("key", "").encode("ascii")
    write = silent if collect_only else swefactory_run.make_writer(request["record"], key)
    owner, native = os.getpid(), swefactory_run.native
    conditions = swefactory_run.measured(request.get("measure_cpu"))
    command = [native(word) for word in request["command"]]
    is_django = command[:2] != ["-m", "unittest"]
    try:
        runner = prepare(is_django)
    except Exception:
        write("no_pytest", message=swefactory_run.explanation())  # the reader's word for a runner that is missing
        raise
    versions = {"python": sys.version.split()[0], "pytest": "", "plugin": "unittest-" + VERSION, "runner": runner}
    write("start", **dict(conditions, **versions))
    canary = None if collect_only else native(request["canary"])
    recorder = Recorder(write, canary, native(request.get("order", "default")), os.getcwd())
    files = [native(name) for name in request["arguments"]]
    if is_django:
        take_over_django(recorder, files, collect_only)
    if command[0] == "-m":
        sys.path.insert(0, os.getcwd())
    try:
        code = run(recorder, command, files, collect_only, write)
    except Collected as collected:
        code = 1 if recorder.n_failed() else 0 if collected.args[0] else 5
    swefactory_run.finish(write if os.getpid() == owner and not collect_only else None, recorder, code)


if __name__ == "__main__":
    main()
