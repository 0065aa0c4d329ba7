# Shared by scripts/setup, scripts/demo and scripts/test; sourced, not run.
#
# Each need_* function checks first and installs only what is missing, so that a second run is quick and needs no
# network. What cannot be installed is named, and the script ends with exit code 2.

set -euo pipefail

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
START_DIR=$PWD
VENV=$ROOT/.venv
PY=$VENV/bin/python
LOCK=$ROOT/export/requirements.lock

# rustup puts cargo here; a shell that was open before does not know.
if ! command -v cargo > /dev/null && [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi

# The scripts must know where the program is built, whatever cargo's own configuration says.
case ${CARGO_TARGET_DIR:-} in
    '') export CARGO_TARGET_DIR=$ROOT/target ;;
    /*) export CARGO_TARGET_DIR ;;
    *) export CARGO_TARGET_DIR=$START_DIR/$CARGO_TARGET_DIR ;;
esac
RELEASE=$CARGO_TARGET_DIR/release

say() { printf -- '-- %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# True if version $1 (dotted numbers) is $2 or later.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# --- Rust ------------------------------------------------------------------------------------------------------------

need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    command -v cargo > /dev/null && command -v rustc > /dev/null ||
        fail "cargo and rustc are missing: install Rust $wanted or later (with rustup), then run this again"
    found=$(cd "$ROOT" && rustc --version | awk '{print $2}')
    at_least "${found%%-*}" "$wanted" ||
        fail "rustc is version $found, expected $wanted or later: run \`rustup update stable\`, then this again"
    local part
    for part in "$@"; do
        (cd "$ROOT" && cargo "$part" --version) > /dev/null 2>&1 ||
            fail "cargo $part is missing: run \`rustup component add ${part/fmt/rustfmt}\`, then this again"
    done
}

# --- System packages -------------------------------------------------------------------------------------------------

FFMPEG_LIBS='libavutil libavcodec libavformat libavfilter'

# libclang reads FFmpeg's headers while the program is built.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local found
    # `find` fails on folders that a system does not have.
    found=$({ ldconfig -p || /sbin/ldconfig -p; } 2> /dev/null | grep -E 'libclang(-[0-9.]+)?\.so' | head -n 1) || true
    [ -n "$found" ] && return 0
    found=$(find /usr/lib/llvm-*/lib /usr/lib64 /usr/lib /usr/local/lib /opt/homebrew/opt/llvm/lib -maxdepth 2 \
        \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' -o -name 'libclang.dylib' \) 2> /dev/null | head -n 1) || true
    [ -n "$found" ]
}

