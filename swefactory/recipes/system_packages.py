"""Debian packages that tests or builds need. One property: only what a table or a CI step names, with its origin.

Packages of the run (libraries that a wheel loads, programs that tests start) always belong to an environment. Those of
a build (`-dev` and the like) count only where something is built from source: a sandbox without them serves all others.
What CI installs for itself, such as git, curl and compilers, is left out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from swefactory.recipes.ci_files import CiJob
from swefactory.recipes.files import read_text
from swefactory.recipes.shell import apt_packages

# Distribution -> what its code loads at run time though its wheel does not bring it.
_RUN = {
    "python-magic": ("libmagic1",), "weasyprint": ("libpango-1.0-0", "libpangoft2-1.0-0"), "cairocffi": ("libcairo2",),
    "cairosvg": ("libcairo2",), "pyenchant": ("libenchant-2-2",), "pyzbar": ("libzbar0",), "pygraphviz": ("graphviz",),
    "graphviz": ("graphviz",), "pydot": ("graphviz",),
    "pytesseract": ("tesseract-ocr",), "pdf2image": ("poppler-utils",),
    "opencv-python": ("libgl1", "libglib2.0-0"), "sounddevice": ("libportaudio2",), "soundfile": ("libsndfile1",),
    "pydub": ("ffmpeg",), "ffmpeg-python": ("ffmpeg",), "pyusb": ("libusb-1.0-0",), "wand": ("libmagickwand-6.q16-6",),
    "geos": ("libgeos-c1v5",), "rtree": ("libspatialindex6",), "psycopg": ("libpq5",),
}  # fmt: skip
# Distribution -> what its source distribution is built with.
_BUILD = {
    "lxml": ("libxml2-dev", "libxslt1-dev"), "psycopg2": ("libpq-dev",), "mysqlclient": ("default-libmysqlclient-dev",),
    "pillow": ("libjpeg-dev", "zlib1g-dev"), "cffi": ("libffi-dev",), "cryptography": ("libssl-dev", "libffi-dev"),
    "python-ldap": ("libldap-dev", "libsasl2-dev"), "pycurl": ("libcurl4-openssl-dev",),
    "pygraphviz": ("libgraphviz-dev",), "h5py": ("libhdf5-dev",), "pyodbc": ("unixodbc-dev",),
    "gssapi": ("libkrb5-dev",),
    "m2crypto": ("libssl-dev", "swig"), "pycairo": ("libcairo2-dev",), "pygobject": ("libgirepository1.0-dev",),
    "pynacl": ("libsodium-dev",), "shapely": ("libgeos-dev",), "fiona": ("libgdal-dev",), "scipy": ("libopenblas-dev",),
    "dbus-python": ("libdbus-1-dev", "libglib2.0-dev"), "xmlsec": ("libxmlsec1-dev",), "pyaudio": ("portaudio19-dev",),
    "pymssql": ("freetds-dev",), "python-snappy": ("libsnappy-dev",), "pylibmc": ("libmemcached-dev",),
}  # fmt: skip
# Shared library as the loader names it -> the package that holds it.
_LIBRARIES = {
    "libGL.so.1": "libgl1", "libglib-2.0.so.0": "libglib2.0-0", "libpq.so.5": "libpq5", "libmagic.so.1": "libmagic1",
    "libxml2.so.2": "libxml2", "libxslt.so.1": "libxslt1.1", "libcairo.so.2": "libcairo2", "libgomp.so.1": "libgomp1",
    "libsndfile.so.1": "libsndfile1", "libportaudio.so.2": "libportaudio2", "libenchant-2.so.2": "libenchant-2-2",
    "libpango-1.0.so.0": "libpango-1.0-0", "libzbar.so.0": "libzbar0",
    "libSM.so.6": "libsm6", "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1", "libusb-1.0.so.0": "libusb-1.0-0", "libgeos_c.so.1": "libgeos-c1v5",
    "libyaml-0.so.2": "libyaml-0-2", "libffi.so.7": "libffi7", "libodbc.so.2": "libodbc2",
}  # fmt: skip
# Programs and data that tests start or read, besides libraries.
_PROGRAMS = frozenset(
    (
        "graphviz", "ffmpeg", "imagemagick", "ghostscript", "poppler-utils", "tesseract-ocr", "pandoc", "exiftool",
        "libimage-exiftool-perl", "wkhtmltopdf", "unrar", "p7zip-full", "zip", "unzip", "bzip2", "xz-utils", "zstd",
        "sqlite3", "redis-server", "memcached", "postgresql-client", "aspell-en", "enchant-2", "hunspell-en-us",
        "locales", "tzdata", "gettext", "qpdf", "mupdf-tools", "pdftk", "antiword", "catdoc", "sox", "lame",
        "espeak", "gnuplot", "file", "zsh", "fish", "tcsh", "ksh", "mksh", "dash", "busybox", "rsync", "gnupg",
        "gpg", "openssh-client", "openssl", "nodejs",
    )
)  # fmt: skip
_BUILD_PACKAGE = re.compile(
    r"-dev$|^(swig|cmake|ninja-build|gfortran|cargo|rustc|pkg-config|libtool|autoconf|automake)$"
)
_LIBRARY = re.compile(r"^lib[a-z0-9+.-]+$")
_PLAIN = re.compile(r"^[a-z0-9][a-z0-9+.-]*$")
_NO_NEED = re.compile(r"^(python[\d.]*(-.*)?|pypy.*|libpython.*|libc6.*|libstdc\+\+.*|libssl[\d.]+)$")
_MISSING_LIBRARY = re.compile(r"(?:OSError|ImportError): (lib[\w.+-]+\.so[\w.]*): cannot open shared object file")


@dataclass(frozen=True)
class SystemPackages:
    """Packages by name with their origin: those of the run, and those that only a build from source needs."""

    run: dict[str, str]
    build: dict[str, str]


def from_ci(jobs: Sequence[CiJob]) -> SystemPackages:
    """What the jobs that run tests install with apt; all jobs, where none is known to."""
    testing = [job for job in jobs if job.runs_tests] or list(jobs)
    run: dict[str, str] = {}
    build: dict[str, str] = {}
    for job in testing:
        for name in (*job.packages, *(n for script in job.scripts for n in apt_packages(script))):
            if not _PLAIN.match(name) or _NO_NEED.match(name):
                continue
            if _BUILD_PACKAGE.search(name):
                build.setdefault(name, job.origin)
            elif _LIBRARY.match(name) or name in _PROGRAMS:
                run.setdefault(name, job.origin)
    return SystemPackages(run, build)


def of_requirements(names: Iterable[str]) -> dict[str, str]:
    """Packages that these distributions load at run time."""
    return _looked_up(_RUN, names, "loaded by")


def of_builds(names: Iterable[str]) -> dict[str, str]:
    """Packages that the source distributions of these are built with."""
    return _looked_up(_BUILD, names, "to build")


def has_build_needs(name: str) -> bool:
    """Whether a source distribution of `name` needs a package of the table."""
    return canonicalize_name(name) in _BUILD


def _looked_up(known: dict[str, tuple[str, ...]], names: Iterable[str], word: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        for package in known.get(canonicalize_name(name), ()):
            found.setdefault(package, f"{word} {name}")
    return found


def missing_library(output: str) -> tuple[str, str]:
    """The library that the loader misses in `output`, and the package that holds it; empty when no table knows it."""
    found = _MISSING_LIBRARY.search(output)
    return (found.group(1), _LIBRARIES.get(found.group(1), "")) if found else ("", "")


def root_needs(tree: Path) -> dict[str, str]:
    """What a list of packages at the root asks for: apt.txt (binder) and Aptfile (buildpacks)."""
    found: dict[str, str] = {}
    for path in ("apt.txt", ".binder/apt.txt", "binder/apt.txt", "Aptfile"):
        for number, line in enumerate(read_text(tree, path).splitlines(), 1):
            name = line.partition("#")[0].strip()
            if _PLAIN.match(name) and (_LIBRARY.match(name) or name in _PROGRAMS) and not _BUILD_PACKAGE.search(name):
                found.setdefault(name, f"{path}:{number}")
    return found
