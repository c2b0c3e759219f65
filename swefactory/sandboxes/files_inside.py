"""Reads and writes one file of a sandbox by commands run inside it, as its user.

One property: a link that the sandboxed code made leads to a place inside the sandbox, never to one of the host.
"""

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CommandResult

TIMEOUT_S = 120


def write_argv(path: str, mode: int) -> tuple[str, ...]:
    """Takes the content on standard input; makes parents."""
    return ("/usr/bin/install", "-D", f"--mode={mode:o}", "--", "/dev/stdin", path)


def check_written(path: str, result: CommandResult) -> None:
    """Raises InfrastructureError when the file was not written."""
    if result.exit_code != 0:
        raise InfrastructureError(f"cannot write {path} in the sandbox: {last_line(result)}")


def read_argv(path: str, max_bytes: int) -> tuple[str, ...]:
    """Prints the size, then the content unless that is larger; a pipe or a device is refused before it is opened."""
    show = ("-printf", r"%s\n", "-size", f"-{max_bytes + 1}c", "-exec", "/bin/cat", "{}", ";")
    return ("/usr/bin/find", "-L", path, "-maxdepth", "0", "-type", "f", *show)


def output_bytes(max_bytes: int) -> int:
    """How much of that command's output must be kept."""
    return 2 * max_bytes + 65536


def content_of(path: str, max_bytes: int, result: CommandResult) -> bytes:
    """What `read_argv` printed. Raises FileNotFoundError, or InfrastructureError when the file is larger or none."""
    size, _, content = result.output.partition(b"\n")
    if result.exit_code == 1:
        raise FileNotFoundError(f"{path} is not in the sandbox, or not readable: {last_line(result)}")
    if not size.isdigit():
        raise InfrastructureError(f"cannot read {path} in the sandbox: not a regular file")
    if int(size) > max_bytes or result.truncated:
        raise InfrastructureError(f"{path} has {int(size)} bytes, more than the {max_bytes} that may be read")
    if len(content) < int(size):  # what read it was killed
        raise InfrastructureError(f"{path} was read to {len(content)} of its {int(size)} bytes")
    return content


def last_line(result: CommandResult) -> str:
    """The last thing a command said, for messages."""
    lines = result.output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {result.exit_code}"
