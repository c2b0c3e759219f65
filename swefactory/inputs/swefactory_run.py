# -*- coding: utf-8 -*-
"""Runs pytest as `python -m pytest` does, and records what happened outside the reach of stdout.

    python /opt/inputs/swefactory_run.py  <  {"key", "record", "canary", "order", "arguments": [test files], "measure_cpu"}

Runs on Python 2.7 to 3.14 with pytest 3 to 9. The order of events is the point of this file: pytest, its own modules
and the plugin are imported before the working directory is on sys.path, so that a pytest.py, a _pytest/ or a
unittest.py in the tree under test cannot take their place. One property: each line of the record is chained to the
ones before it by a keyed hash; the key comes over stdin, is used by one closure and is written nowhere, so a line
that is added, changed, repeated or removed by anybody else is seen.

    <hex HMAC-SHA256 of the previous line's hash and this line's JSON> <JSON>
"""

import hashlib
import hmac
import json
import os
import sys
import time
import traceback


_BUSY_S = 0.5  # five periods of the kernel's CPU quota


def make_writer(path, key):
    """A function that appends one event to the record. What it calls is bound here, once: tests replace os.write,
    json.dumps and open. The file is opened for each line: tests close descriptors they do not know."""
    open_, write_, close_, getpid = os.open, os.write, os.close, os.getpid
    dumps, new_mac, sha256 = json.dumps, hmac.new, hashlib.sha256
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    owner, last = os.getpid(), [""]

    def write(event, **fields):
        if getpid() != owner:  # a child that a test forked and that went on as if it were us
            return
        line = dumps(dict(fields, event=event), sort_keys=True)
        last[0] = new_mac(key, (last[0] + line).encode("ascii"), sha256).hexdigest()
        data = (last[0] + " " + line + "\n").encode("ascii")
        descriptor = open_(path, flags, 0o600)
        try:
            while data:
                data = data[write_(descriptor, data) :]
        finally:
            close_(descriptor)

    return write


def read_request():
    """The request on stdin; stdin is empty afterwards, also for the tests."""
    source = getattr(sys.stdin, "buffer", sys.stdin)
    request = json.loads(source.read().decode("utf-8"))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return request


def has_route():
    """Whether a network leads out of here."""
    try:
        with open("/proc/net/route") as table:
            return any(line.split()[1:2] == ["00000000"] for line in table)
    except (OSError, IOError):
        return False


def measured(with_cpu):
    """In which conditions this process runs, as it finds them before any code under test is there: the clock, the zone,
    and of a CPU the share that a busy loop gets. A limit that nothing enforces is told from one that holds by that."""
    found = {"now": time.time(), "utc_offset": time.strftime("%z"), "has_route": has_route()}
    if with_cpu:
        clock = getattr(time, "monotonic", time.time)
        used = getattr(time, "process_time", getattr(time, "clock", None))
        wall, cpu = clock(), used()
        while clock() - wall < _BUSY_S:
            pass
        found["cpu_share"] = round((used() - cpu) / (clock() - wall), 3)
    return found


def import_ahead():
    """Imports pytest, all that belongs to it and unittest from where Python found them at its start."""
    import doctest  # noqa: F401
    import unittest  # noqa: F401

    import pytest

    try:
        import unittest.mock  # noqa: F401
    except ImportError:
        pass
    import _pytest.config

    for name in _pytest.config.default_plugins:
        __import__("_pytest." + name)
    return pytest


def enter_tree(pytest):
    """Makes sys.path and sys.argv what `python -m pytest` would make them."""
    sys.path.insert(0, os.getcwd())
    folder = os.path.dirname(os.path.abspath(pytest.__file__))
    main = os.path.join(folder, "__main__.py")
    sys.argv[:] = [main if os.path.exists(main) else pytest.__file__]


def run(pytest, plugin, write, arguments):
    """pytest's exit code; 3, as for an internal error, when it raised."""
    try:
        return int(pytest.main(arguments, plugins=[plugin]))
    except BaseException:
        write("internal_error", message=explanation())
        traceback.print_exc()
        return 3


def explanation():
    """The end of the present traceback, as text on every Python."""
    text = traceback.format_exc()[-4000:]
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def native(text):
    """JSON's text as the str that Python 2 expects of paths."""
    return text if isinstance(text, str) else text.encode("utf-8")


def finish(write, recorder, code):
    """Ends the record, unless `write` is None, and the process."""
    if write:
        counts = {"n_items": recorder.n_items, "n_finished": recorder.n_finished, "n_failed": recorder.n_failed()}
        write("end", exit_code=code, **counts)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, IOError, ValueError):  # a test closed it; the record is complete
            pass
    os._exit(code)  # a thread that never ends, or a crash while the interpreter takes itself down, is no result


def main():
    request = read_request()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        os.environ.pop(name, None)
    write = make_writer(request["record"], request.pop("key").encode("ascii"))
    owner = os.getpid()
    conditions = measured(request.get("measure_cpu"))
    try:
        pytest = import_ahead()
        sys.path.insert(0, here)
        import swefactory_plugin

        sys.path.remove(here)
    except Exception:
        write("no_pytest", message=explanation())
        raise
    versions = {"python": sys.version.split()[0], "pytest": pytest.__version__, "plugin": swefactory_plugin.VERSION}
    write("start", **dict(conditions, **versions))
    recorder = swefactory_plugin.Recorder(write, native(request["canary"]), native(request["order"]), os.getcwd())
    arguments = swefactory_plugin.OUR_ARGUMENTS + swefactory_plugin.neutralising_arguments()
    files = [native(name) for name in request["arguments"]]
    files += recorder.plant_canaries(files)
    enter_tree(pytest)
    sys.argv.extend(files)
    code = run(pytest, recorder, write, arguments + files)
    finish(write if os.getpid() == owner else None, recorder, code)


if __name__ == "__main__":
    main()
