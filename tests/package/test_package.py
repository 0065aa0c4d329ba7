"""`snow-ort package`: what is inside, the same bytes twice, and a run where there is nothing but glibc."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from workshop import ROOT, TARGET

PROGRAM = TARGET / "snow-ort"
VENV = Path(os.environ.get("SNOW_VENV", ROOT / ".venv"))
BUNDLE = ROOT / "models" / "snow-tiny" / "snow-tiny-336-fp16"
RUN = ["--prompts", "demo/prompts.json", "--max-frames", "12", "--quiet"]
# What a shell has that may change what a program finds.
CLEAN = {"PATH": os.environ["PATH"], "LC_ALL": "C"}


def pack(out: Path, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command, in a folder without a .venv."""
    command = [PROGRAM, "package", "--level", "1", "--out", out, *arguments]
    ran = subprocess.run(command, cwd=out.parent, env=CLEAN, capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    return ran


def unpack(archive: Path, folder: Path) -> Path:
    """The package's folder."""
    folder.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", archive, "-C", folder], check=True)
    (top,) = folder.iterdir()
    return top


def rpath(file: Path) -> str:
    """The RPATH or RUNPATH of a file."""
    listed = subprocess.run(["readelf", "-d", file], check=True, capture_output=True, text=True).stdout
    found = [line.split("[")[1].rstrip("]") for line in listed.splitlines() if "(RPATH)" in line or "(RUNPATH)" in line]
    return ":".join(found)


def library(file: Path, *needed: Path, origin: bool = False) -> Path:
    """A small library that needs others by name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    links = [part for path in needed for part in (f"-L{path.parent}", f"-l:{path.name}")]
    flags = ["-Wl,-rpath,$ORIGIN/../other:$ORIGIN"] if origin else []
    command = ["cc", "-shared", "-x", "c", "/dev/null", "-o", file, f"-Wl,-soname,{file.name}", "-Wl,--no-as-needed"]
    subprocess.run([*command, *flags, "-x", "none", *links], check=True)
    return file


def wheel(site: Path, name: str, version: str, files: list[Path], requires: list[str]) -> None:
    """Enters a distribution into a folder such as site-packages."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "LICENSE").write_text(f"the licence of {name}")
    lines = [f"Requires-Dist: {text}" for text in requires]
    (info / "METADATA").write_text("\n".join([f"Name: {name}", f"Version: {version}", *lines, "", "Name: none"]))
    record = []
    for file in [*files, info / "LICENSE"]:
        digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode().rstrip("=")
        record.append(f"{file.relative_to(site)},sha256={digest},{file.stat().st_size}")
    (info / "RECORD").write_text("\n".join(record))


@pytest.fixture(scope="module")
def ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small libraries under the names of FFmpeg's, so that a test need not pack those of the system."""
    folder = tmp_path_factory.mktemp("ffmpeg")
    listed = subprocess.run(["readelf", "-d", PROGRAM], check=True, capture_output=True, text=True).stdout
    names = [line.split("[")[1].rstrip("]") for line in listed.splitlines() if "(NEEDED)" in line]
    for name in names:
        if name.startswith(("libav", "libsw")):
            library(folder / "lib" / name)
    (folder / "licences").mkdir()
    (folder / "licences" / "COPYING").write_text("made up")
    (folder / "VERSION").write_text("7:0.1\n")
    return folder


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small libraries in the layout of the wheels for CUDA 12."""
    site = tmp_path_factory.mktemp("site")
    driver = library(tmp_path_factory.mktemp("driver") / "libcuda.so.1")
    cublas = library(site / "nvidia" / "cublas" / "lib" / "libcublas.so.12", origin=True)
    ops = library(site / "nvidia" / "cudnn" / "lib" / "libcudnn_ops.so.9", cublas, origin=True)
    cudnn = library(site / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9")
    capi = site / "onnxruntime" / "capi"
    files = [
        library(capi / "libonnxruntime.so.1.26.0"),
        library(capi / "libonnxruntime_providers_shared.so"),
        library(capi / "libonnxruntime_providers_cuda.so", cublas, cudnn, driver),
        library(capi / "libonnxruntime_providers_tensorrt.so", driver),
    ]
    wheel(site, "nvidia-cublas-cu12", "12.8.4", [cublas], [])
    wheel(site, "nvidia-cudnn-cu12", "9.10.2", [cudnn, ops], ["nvidia-cublas-cu12"])
    extras = ['nvidia-cudnn-cu12~=9.0; extra == "cudnn"', "numpy>=1.21", 'sympy; extra == "symbolic"']
    wheel(site, "onnxruntime-gpu", "1.26.0", files, extras)
    return site


def test_a_package_lists_all_that_it_holds_and_comes_out_the_same_twice(tmp_path: Path, ffmpeg: Path) -> None:
    """Checksums, manifest and bill of materials agree with the files; time and order of files do not matter."""
    arguments = ["--runtime", "cpu", "--runtime-dir", VENV, "--ffmpeg-dir", ffmpeg, "--model", BUNDLE]
    ran = pack(tmp_path / "one.tar.zst", *arguments)
    assert "onnxruntime 1.31.1" in ran.stdout and "needs    glibc 2." in ran.stdout
    for path in ffmpeg.rglob("*"):
        os.utime(path, (1, 1))
    pack(tmp_path / "two.tar.zst", *arguments)
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()

    top = unpack(tmp_path / "one.tar.zst", tmp_path / "unpacked")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=top, check=True)
    manifest = json.loads((top / "package.json").read_text())
    listed = {file["path"]: file for file in manifest["files"]}
    found = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
    assert found == listed.keys() | {"package.json", "bom.spdx.json", "SHA256SUMS"}
    assert listed["snow-ort"]["original_sha256"] == hashlib.sha256(PROGRAM.read_bytes()).hexdigest()
    assert (top / "snow-ort").stat().st_size < PROGRAM.stat().st_size / 2

    assert rpath(top / "snow-ort") == "$ORIGIN/lib"
    for file in (top / "lib").iterdir():
        assert rpath(file) == "$ORIGIN", file
    parts = {part["part"].split()[0]: part["glibc"] for part in manifest["needs"]["glibc_by_part"]}
    newest = max(parts.values(), key=lambda text: [int(number) for number in text.split(".")])
    assert manifest["needs"]["glibc"] == newest and parts["onnxruntime"] == "2.28"

    bom = json.loads((top / "bom.spdx.json").read_text())
    names = {package["name"] for package in bom["packages"]}
    assert {"onnxruntime", "ffmpeg", "ort", "serde", "libstdc++6", "models/snow-tiny-336-fp16"} <= names
    crates = [package for package in bom["packages"] if "pkg:cargo/" in json.dumps(package.get("externalRefs", []))]
    assert len(crates) > 50
    assert all(package["licenseDeclared"] != "NOASSERTION" for package in crates)
    texts = (top / "licences" / "rust-crates.txt").read_text()
    assert all(f"{package['name']} {package['versionInfo']}: " in texts for package in crates)
    assert "Permission is hereby granted" in texts
    notes = (top / "licences" / "SOURCES.md").read_text()
    assert "General Public License" in notes and "apt-get source gcc-" in notes
    assert "Microsoft" in (top / "licences" / "onnxruntime" / "LICENSE").read_text()


def test_cuda_libraries_go_along_when_asked_for(tmp_path: Path, cuda: Path, ffmpeg: Path) -> None:
    """All of a wheel's libraries go along, also those that are only loaded later; never the driver's."""
    arguments = ["--runtime", "cuda12-sm70", "--runtime-dir", cuda, "--ffmpeg-dir", ffmpeg]
    pack(tmp_path / "with.tar.zst", *arguments, "--with-cuda-libs")
    top = unpack(tmp_path / "with.tar.zst", tmp_path / "with")
    names = {file.name for file in (top / "lib").iterdir()}
    assert {"libcublas.so.12", "libcudnn.so.9", "libcudnn_ops.so.9", "libonnxruntime_providers_cuda.so"} <= names
    assert not names & {"libcuda.so.1", "libonnxruntime_providers_tensorrt.so"}
    kept = {"libcublas.so.12": True, "libcudnn_ops.so.9": True, "libcudnn.so.9": False}
    for name in names:
        expected = "$ORIGIN" if name not in kept else "$ORIGIN/../other:$ORIGIN" if kept[name] else ""
        assert rpath(top / "lib" / name) == expected, name
    manifest = json.loads((top / "package.json").read_text())
    assert manifest["cuda_libs"] and manifest["needs"]["compute_capability"] == "7.0"
    outside = manifest["needs"]["libraries"]
    assert "libcuda.so.1" in outside and "libcublas.so.12" not in outside
    # NVIDIA's licence asks for files as they are: what finds its folder is not touched.
    unchanged = {file["path"] for file in manifest["files"] if "original_sha256" not in file}
    assert {f"lib/{name}" for name in kept} <= unchanged
    assert "the licence of nvidia-cudnn-cu12" in (top / "licences" / "nvidia-cudnn-cu12" / "LICENSE").read_text()
    assert "keep this package" in (top / "licences" / "SOURCES.md").read_text()

    ran = pack(tmp_path / "without.tar.zst", *arguments)
    assert "CUDA's libraries and cuDNN, which are not inside" in ran.stdout
    top = unpack(tmp_path / "without.tar.zst", tmp_path / "without")
    assert not list((top / "lib").glob("libcu*"))
    needs = json.loads((top / "package.json").read_text())["needs"]
    assert {"libcublas.so.12", "libcudnn.so.9"} <= set(needs["libraries"])


def test_what_does_not_fit_is_refused(tmp_path: Path, cuda: Path, ffmpeg: Path) -> None:
    """Each message says what is wrong and what to do, and leaves no archive."""
    site = tmp_path / "site"
    shutil.copytree(cuda, site)
    (tmp_path / "work").mkdir()
    out = tmp_path / "work" / "out.tar.zst"
    arguments = ["--runtime", "cuda12-sm70", "--ffmpeg-dir", ffmpeg, "--runtime-dir", site]

    def refused(*more: str | Path) -> str:
        said = pack(out, *more, code=2).stderr
        assert not list(out.parent.iterdir())
        return said

    assert "no .venv in" in refused("--runtime", "cpu")
    assert "expected one of cpu, cuda13, cuda12-sm70" in refused("--runtime", "rocm")
    assert "pip install --no-deps --target DIR onnxruntime-gpu==1.31.1" in refused(
        "--runtime", "cuda13", "--runtime-dir", site
    )
    assert "--with-cuda-libs is for" in refused("--runtime", "cpu", "--with-cuda-libs")
    (tmp_path / "no.whl").write_text("not a wheel")
    assert "download it again" in refused("--runtime", "cpu", "--wheel", tmp_path / "no.whl")
    shutil.copy("/bin/true", tmp_path / "other")
    assert "says" in refused("--program", tmp_path / "other", *arguments)

    (info,) = site.glob("nvidia_cudnn*.dist-info")
    metadata = (info / "METADATA").read_text()
    (info / "METADATA").write_text(metadata.replace("9.10.2", "9.12.0"))
    said = refused("--with-cuda-libs", *arguments)
    assert "nvidia-cudnn-cu12 9.12.0 is not below 9.11" in said and "'nvidia-cudnn-cu12<9.11'" in said
    shutil.rmtree(info)
    assert "nvidia-cudnn-cu12 is missing" in refused("--with-cuda-libs", *arguments)
    changed = site / "onnxruntime" / "capi" / "libonnxruntime_providers_shared.so"
    changed.write_bytes(changed.read_bytes() + b"x")
    assert "install it again" in refused(*arguments)

    out.write_text("mine")
    assert "already exists" in pack(out, *arguments, code=2).stderr
    assert out.read_text() == "mine"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with the system's own FFmpeg and all that it needs."""
    folder = tmp_path_factory.mktemp("package")
    pack(folder / "p.tar.zst", "--runtime", "cpu", "--runtime-dir", VENV, "--model", BUNDLE)
    top = unpack(folder / "p.tar.zst", folder / "unpacked")
    (folder / "p.tar.zst").unlink()
    return top


def masks(folder: Path) -> dict[str, bytes]:
    """Every mask of a run."""
    found = {path.name: path.read_bytes() for path in sorted((folder / "masks").iterdir())}
    assert len(found) == 12
    return found


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks of the program as it was built, with the libraries of this system."""
    out = tmp_path_factory.mktemp("outside") / "out"
    environment = CLEAN | {"ORT_DYLIB_PATH": str(VENV)}
    command = [PROGRAM, "run", "demo/clip.mp4", "--model", BUNDLE, "--out", out, *RUN]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return masks(out)


def test_other_libraries_on_the_path_do_not_get_in(tmp_path: Path, package: Path, outside: dict[str, bytes]) -> None:
    """Started through a link, with broken libraries of the same names where LD_LIBRARY_PATH looks."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (package / "lib").iterdir():
        (broken / file.name).write_text("broken")
    (tmp_path / "linked").symlink_to(package / "snow-ort")
    environment = CLEAN | {"LD_LIBRARY_PATH": str(broken)}
    command = [tmp_path / "linked", "run", "demo/clip.mp4", "--out", tmp_path / "out", *RUN]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert masks(tmp_path / "out") == outside


NAMESPACE = ["unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork"]
ENTER = """
set -e
root=$1
shift
mount --bind "$root" "$root"
mount --bind "$root/../written" "$root/out"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec env -i unshare --user --map-user=1000 --map-group=1000 --root="$root" --wd=/ "$@"
"""


def test_it_runs_where_there_is_only_glibc(tmp_path: Path, package: Path, outside: dict[str, bytes]) -> None:
    """No network, Python, FFmpeg, shell, home or writable folder, as a plain user; glibc is what the manifest names."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        pytest.skip("this system does not allow namespaces to a plain user (unshare --map-root-user --mount)")
    root = tmp_path / "root"
    for folder in ("lib64", "lib/x86_64-linux-gnu", "proc", "out", "demo", "opt"):
        (root / folder).mkdir(parents=True)
    listed = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    files = {line.split()[0]: line.split(" => ")[1] for line in reversed(listed.splitlines()) if "x86-64" in line}
    for name in json.loads((package / "package.json").read_text())["needs"]["libraries"]:
        shutil.copy(files[name], root / ("lib64" if name.startswith("ld-linux") else "lib/x86_64-linux-gnu") / name)
    for name in ("clip.mp4", "prompts.json"):
        shutil.copy(ROOT / "demo" / name, root / "demo" / name)
    (tmp_path / "written").mkdir()
    package.rename(root / "opt" / "snow-ort")
    try:
        command = [*NAMESPACE, "sh", "-c", ENTER, "sh", root, "/opt/snow-ort/snow-ort", "run", "demo/clip.mp4"]
        ran = subprocess.run([*command, "--out", "/out/run", *RUN], capture_output=True, text=True)
    finally:
        (root / "opt" / "snow-ort").rename(package)
    assert ran.returncode == 0, ran.stderr
    assert masks(tmp_path / "written" / "run") == outside
