# -*- coding: utf-8 -*-
"""What uv's builds expect of an interpreter and Python 2.7 lacks; read at the start of builds, never of tests."""

import os
import site
import sys
import sysconfig

# uv's scripts for builds are written for Python 3; these two are all of it that they use.
os.fsdecode = os.fsencode = lambda path: path
# The narrow kind's name, the only one uv knows, for what is built for this very interpreter.
sysconfig.get_config_vars()["Py_UNICODE_SIZE"] = 2
# Packages beside the interpreter are not the build environment's.
beside = os.path.join(sys.prefix, "lib", "python2.7", "site-packages")
sys.path[:] = [path for path in sys.path if path != beside]
if os.environ.get("UV27_VENV"):
    site.addsitedir(os.path.join(os.environ["UV27_VENV"], "lib", "python2.7", "site-packages"))
