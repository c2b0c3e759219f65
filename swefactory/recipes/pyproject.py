"""pyproject.toml: PEP 621, PEP 735 and the dialects of poetry, pdm, flit, hatch and setuptools; and the Pipfile.

One property: every tool's spelling of the same fact ends in the same field of `Declared`.
"""

import posixpath
from collections.abc import Mapping
from pathlib import Path

from swefactory.recipes.declared import Declared, entry_point_lines
from swefactory.recipes.files import read_ini, read_text, read_toml, strings, table, text
from swefactory.recipes.requirements import cleaned, name_of, poetry_requirement, poetry_specifier

_COMPILING_BACKENDS = ("maturin", "scikit_build_core", "mesonpy", "sipbuild", "setuptools_rust")
_COMPILING_REQUIRES = (
    "maturin",
    "scikit-build",
    "scikit-build-core",
    "meson-python",
    "setuptools-rust",
    "cffi",
    "cython",
    "pybind11",
)


def read_pyproject(tree: Path) -> Declared:
    """What pyproject.toml declares; nothing when there is none."""
    document = read_toml(tree, "pyproject.toml")
    project, poetry = table(document, "project"), table(document, "tool", "poetry")
    flit = table(document, "tool", "flit", "metadata")
    return Declared(
        name=text(project.get("name"))
        or text(poetry.get("name"))
        or text(flit.get("dist-name"))
        or text(flit.get("module")),
        version=text(project.get("version")) or text(poetry.get("version")),
        version_from=_version_from(document, tree),
        requires_python=_requires_python(project, poetry, flit),
        classifiers=strings(project.get("classifiers"))
        or strings(poetry.get("classifiers"))
        or strings(flit.get("classifiers")),
        requires=_requires(tree, document, project, poetry, flit),
        build_requires=cleaned(strings(table(document, "build-system").get("requires"))),
        extras=_extras(tree, document, project, poetry, flit),
        development=_development(tree, document, poetry),
        entry_points=_entry_points(document, project, poetry),
        source_roots=_source_roots(document),
        modules=_modules(document, flit),
        local=_local(document),
        compiled=_compiled(document),
    )


def _local(document: Mapping[str, object]) -> tuple[str, ...]:
    """Names that stand for folders beside the project: uv's workspace members and path sources, poetry's paths."""
    poetry = table(document, "tool", "poetry")
    groups = table(poetry, "group")
    lists = [table(poetry, "dependencies"), table(poetry, "dev-dependencies")]
    lists += [table(groups, name, "dependencies") for name in groups]
    paths = [name for entries in lists for name in entries if text(table(entries, name).get("path")).rstrip("/.")]
    sources = table(document, "tool", "uv", "sources")
    named = [name for name in sources if {"path", "workspace"} & set(table(sources, name))]
    return tuple(dict.fromkeys((*named, *paths)))


def read_pipfile(tree: Path) -> Declared:
    """A Pipfile's packages and dev-packages."""
    document = read_toml(tree, "Pipfile")
    groups = {
        name: tuple(filter(None, (poetry_requirement(k, v) for k, v in table(document, key).items())))
        for name, key in (("pipenv", "packages"), ("dev", "dev-packages"))
    }
    return Declared(development={name: found for name, found in groups.items() if found})


def _requires_python(project: Mapping[str, object], poetry: Mapping[str, object], flit: Mapping[str, object]) -> str:
    legacy = text(table(poetry, "dependencies").get("python"))
    return text(project.get("requires-python")) or (
        poetry_specifier(legacy) if legacy else text(flit.get("requires-python"))
    )


def _requires(
    tree: Path,
    document: Mapping[str, object],
    project: Mapping[str, object],
    poetry: Mapping[str, object],
    flit: Mapping[str, object],
) -> tuple[str, ...]:
    stated = cleaned(strings(project.get("dependencies")) or strings(flit.get("requires")))
    dynamic = _files(tree, table(document, "tool", "setuptools", "dynamic", "dependencies").get("file"))
    legacy = (
        poetry_requirement(name, value)
        for name, value in table(poetry, "dependencies").items()
        if name.lower() != "python" and not table(poetry, "dependencies", name).get("optional")
    )
    return stated or dynamic or tuple(filter(None, legacy))


