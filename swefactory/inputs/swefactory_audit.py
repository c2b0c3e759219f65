# -*- coding: utf-8 -*-
"""Searches the file system that an agent would see for what it must not: the future of the project under test.

    python -c THIS  <  {"checkout", "environment", "project", "names": [distributions], "lines": [texts]}
    stdout: {"findings": [[place, text]], "n_files", "n_objects"}

Runs inside the sandbox on Python 2.7 to 3.14, before any code of the repository did. Everything below the root is looked
at, wherever it came from; only the kernel's own file systems are left out.
"""

import json
import os
import re
import subprocess
import sys

KERNEL = ("proc", "sys", "dev")
GIT_ENTRIES = frozenset(("HEAD", "config", "description", "index", "info", "objects", "refs", "branches", "COMMIT_EDITMSG"))
INFO_ENTRIES = frozenset(("attributes", "exclude"))
ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".egg", ".conda")
# A line of source does not stand as text in these: not worth the reading.
UNREAD = ("*.so", "*.so.*", "*.a", "*.o", "*.gz", "*.xz", "*.bz2", "*.zip", "*.whl", "*.mo", "*.ttf", "*.png")
# Of the system's programs, gigabytes, only what may hold a package's source or a diff.
READ_OF_PROGRAMS = ("*.py", "*.pyi", "*.pyx", "*.c", "*.h", "*.txt", "*.md", "*.rst", "*.diff", "*.patch", "*.orig")

findings = []


def found(place, text):
    findings.append([place, text])


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def git(checkout, *args):
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    environment = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", GIT_OPTIONAL_LOCKS="0", LC_ALL="C")
    environment.pop("PYTHONPATH", None)
    return subprocess.check_output(command + list(args), cwd=checkout, env=environment).decode("utf-8", "replace")


def audit_git(checkout):
    """How many objects there are; all must belong to the one commit."""
    folder = os.path.join(checkout, ".git")
    if not os.path.isdir(folder) or os.path.islink(folder):
        found(folder, "is no folder")
        return 0
    audit_git_files(folder)
    try:
        return audit_objects(checkout, folder)
    except subprocess.CalledProcessError:
        found(folder, "cannot be read by git")
        return 0


def audit_objects(checkout, folder):
    refs = git(checkout, "for-each-ref", "--format=%(refname)").split()
    for ref in refs:
        if ref != "refs/heads/main":
            found(folder, "has the ref " + ref)
    objects = set(git(checkout, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split())
    reachable = set(line.split()[0] for line in git(checkout, "rev-list", "--objects", "HEAD").splitlines() if line)
    n_commits = int(git(checkout, "rev-list", "--count", "--all", "HEAD"))
    if n_commits != 1:
        found(folder, "%d commits are reachable" % n_commits)
    if objects - reachable:
        found(folder, "%d objects do not belong to the base commit" % len(objects - reachable))
    return len(objects)


def audit_git_files(folder):
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name not in GIT_ENTRIES or os.path.islink(path):
            found(path, "does not belong to a repository of one commit")
    for name in sorted(os.listdir(os.path.join(folder, "info"))):
        if name not in INFO_ENTRIES:
            found(os.path.join(folder, "info", name), "does not belong to a repository of one commit")
    for name in ("alternates", "http-alternates"):
        path = os.path.join(folder, "objects", "info", name)
        if os.path.lexists(path):
            found(path, "leads to objects elsewhere")
    message = os.path.join(folder, "COMMIT_EDITMSG")
    if os.path.exists(message) and open(message, "rb").read().strip() != b"base":
        found(message, "holds the message of another commit")


def audit_names(root, checkout, extra, project, names):
    """How many files there are; none may be another copy of the project, or another repository."""
    n_files = 0
    own_git = os.path.join(checkout, ".git")
    for top in [root] + extra:
        for folder, folders, files in os.walk(top):
            if folder == "/":
                folders[:] = [name for name in folders if name not in KERNEL]
            n_files += len(files)
            for name in folders + files:
                path = os.path.join(folder, name)
                if name == ".git" and path != own_git:
                    found(path, "is another repository")
                elif is_distribution(name, names) and not is_below(path, project) and not is_below(path, checkout):
                    found(path, "is another copy of the project")
    return n_files


def is_below(path, folder):
    return path == folder or path.startswith(folder + os.sep)


def is_distribution(name, names):
    for ending in (".dist-info", ".egg-info", ".egg-link") + ARCHIVES:
        if name.endswith(ending):
            stem = name[: -len(ending)]
            return any(canonical(stem.rsplit("-", n)[0]) in names for n in range(6))
    return False


def audit_lines(root, extra, lines):
    """Where a line of the fix stands. `lines` do not stand in the base commit."""
    tops = [os.path.join(root, name) for name in sorted(os.listdir(root)) if root != "/" or name not in KERNEL]
    programs = [top for top in tops if top == "/usr"]
    others = [top for top in tops if top not in programs and not os.path.islink(top)]
    if lines:
        search(lines, ["--exclude=" + pattern for pattern in UNREAD], others + extra)
    if lines and programs:
        search(lines, ["--include=" + pattern for pattern in READ_OF_PROGRAMS], programs)


def search(lines, which, tops):
    command = ["grep", "-rslF", "-f", "-"] + which + ["--"] + tops
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ, LC_ALL="C")
    )
    output = process.communicate("\n".join(lines).encode("utf-8"))[0]
    for path in sorted(set(output.decode("utf-8", "replace").splitlines())):
        if holds(path, lines):
            found(path, "holds lines of the fix")


def holds(path, lines):
    """Whether a file has three of the lines, or all of fewer: one alone can be written twice by chance."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except EnvironmentError:  # it went, or is not ours to read: grep has read it a moment ago
        return True
    return sum(line.encode("utf-8") in content for line in lines) >= min(3, len(lines))


def main():
    request = json.loads(getattr(sys.stdin, "buffer", sys.stdin).read().decode("utf-8"))
    checkout, environment = request["checkout"], request["environment"]
    root = os.path.dirname(checkout)
    extra = [] if root == "/" else [environment]
    names = set(canonical(name) for name in request["names"])
    n_objects = audit_git(checkout)
    n_files = audit_names(root, checkout, extra, request["project"], names)
    audit_lines(root, extra, request["lines"])
    print(json.dumps({"findings": findings, "n_files": n_files, "n_objects": n_objects}))


main()
