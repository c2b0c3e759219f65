"""The project's own extension modules, laid over a copy of its sources. One property: built from exactly these sources.

    a copy of the checkout, patches applied ─► build environment, sealed sandbox ─► *.so laid over the copy

The smoke test, each test run and an agent's checkout call the same function, so that what was tried is what is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from swefactory.config import Settings
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import EnvironmentSpec, Limits, SandboxBackend
from swefactory.sandboxes.extensions import ExtensionBuild, Extensions, build_extensions

# There is no history to ask for the version, so every tool that would ask is told.
_VERSION_VARIABLES = ("SETUPTOOLS_SCM_PRETEND_VERSION", "PBR_VERSION", "PDM_BUILD_SCM_VERSION")


class BuildServices(Protocol):
    """What a build needs of swefactory.stage.Services, which stands above this module."""

    @property
    def settings(self) -> Settings: ...
    @property
    def sandboxes(self) -> SandboxBackend: ...
    @property
    def label(self) -> str: ...


def lay_extensions(
    services: BuildServices,
    environment: EnvironmentSpec,
    layout: ProjectLayout,
    variables: Mapping[str, str],
    checkout: Path,
) -> Extensions:
    """Builds the modules in an environment of the build requirements, or finds them built before, and writes them into
    `checkout`, a copy. Raises ExtensionsFailed, with the whole log, and what opening a sandbox raises."""
    build = ExtensionBuild(
        environment=environment,
        tree=checkout,
        folder=layout.folder,
        source_roots=layout.source_roots,
        env={**dict.fromkeys(_VERSION_VARIABLES, layout.version), **variables},
        limits=limits_of(services.settings),
        timeout_s=services.settings.build_timeout_s,
        label=services.label,
    )
    made = build_extensions(services.sandboxes, build, services.settings.cache_dir)
    made.lay_over(checkout)
    return made


def limits_of(settings: Settings) -> Limits:
    """The bounds of a sandbox that the settings ask for."""
    return Limits(
        memory_bytes=settings.sandbox_memory_bytes,
        n_processes=settings.sandbox_processes,
        n_cpus=settings.sandbox_cpus,
        disk_bytes=settings.sandbox_disk_bytes,
        output_bytes=settings.log_cap_bytes,
    )
