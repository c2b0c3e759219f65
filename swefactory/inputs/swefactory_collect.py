# -*- coding: utf-8 -*-
"""Collects test files as swefactory_run.py would before it runs them, and runs none.

    python /opt/inputs/swefactory_collect.py FILE…      exit code 0: all collected · 1: some not · 5: they hold no test

Runs on Python 2.7 to 3.14 with pytest 3 to 9, with the options of plugins that are absent left out, as in a real run.
"""

import os
import sys


def silent(event, **fields):
    """Takes the place of a record's writer."""


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    files = sys.argv[1:]
    import swefactory_run

    sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        os.environ.pop(name, None)
    pytest = swefactory_run.import_ahead()
    sys.path.insert(0, here)
    import swefactory_plugin

    sys.path.remove(here)
    recorder = swefactory_plugin.Recorder(silent, "collected_only", "default", os.getcwd())
    arguments = swefactory_plugin.OUR_ARGUMENTS + swefactory_plugin.neutralising_arguments()
    swefactory_run.enter_tree(pytest)
    sys.argv.extend(files)
    code = int(pytest.main(arguments + ["--collect-only", "-q"] + files, plugins=[recorder]))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # as in a real run: a thread that never ends is no result


if __name__ == "__main__":
    main()
