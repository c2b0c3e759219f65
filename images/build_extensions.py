# -*- coding: utf-8 -*-
"""Builds the extension modules of the checkout it is run in: build_extensions.py TAR FOLDER…, on Python 2.7 to 3.14.

Leaves in TAR what the build added to the checkout, each under the place where Python looks for it; FOLDER… are the
source roots. With setuptools that is `build_ext --inplace`; any other build backend makes a wheel, of which the modules
that the checkout lacks are taken. Nothing is fetched: what builds is in the environment, and there is no network.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

SUFFIXES = (".so", ".pyd")
SETUPTOOLS = re.compile(r"setuptools|^$")


def here():
    """Extension modules below the checkout, by their path."""
    found = {}
    for folder, folders, names in os.walk("."):
        folders[:] = [name for name in folders if name not in (".git", "build", ".tox", ".eggs")]
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(SUFFIXES) and not os.path.islink(path):
                found[os.path.normpath(path)] = os.stat(path).st_mtime
    return found


def backend():
    """(build backend, its folders in the checkout), as pyproject.toml names them; empty where it names none."""
    if not os.path.exists("pyproject.toml"):
        return "", []
    with io.open("pyproject.toml", encoding="utf-8") as file:
        text = file.read()
    try:
        import tomllib

        table = tomllib.loads(text).get("build-system", {})
        return table.get("build-backend", ""), table.get("backend-path", [])
    except ImportError:  # before 3.11
        found = re.search(r"^build-backend\s*=\s*[\"']([^\"']*)", text, re.MULTILINE)
        path = re.search(r"^backend-path\s*=\s*\[([^\]]*)\]", text, re.MULTILINE)
        return (found.group(1) if found else ""), re.findall(r"[\"']([^\"']+)[\"']", path.group(1) if path else "")


def in_place():
    code = ["setup.py"] if os.path.exists("setup.py") else ["-c", "import setuptools; setuptools.setup()"]
    subprocess.check_call([sys.executable] + code + ["build_ext", "--inplace"])


def from_wheel(name, folders, roots):
    """Puts what a wheel has and the checkout has not beside the sources; those paths."""
    target = tempfile.mkdtemp()
    code = "import sys; sys.path[:0] = %r; import %s as backend; backend = backend%s; backend.build_wheel(%r)"
    module, _, attribute = name.partition(":")
    attributes = "." + attribute if attribute else ""
    subprocess.check_call([sys.executable, "-c", code % (folders, module, attributes, target)])
    wheel = [each for each in os.listdir(target) if each.endswith(".whl")][0]
    added = []
    with zipfile.ZipFile(os.path.join(target, wheel)) as archive:
        for path in archive.namelist():
            top = path.split("/")[0]
            if not path.endswith(SUFFIXES) or top.endswith((".data", ".dist-info")):
                continue
            root = ([each for each in roots if os.path.isdir(os.path.join(each, top))] or roots)[0]
            place = os.path.normpath(os.path.join(root, path))
            if place.startswith("..") or os.path.isabs(place):
                raise SystemExit("the wheel holds a file of a strange name: " + path)
            if not os.path.isdir(os.path.dirname(place) or "."):
                os.makedirs(os.path.dirname(place))
            with open(place, "wb") as file:
                file.write(archive.read(path))
            added.append(place)
    return added


def main():
    tar, roots = sys.argv[1], sys.argv[2:] or ["."]
    before = here()
    name, folders = backend()
    if os.path.exists("setup.py") or SETUPTOOLS.match(name.split(".")[0]):
        in_place()
        added = []
    else:
        added = from_wheel(name, folders, roots)
    after = here()
    made = sorted(set(added) | set(path for path in after if after[path] != before.get(path)))
    with tarfile.open(tar, "w") as archive:
        for path in made:
            archive.add(path)
    print("extension modules: " + (", ".join(made) or "none"))


if __name__ == "__main__":
    main()
