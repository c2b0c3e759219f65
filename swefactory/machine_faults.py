"""Tells failures of the machine from answers. One property: what something else ended has answered nothing.

A worker's processes are killed, by the kernel or by people, and disks fill up. What a program then says, or leaves
unsaid, is no verdict on a candidate: the job is tried again.
"""

import re
import subprocess

from swefactory.sandbox_protocols import CommandResult

# The last two are Python's on a full disk: it tries its folders one after the other, and it writes half of a module's
# byte code without a word (seen with 3.8, 3.12.1 and 3.13.0), which the next import finds.
_WORDS = re.compile(
    r"no space left on device|disk quota exceeded|signal: 9 \(SIGKILL\)|died of signal 9|"
    r"killed signal terminated program|no usable temporary directory found|marshal data too short",
    re.IGNORECASE,
)

_LINE_CHARS = 500


def machine_fault(text: str) -> str:
    """The line of a log that says so; empty where none does."""
    found = _WORDS.search(text)
    if found is None:
        return ""
    line = text[text.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
    return line.strip()[-_LINE_CHARS:]


def fault_of(result: CommandResult) -> str:
    """Why a command that failed gave no answer; empty where it did."""
    if result.exit_code == 0 or result.timed_out or result.out_of_memory:
        return ""
    if result.was_killed:
        return "it was killed from outside"
    return machine_fault(result.output.decode(errors="replace"))


def fault_of_process(error: subprocess.CalledProcessError) -> str:
    """The same of a process of the standard library's."""
    if error.returncode < 0:
        return f"it was ended by signal {-error.returncode}"
    words = error.stderr or b""
    return machine_fault(words if isinstance(words, str) else words.decode(errors="replace"))