def _files(tree: Path, names: object) -> tuple[str, ...]:
    paths = (names,) if isinstance(names, str) else strings(names)
    return cleaned(line for path in paths for line in read_text(tree, path).splitlines())


def _extras(
    tree: Path,
    document: Mapping[str, object],
    project: Mapping[str, object],
    poetry: Mapping[str, object],
    flit: Mapping[str, object],
) -> dict[str, tuple[str, ...]]:
    stated = {**table(flit, "requires-extra"), **table(project, "optional-dependencies")}
    extras = {name: cleaned(strings(value)) for name, value in stated.items()}
    for name in table(document, "tool", "setuptools", "dynamic", "optional-dependencies"):
        place = table(document, "tool", "setuptools", "dynamic", "optional-dependencies", name)
        extras[name] = _files(tree, place.get("file"))
    optional = table(poetry, "dependencies")
    for name, members in table(poetry, "extras").items():
        found = (poetry_requirement(m, optional.get(m, "*")) for m in strings(members))
        extras[name] = tuple(filter(None, found))
    return extras


def _development(
    tree: Path, document: Mapping[str, object], poetry: Mapping[str, object]
) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for name in table(document, "dependency-groups"):
        groups[name] = _group(table(document, "dependency-groups"), name, frozenset())
    for name in table(poetry, "group"):
        groups[name] = _poetry_group(table(poetry, "group", name, "dependencies"))
    if table(poetry, "dev-dependencies"):
        groups.setdefault("dev", _poetry_group(table(poetry, "dev-dependencies")))
    for name, value in table(document, "tool", "pdm", "dev-dependencies").items():
        groups.setdefault(name, cleaned(strings(value)))
    if legacy := cleaned(strings(table(document, "tool", "uv").get("dev-dependencies"))):
        groups.setdefault("dev", legacy)
    if early := cleaned(strings(table(document, "project").get("dev-dependencies"))):  # pdm before 1.0
        groups.setdefault("dev", early)
    for envs in (table(document, "tool", "hatch", "envs"), table(read_toml(tree, "hatch.toml"), "envs")):
        for name in envs:
            groups.setdefault(_hatch_name(name), _hatch(table(envs, name)))
    return {name: found for name, found in groups.items() if found}


def _group(groups: Mapping[str, object], name: str, above: frozenset[str]) -> tuple[str, ...]:
    """A PEP 735 group with its include-group entries; names compare as project names do."""
    key = next((k for k in groups if _normal(k) == _normal(name)), "")
    items = groups.get(key)
    if not isinstance(items, list) or key in above:
        return ()
    found: list[str] = []
    for item in items:
        if isinstance(item, str):
            found += cleaned([item])
        else:
            found += _group(groups, text(table(item).get("include-group")), above | {key})
    return tuple(found)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _poetry_group(entries: Mapping[str, object]) -> tuple[str, ...]:
    found = (poetry_requirement(name, value) for name, value in entries.items() if name.lower() != "python")
    return tuple(filter(None, found))


def _hatch_name(name: str) -> str:
    """hatch's default environment is where its tests ran before `hatch test`; hatch-test is for them."""
    return {"hatch-test": "test", "default": "dev"}.get(name, name)


def _hatch(environment: Mapping[str, object]) -> tuple[str, ...]:
    extra = tuple(f".[{feature}]" for feature in strings(environment.get("features")) if feature.isidentifier())
    groups = strings(environment.get("dependencies")) + strings(environment.get("extra-dependencies"))
    return cleaned(groups) + extra


