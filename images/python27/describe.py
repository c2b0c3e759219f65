# -*- coding: utf-8 -*-
"""Answers uv's question about a Python 2.7, in the form of its own get_interpreter_info.py: describe.py PROGRAM.

uv knows the narrow kind of 2.7 alone, and most are wide: published binary wheels would not fit and are refused, as on
a system that runs none of them. A wheel that is built here fits, under the name that sitecustomize.py gives it.
"""

import json
import os
import platform
import struct
import sys
import sysconfig

program = sys.argv[1]
venv = os.environ.get("UV27_VENV") or ""
prefix = os.path.abspath(venv) if venv else sys.prefix
packages = "lib/python2.7/site-packages"
scheme = {"purelib": packages, "platlib": packages, "include": "include/site/python2.7", "scripts": "bin", "data": ""}
libc = os.confstr(2).split()[1].split(".")  # _CS_GNU_LIBC_VERSION, which 2.7 has no name for
version = platform.python_version()

markers = {
    "implementation_name": "cpython",
    "implementation_version": version,
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": "CPython",
    "platform_release": platform.release(),
    "platform_system": platform.system(),
    "platform_version": platform.version(),
    "python_full_version": version,
    "python_version": "2.7",
    "sys_platform": sys.platform,
}
answer = {
    "result": "success",
    "markers": markers,
    "sys_base_prefix": sys.prefix,
    "sys_base_exec_prefix": sys.exec_prefix,
    "sys_base_executable": program,
    "sys_prefix": prefix,
    "sys_executable": os.path.join(prefix, "bin", "python") if venv else program,
    "sys_path": sys.path[1:],
    "site_packages": [os.path.join(prefix, packages)],
    "stdlib": sysconfig.get_path("stdlib"),
    "extension_suffixes": [".so"],
    "standalone": False,
    "scheme": dict((name, os.path.join(prefix, path).rstrip("/")) for name, path in scheme.items()),
    "virtualenv": scheme,
    "os": {"name": "manylinux", "major": int(libc[0]), "minor": int(libc[1])},
    "arch": platform.machine(),
    "cpu_info": {"detected": {"kind": "flags", "flags": ""}},
    "manylinux_compatible": False,
    "gil_disabled": False,
    "debug_enabled": False,
    "pointer_size": str(8 * struct.calcsize("P")),
}
print(json.dumps(answer))
