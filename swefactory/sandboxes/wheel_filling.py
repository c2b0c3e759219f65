"""Fills an environment from wheels. One property: what a lock has no wheel of is built by itself, once, and kept.

kept wheels ─► fill from wheels alone ──works──► done
                    ▲        │ names a package that has none
                    └────────┴─ build it alone, in the order of build_tries, and keep the wheel
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.machine_faults import fault_of
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec
from swefactory.sandboxes.build_tries import BuildTry, following, tries_of
from swefactory.sandboxes.kept_wheels import KeptWheels, Pin, lock_of, needed, pins_of


class Builder(Protocol):
    """How a sandbox fills one environment."""

    def wheels(self, lock: str, built: Sequence[Path]) -> CommandResult:
        """Fills it with the packages of `lock` from wheels of the index, and with the wheels `built`."""
        ...

    def source(self, pin: Pin, how: BuildTry, kept: KeptWheels) -> tuple[CommandResult, Path | None]:
        """Builds one package where nothing of the others is seen; its wheel once it is kept, None when it left none."""
        ...

    def text(self, result: CommandResult) -> str:
        """What was said."""
        ...

    def failure(self, result: CommandResult) -> Exception:
        """What a failure is to the caller."""
        ...


def fill(spec: EnvironmentSpec, kept: KeptWheels, builder: Builder) -> str:
    """What filling it said. Raises Rejected(BUILD_FAILED), InfrastructureError."""
    pins = pins_of(spec.lock)
    found = {name: kept.find(pin, spec.python_version) for name, pin in pins.items()}
    built = {name: wheel for name, wheel in found.items() if wheel is not None}
    while True:
        rest = lock_of(pin for name, pin in pins.items() if name not in built)
        result = builder.wheels(rest, tuple(built.values()))
        if result.exit_code == 0:
            return builder.text(result)
        name = needed(builder.text(result))
        if name not in pins or name in built:
            raise builder.failure(result)
        built[name] = _built(spec, pins[name], kept, builder)


def _built(spec: EnvironmentSpec, pin: Pin, kept: KeptWheels, builder: Builder) -> Path:
    tries = tries_of(pin.lock)
    how: BuildTry | None = tries[0]
    while how is not None:
        result, wheel = builder.source(pin, how, kept)
        if wheel is not None:
            return wheel
        if result.exit_code == 0:
            detail = f"environment {spec.digest}: the build of {pin.name} left no wheel, or more than one"
            raise Rejected(RejectReason.BUILD_FAILED, detail)
        if fault_of(result):  # not for a later try with other build requirements
            raise builder.failure(result)
        how = None if result.timed_out else following(tries, how, builder.text(result))
    raise builder.failure(result)
