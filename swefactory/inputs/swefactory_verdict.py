# -*- coding: utf-8 -*-
"""Runs test files as a validation does and prints how each test ended; for graders outside swefactory.

    python -E -S /opt/inputs/swefactory_verdict.py [--tests tests.json --reward reward.json] FILE…

In the order of printing: a line a test, "PASSED id", "FAILED id" or "ERROR id" (white space in ids as the pictures ␠ ␉ ␤;
a test that was skipped, xfailed or xpassed proves nothing and has no line), then the tests' own output, each line behind
"| ". Nothing a test prints can so be taken for a verdict. Ends with 0 when every test that has a line passed. With
--tests, the lists of FAIL_TO_PASS and PASS_TO_PASS in that file are held against what was seen, and {"reward": 1 or 0}
is written to --reward.

Started as root, it runs the tests as the sandbox's user. One property: as swefactory.run_record, it believes a record
only whose lines are chained by a key that the tests never had in a file or variable, and whose canaries failed. Runs on
Python 2.7 to 3.14, without site-packages: a start-up file in the tree under test would run as root.
"""

import binascii
import hashlib
import hmac
import io
import json
import os
import posixpath
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.environ.get("SWEFACTORY_TREE", "/testbed")
USER = int(os.environ.get("SWEFACTORY_USER", "1000"))
_RAN = 1


def run(files):
    """(events, exit code, output) of one run; events is None when the record is not intact."""
    key, canary = binascii.hexlify(os.urandom(32)).decode("ascii"), binascii.hexlify(os.urandom(6)).decode("ascii")
    folder = tempfile.mkdtemp(prefix="swefactory-")
    record = os.path.join(folder, "record")
    if os.getuid() == 0:
        os.chown(folder, USER, USER)
    request = {"key": key, "record": record, "canary": canary, "order": "default", "arguments": files, "measure_cpu": False}
    with io.open(os.path.join(HERE, "environment.json"), encoding="utf-8") as text:
        environment = dict((str(name), str(value)) for name, value in json.load(text).items())
    environment["PYTHONHASHSEED"] = "1"
    started = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "swefactory_run.py")],
        cwd=TREE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=step_down,
    )
    output = started.communicate(json.dumps(request).encode("utf-8"))[0]
    try:
        with io.open(record, "rb") as lines:
            events = verified(lines.read(), key.encode("ascii"))
    except (IOError, OSError):
        events = None
    shutil.rmtree(folder, ignore_errors=True)
    return outcomes(events, canary, started.returncode), started.returncode, output


def step_down():
    """Becomes the sandbox's user for good."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    os.setsid()


def verified(content, key):
    last, events = b"", []
    for line in content.splitlines():
        mac, _, text = line.partition(b" ")
        expected = hmac.new(key, last + text, hashlib.sha256).hexdigest().encode("ascii")
        if mac != expected:
            return None
        last = expected
        events.append(json.loads(text.decode("ascii")))
    return events


def outcomes(events, canary, code):
    """{id: outcome}, or None for a run that is no evidence; the rules are those of swefactory.run_record."""
    if not events or events[0]["event"] != "start" or events[-1]["event"] != "end" or events[-1]["exit_code"] != code:
        return None
    end, items = events[-1], [event for event in events if event["event"] == "item"]
    phases = {}
    for event in events:
        if event["event"] == "phase":
            phases.setdefault(event["n"], []).append(event)
    found, canaries, called = {}, {}, set()
    for item in items:
        outcome = outcome_of(phases.get(item["n"], []))
        folder = posixpath.dirname(item["file"])
        if is_canary(item["file"], canary):
            canaries.setdefault(folder, []).append(outcome in ("FAILED", "ERROR"))
            continue
        if any(phase["when"] == "call" for phase in phases.get(item["n"], [])):
            called.add(folder)
        test_id = item["id"]
        found[test_id] = min(found.get(test_id, outcome), outcome, key=_WORST_FIRST.index)
    for event in events:
        if event["event"] == "collect_error" and not is_canary(event["id"], canary):
            found[event["id"]] = "ERROR"
    if not any(outcome == "PASSED" for outcome in found.values()):
        return found
    failures = sum(1 for e in events if e["event"] == "collect_error" or is_failed(e))
    whole = end["n_items"] == len(items) == end["n_finished"] and end.get("n_failed") in (None, failures)
    held = all(len(canaries.get(folder, [])) >= 3 and all(canaries[folder]) for folder in called)
    return found if whole and held and code == _RAN else None


def is_canary(path, canary):
    return posixpath.basename(path).startswith(("test_" + canary + ".", "test_" + canary + "_"))


def is_failed(event):
    return event["event"] == "phase" and event["outcome"] == "failed" and not event["xfail"]


def outcome_of(phases):
    """PASSED, FAILED or ERROR; None for what proves nothing."""
    bad = [phase["when"] for phase in phases if phase["outcome"] not in ("passed", "skipped")]
    if bad:
        return "FAILED" if bad == ["call"] else "ERROR"
    if any(phase["outcome"] == "skipped" for phase in phases):
        return None
    if not set(phase["when"] for phase in phases) >= set(("setup", "call", "teardown")):
        return "ERROR"
    return None if any(phase["xfail"] for phase in phases) else "PASSED"


_WORST_FIRST = ["ERROR", "FAILED", None, "PASSED"]


def printable(test_id):
    """As swefactory.exports.test_names.printable: what a parser that splits at white space leaves whole."""
    return u"".join(picture(c) for c in test_id)


def picture(c):
    n = ord(c)
    if n == 0 or (0xD800 <= n <= 0xDFFF and sys.version_info[0] > 2):  # the catalog's own escapes
        return u"\\u%04x" % n if n else u"\\x00"
    if n <= 0x20:
        return _unichr(0x2400 + n)
    if n == 0x7F:
        return u"\u2421"
    return u"\\u%04x" % n if c.isspace() or 0x80 <= n <= 0x9F else c


_unichr = chr if sys.version_info[0] > 2 else unichr  # noqa: F821


def reward(found, tests):
    """1 when every test of the two lists passed."""
    seen = dict((printable(test_id), outcome) for test_id, outcome in (found or {}).items())
    wanted = [printable(test_id) for name in ("FAIL_TO_PASS", "PASS_TO_PASS") for test_id in tests[name]]
    return int(bool(tests["FAIL_TO_PASS"]) and all(seen.get(test_id) == "PASSED" for test_id in wanted))


def main(arguments):
    options = {}
    while arguments and arguments[0] in ("--tests", "--reward"):
        options[arguments[0]], arguments = arguments[1], arguments[2:]
    found, code, output = run([name for name in arguments if os.path.isfile(os.path.join(TREE, name))])
    out = getattr(sys.stdout, "buffer", sys.stdout)
    if found is None:
        out.write(b"ERROR run-is-no-evidence\n")
    for test_id in sorted(found or {}):
        if found[test_id] is not None:
            out.write((u"%s %s\n" % (found[test_id], printable(test_id))).encode("utf-8", "replace"))
    out.write(b"".join(b"| " + line + b"\n" for line in output.splitlines()))
    out.write(("| pytest ended with %s\n" % code).encode("ascii"))
    out.flush()
    if "--reward" in options:
        with io.open(options["--tests"], encoding="utf-8") as text:
            value = reward(found, json.load(text))
        with io.open(options["--reward"], "w", encoding="utf-8") as file:
            file.write(u"%s\n" % json.dumps({"reward": value}))
    return 0 if found and all(outcome in (None, "PASSED") for outcome in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