# Sets `missing` (in words) and `packages` (for apt).
look_for_system() {
    local lib
    missing='' packages=''
    command -v cc > /dev/null || { missing+=', a C compiler (cc)' packages+=' gcc libc6-dev'; }
    command -v pkg-config > /dev/null || { missing+=', pkg-config' packages+=' pkg-config'; }
    have_libclang || { missing+=', libclang' packages+=' clang libclang-dev'; }
    for lib in $FFMPEG_LIBS; do
        pkg-config --exists "$lib" 2> /dev/null || { missing+=", $lib" packages+=" $lib-dev"; }
    done
    if [ "$1" = test ]; then
        command -v ffmpeg > /dev/null && command -v ffprobe > /dev/null ||
            { missing+=', the ffmpeg and ffprobe commands' packages+=' ffmpeg'; }
        command -v zstd > /dev/null || { missing+=', zstd' packages+=' zstd'; }
        command -v readelf > /dev/null || { missing+=', readelf' packages+=' binutils'; }
    fi
    missing=${missing#, }
    packages=${packages# }
}

# Sets APT to the command that installs packages; false if there is none that this user may run.
find_apt() {
    command -v apt-get > /dev/null || return 1
    APT=(env DEBIAN_FRONTEND=noninteractive apt-get)
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo > /dev/null && sudo -n true 2> /dev/null && APT=(sudo -n "${APT[@]}")
}

apt_install() {
    say "installing with apt: $*"
    # The lists of packages may be missing or old; they are fetched only when they are needed.
    "${APT[@]}" install -y -qq --no-install-recommends "$@" > /dev/null 2>&1 ||
        { "${APT[@]}" update -qq && "${APT[@]}" install -y -qq --no-install-recommends "$@" > /dev/null; } ||
        fail "apt could not install: $*; its message is above"
}

need_system() {
    local missing packages
    look_for_system "$1"
    [ -n "$missing" ] || return 0
    if ! find_apt; then
        command -v apt-get > /dev/null &&
            fail "missing: $missing. Run \`sudo apt-get install $packages\`, then this again"
        fail "missing: $missing. Install them with the system's package manager, then run this again"
    fi
    # shellcheck disable=SC2086  # a list of package names
    apt_install $packages
    look_for_system "$1"
    [ -z "$missing" ] || fail "still missing after the installation: $missing"
}

# A browser for tests/page, which are skipped without one.
want_chromium() {
    command -v chromium > /dev/null && command -v chromedriver > /dev/null && return 0
    find_apt && (apt_install chromium chromium-driver) && return 0
    say 'Chromium and its driver are missing: tests/page will be skipped'
}

# --- Python ----------------------------------------------------------------------------------------------------------

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$name" > /dev/null &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

need_venv() {
    local python
    # An environment that was copied from elsewhere, or whose Python is gone, cannot be used.
    if [ -x "$PY" ] && [ "$("$PY" -c 'import sys; print(sys.prefix)' 2> /dev/null)" = "$VENV" ] &&
        "$PY" -m pip --version > /dev/null 2>&1; then
        return 0
    fi
    if ! python=$(find_python); then
        find_apt && apt_install python3 python3-venv
        python=$(find_python) ||
            fail 'Python 3.11 or later with its venv module is missing (on Debian and Ubuntu: python3 and python3-venv)'
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$VENV" || fail "could not make the virtual environment $VENV; its message is above"
}

# What an installation depends on, as one line for a stamp.
stamp_of() {
    (cd "$ROOT" && printf '%s\n' "$ROOT" "$1" | cat - export/requirements.lock export/pyproject.toml) | sha256sum |
        cut -d' ' -f1
}

stamped() { [ -f "$VENV/.snow-$1" ] && [ "$(cat "$VENV/.snow-$1")" = "$(stamp_of "$1")" ]; }

pip_install() { "$PY" -m pip install --quiet --disable-pip-version-check "$@"; }

# ONNX Runtime alone: all that the program needs of Python's packages, and it needs their library only.
need_onnxruntime() {
    need_venv
    if { stamped test || stamped run; } &&
        ls "$VENV"/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.* > /dev/null 2>&1; then
        return 0
    fi
    say "installing $(grep '^onnxruntime==' "$LOCK") into .venv"
    pip_install --constraint "$LOCK" onnxruntime ||
        fail 'pip could not install onnxruntime; its message is above (the first run needs the network)'
    stamp_of run > "$VENV/.snow-run"
}

# The last release whose GPU wheel has kernels for V100 (see src/package/runtime.rs), beside .venv.
OLDER_ORT_VERSION=1.26.0
OLDER_ORT=$ROOT/.onnxruntime-$OLDER_ORT_VERSION
need_older_onnxruntime() {
    [ -f "$OLDER_ORT/onnxruntime/capi/libonnxruntime.so.$OLDER_ORT_VERSION" ] && return 0
    say "installing onnxruntime $OLDER_ORT_VERSION into ${OLDER_ORT#"$ROOT"/}"
    rm -rf "$OLDER_ORT" "$OLDER_ORT.partial"
    pip_install --no-deps --target "$OLDER_ORT.partial" "onnxruntime==$OLDER_ORT_VERSION" ||
        fail "pip could not install onnxruntime $OLDER_ORT_VERSION; its message is above (the first run needs the network)"
    mv "$OLDER_ORT.partial" "$OLDER_ORT"
}

# Everything of the lock, and snow-export itself.
need_python_packages() {
    need_venv
    stamped test && return 0
    # The lock's onnxruntime has the same files as onnxruntime-gpu.
    rm -f "$VENV/.snow-cuda"
    say "installing export/requirements.lock into .venv (PyTorch is large: this takes minutes the first time)"
    pip_install --requirement "$LOCK" ||
        fail 'pip could not install export/requirements.lock; its message is above (the first run needs the network)'
    # The lock holds setuptools, so that nothing is fetched that it does not name.
    pip_install --no-deps --no-build-isolation --editable "$ROOT/export" ||
        fail 'pip could not install snow-export; its message is above'
    stamp_of test > "$VENV/.snow-test"
}

# --- NVIDIA GPUs -----------------------------------------------------------------------------------------------------

# Says which packages serve this machine's GPUs: 13 or 12, for scripts/cuda-13.txt or scripts/cuda-12.txt.
choose_cuda() {
    local listed compute version driver='' oldest=999 newest=0 number
    listed=$(nvidia-smi --query-gpu=compute_cap,driver_version --format=csv,noheader 2> /dev/null) && [ -n "$listed" ] ||
        fail 'nvidia-smi shows no GPU: install NVIDIA'"'"'s driver, or say which packages to install: --cuda 13 (T4 and later) or --cuda 12 (V100, P100)'
    while IFS=', ' read -r compute version; do
        driver=$version
        number=$(printf '%s' "$compute" | tr -d .)
        [ "$number" -lt "$oldest" ] && oldest=$number
        [ "$number" -gt "$newest" ] && newest=$number
    done <<< "$listed"
    [ "$oldest" -ge 60 ] ||
        fail "a GPU of this machine is sm_$oldest, but no wheel of onnxruntime-gpu has kernels before sm_60: use --provider cpu"
    if [ "$oldest" -lt 75 ]; then
        [ "$newest" -lt 120 ] ||
            say "warning: sm_$oldest needs --cuda 12, whose library has no machine code for sm_$newest" >&2
        echo 12
    elif ! at_least "$driver" 580; then
        say "the driver is $driver, and CUDA 13 needs 580 or later: taking CUDA 12" >&2
        echo 12
    elif [ "$oldest" -ge 100 ] && [ "$oldest" -lt 120 ]; then
        # 1.31.1 has no code for it; 1.26.0 has some that the driver translates.
        echo 12
    else
        echo 13
    fi
}

# ONNX Runtime for NVIDIA GPUs with its CUDA and cuDNN, in place of the one for the processor. $1 is 12 or 13; $2 is
# --dry-run for a look at what pip would install.
need_onnxruntime_gpu() {
    local list=$ROOT/scripts/cuda-$1.txt dirs
    need_venv
    if [ "${2:-}" = --dry-run ]; then
        "$PY" -m pip install --disable-pip-version-check --dry-run --requirement "$list" ||
            fail "pip finds no set of packages for $list; its message is above"
        return 0
    fi
    if ! { [ -f "$VENV/.snow-cuda" ] && sha256sum --status --check "$VENV/.snow-cuda"; } 2> /dev/null; then
        say "installing $(grep '^onnxruntime-gpu' "$list") with CUDA and cuDNN into .venv (several GB)"
        # Both wheels have the same files.
        "$PY" -m pip uninstall --quiet --yes --disable-pip-version-check onnxruntime onnxruntime-gpu
        rm -f "$VENV/.snow-cuda"
        pip_install --requirement "$list" || fail "pip could not install $list; its message is above"
        sha256sum "$list" > "$VENV/.snow-cuda"
        # scripts/demo must not put the other one in its place.
        stamp_of run > "$VENV/.snow-run"
    fi
    dirs=$(find "$VENV"/lib/python*/site-packages/nvidia -maxdepth 2 -name lib | sort | paste -sd:)
    cat > "$VENV/cuda.sh" << END
# Where the loader finds CUDA's and cuDNN's libraries: \`. .venv/cuda.sh\` before snow-ort --provider cuda.
export LD_LIBRARY_PATH='$dirs'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
END
    say 'CUDA is ready: run `. .venv/cuda.sh`, then `snow-ort doctor --provider cuda`'
}