def _entry_points(
    document: Mapping[str, object], project: Mapping[str, object], poetry: Mapping[str, object]
) -> dict[str, dict[str, str]]:
    flit = table(document, "tool", "flit")
    groups: dict[str, dict[str, str]] = {
        "console_scripts": {
            **_texts(table(flit, "scripts")),
            **_texts(table(poetry, "scripts")),
            **_texts(table(project, "scripts")),
        },
        "gui_scripts": _texts(table(project, "gui-scripts")),
    }
    for place in (table(project, "entry-points"), table(poetry, "plugins"), table(flit, "entrypoints")):
        groups |= {group: _texts(table(place, group)) for group in place}
    return {group: found for group, found in groups.items() if found}


def _texts(entries: Mapping[str, object]) -> dict[str, str]:
    return entry_point_lines(f"{name}={value}" for name, value in entries.items() if isinstance(value, str))


def _version_from(document: Mapping[str, object], tree: Path) -> str:
    place = table(document, "tool", "setuptools", "dynamic", "version")
    if text(place.get("attr")):
        return f"attr:{place['attr']}"
    if text(place.get("file")) or strings(place.get("file")):
        return f"file:{text(place.get('file')) or strings(place.get('file'))[0]}"
    path = text(table(document, "tool", "hatch", "version").get("path")) or text(
        table(document, "tool", "pdm", "version").get("path")
    )
    if path and read_text(tree, path):
        return f"path:{path}"
    return ""


def _source_roots(document: Mapping[str, object]) -> tuple[str, ...]:
    tool = table(document, "tool")
    setuptools = table(tool, "setuptools")
    roots = [
        text(table(setuptools, "package-dir").get("")),
        *strings(table(setuptools, "packages", "find").get("where")),
    ]
    roots += [text(table(tool, "pdm", "build").get("package-dir")), text(table(tool, "pdm").get("package-dir"))]
    wheel = table(tool, "hatch", "build", "targets", "wheel")
    for package in (*strings(wheel.get("packages")), *strings(table(tool, "hatch", "build").get("packages"))):
        roots.append(posixpath.dirname(package.strip("/")) or ".")
    packages = table(tool, "poetry").get("packages")
    for entry in packages if isinstance(packages, list) else []:
        roots.append(text(table(entry).get("from")) or ".")
    roots.append(text(table(tool, "maturin").get("python-source")))
    return tuple(dict.fromkeys(posixpath.normpath(root) for root in roots if root))


def _modules(document: Mapping[str, object], flit: Mapping[str, object]) -> tuple[str, ...]:
    setuptools = table(document, "tool", "setuptools")
    named = text(flit.get("module")) or text(table(document, "tool", "flit", "module").get("name"))
    wheel = table(document, "tool", "hatch", "build", "targets", "wheel")
    hatch = tuple(posixpath.basename(package.strip("/")) for package in strings(wheel.get("packages")))
    return (
        *strings(setuptools.get("py-modules")),
        *strings(setuptools.get("packages")),
        *hatch,
        *((named,) if named else ()),
    )


def _compiled(document: Mapping[str, object]) -> str:
    build = table(document, "build-system")
    backend = text(build.get("build-backend"))
    if backend.split(".")[0] in _COMPILING_BACKENDS:
        return f"build backend {backend}"
    names = map(name_of, cleaned(strings(build.get("requires"))))
    if found := sorted(set(names) & set(_COMPILING_REQUIRES)):
        return f"build requirement {found[0]}"
    if table(document, "tool", "setuptools").get("ext-modules"):
        return "ext-modules of setuptools"
    script = table(document, "tool", "poetry").get("build")
    return "build script of poetry" if text(script) or text(table(script).get("script")) else ""


def read_flit_ini(tree: Path) -> Declared:
    """flit.ini, which came before pyproject.toml."""
    parser = read_ini(tree, "flit.ini")
    if not parser.has_section("metadata"):
        return Declared()
    values = dict(parser.items("metadata"))
    return Declared(
        name=values.get("dist-name") or values.get("module") or "",
        requires=cleaned((values.get("requires") or "").splitlines()),
        development={"dev": cleaned((values.get("dev-requires") or "").splitlines())},
        requires_python=values.get("requires-python") or "",
        classifiers=tuple(filter(None, (values.get("classifiers") or "").splitlines())),
    )
