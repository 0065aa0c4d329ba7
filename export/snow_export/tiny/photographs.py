"""The photographs that training clips are made of, and how they are had from package registries.

`photographs.json` names each with its package, author, licence and hash, and boxes around things that can be cut out of
it, in percent of its sides: left, top, right, bottom. All allow derivatives without asking for the same licence again.
Those `held_out` are in no training clip. `models/snow-tiny/README.md` repeats the list.
"""

import bz2
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ExportError
from .qt_resources import read_resource

TABLE = Path(__file__).with_name("photographs.json")
# Height and width of the one photograph that its package ships as bare pixels.
_BARE_SIZE = 768, 1024


@dataclass(frozen=True)
class Package:
    """A package of a registry: `source` is `debian`, `pypi`, or `installed` for those that a training needs anyway."""

    name: str
    source: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Photograph:
    """A photograph inside a package; `boxes` in percent of its sides."""

    name: str
    package: str
    path: str
    author: str
    licence: str
    held_out: bool
    boxes: tuple[tuple[int, int, int, int], ...]
    sha256: str


def table() -> tuple[dict[str, Package], list[Photograph]]:
    """The packages by name, and the photographs in order."""
    content = json.loads(TABLE.read_text())
    packages = {p["name"]: Package(p["name"], p["from"], p["version"], p["sha256"]) for p in content["packages"]}
    photographs = [
        Photograph(**(entry | {"boxes": tuple(tuple(box) for box in entry["boxes"])}))
        for entry in content["photographs"]
    ]
    return packages, photographs


def _expect(content: bytes, sha256: str, what: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ExportError(f"{what}: has the SHA-256 {found}, expected {sha256}: it is another version")
    return content


def download(package: Package, cache: Path) -> Path:
    """The package's file in `cache`, asked of its registry if it is not there."""
    cache.mkdir(parents=True, exist_ok=True)
    pattern = f"{package.name}*.deb" if package.source == "debian" else f"{package.name}-{package.version}*.whl"
    if not list(cache.glob(pattern)):
        command = ["apt-get", "download", f"{package.name}={package.version}"]
        if package.source == "pypi":
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version", "3.10", "--platform", "manylinux2014_x86_64"]
            command += [f"{package.name}=={package.version}"]
        try:
            subprocess.run(command, cwd=cache, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise ExportError(
                f"{package.name} {package.version} could not be downloaded ({error}): put its file into {cache} by hand"
            ) from None
    path = next(cache.glob(pattern))
    _expect(path.read_bytes(), package.sha256, str(path))
    return path


class Source:
    """A package whose files are read."""

    def __init__(self, package: Package, cache: Path):
        self.package = package
        self.file = None if package.source == "installed" else download(package, cache)
        self.archives: dict[str, bytes] = {}
        self.files = b""
        if package.source == "debian":
            command = ["dpkg-deb", "--fsys-tarfile", str(self.file)]
            self.files = subprocess.run(command, check=True, capture_output=True).stdout

    def _member(self, path: str) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(self.files)) as members:
            stream = members.extractfile("./" + path)
            if stream is None:
                raise ExportError(f"{self.file}: {path} is no file")
            return stream.read()

    def read(self, path: str) -> bytes:
        """A file of the package; one of a game's resources is named by its path inside their archive."""
        if self.package.source == "installed":
            folder, _, rest = path.partition("/")
            spec = find_spec(folder)
            if spec is None or not spec.submodule_search_locations:
                raise ExportError(f"{self.package.name} is not installed; `scripts/setup test` installs it")
            return (Path(spec.submodule_search_locations[0]) / rest).read_bytes()
        if self.package.source == "pypi":
            with zipfile.ZipFile(self.file) as wheel:
                return wheel.read(path)
        if path.startswith("gcompris/"):
            activity = path.split("/")[3]
            archive = f"usr/share/gcompris-qt/rcc/{activity}.rcc"
            if activity not in self.archives:
                self.archives[activity] = self._member(archive)
            return read_resource(self.archives[activity], path)
        return self._member(path)


def picture(content: bytes, path: str) -> np.ndarray:
    """The pixels u8 `[h, w, 3]` of a photograph's file."""
    if path.endswith(".dat"):
        return np.frombuffer(bz2.decompress(content), np.uint8).reshape(*_BARE_SIZE, 3)
    image = Image.open(io.BytesIO(content))
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return np.asarray(image.convert("RGB"))


def gather(cache: Path) -> dict[str, np.ndarray]:
    """Every photograph u8 `[h, w, 3]` by name; packages are kept in `cache`."""
    packages, photographs = table()
    sources: dict[str, Source] = {}
    found = {}
    for entry in photographs:
        if entry.package not in sources:
            sources[entry.package] = Source(packages[entry.package], cache)
        content = _expect(sources[entry.package].read(entry.path), entry.sha256, f"{entry.package}: {entry.path}")
        found[entry.name] = picture(content, entry.path)
    return found
