#!/usr/bin/env bash
# From nothing to a checked submission. Everything is installed into .venv/ in this folder.
#   ./run.sh                                                 what configs/default.yaml names: minutes on 2 cores
#   ./run.sh --competition goemotions --runs tfidf,minilm    another competition, other runs: about an hour
#   ./run.sh test [pytest arguments]                         the tests
#   ./run.sh setup                                           only the environment
#   ./run.sh --no-lock ...                                   newest versions in the ranges of requirements.txt
#   ./run.sh lock                                            writes requirements.lock anew from those ranges
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Real data for some tests and benches; without it they are skipped.
if [ -z "${FOLDBLEND_SHARED:-}" ] && [ -d ../shared ]; then export FOLDBLEND_SHARED="$PWD/../shared"; fi

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

gpus() { nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.12 python3.13 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11, 3.12 or 3.13 found. Install one, or name it: PYTHON=/path/to/python ./run.sh"
}

TORCH=torch==2.13.0 # not in the lock: the CPU and the CUDA build are different files of one version
RANGES=(-r requirements.txt -r tests/requirements.txt)
LOCK=(--require-hashes --no-deps --only-binary :all: -r requirements.lock)

install_with_uv() {
    local backend=auto
    local -a install=(uv pip install --python .venv/bin/python)
    if [ "$(uname -s)" = Linux ] && [ "$(gpus)" -eq 0 ]; then backend=cpu; fi
    export UV_TORCH_BACKEND=$backend
    uv venv --quiet --seed --allow-existing --python ">=3.11,<3.14" .venv || return
    if [ -n "$locked" ]; then
        "${install[@]}" "$TORCH" && "${install[@]}" "${LOCK[@]}"
    else
        "${install[@]}" "${RANGES[@]}" && "${install[@]}" --quiet --no-deps -r requirements-no-deps.txt
    fi
}

install_on_kaggle() { # the environment sees the notebook's own torch and transformers
    local python=$1
    "$python" -m venv --system-site-packages --without-pip .venv
    "$python" -m pip --quiet --python .venv/bin/python install -r requirements.txt -r tests/requirements.txt
    "$python" -m pip --quiet --python .venv/bin/python install --no-deps -r requirements-no-deps.txt
}

install_with_pip() {
    local python=$1
    "$python" -m venv .venv
    if [ "$(gpus)" -eq 0 ]; then install_cpu_torch; fi
    if [ -n "$locked" ]; then
        .venv/bin/python -m pip install --quiet "$TORCH"
        .venv/bin/python -m pip install --quiet "${LOCK[@]}"
    else
        .venv/bin/python -m pip install --quiet "${RANGES[@]}"
        .venv/bin/python -m pip install --quiet --no-deps -r requirements-no-deps.txt
    fi
}

install_cpu_torch() { # if pip would download gigabytes of CUDA libraries, uv finds the CPU build
    local pip=".venv/bin/python -m pip"
    if $pip install --quiet --dry-run --report - "$TORCH" 2>/dev/null | grep -q '"name": "nvidia-'; then
        $pip install --quiet uv
        if .venv/bin/uv pip install --python .venv/bin/python --torch-backend cpu "$TORCH"; then return; fi
        say "no CPU build of torch found: installing the CUDA build"
    fi
    $pip install --quiet "$TORCH"
}

setup() {
    local wanted python
    wanted=$(echo "locked: $locked" && cat requirements.txt requirements-no-deps.txt tests/requirements.txt requirements.lock)
    if [ "$(cat .venv/installed.txt 2>/dev/null)" = "$wanted" ]; then return; fi
    say "installing into $PWD/.venv"
    if [ -n "${KAGGLE_KERNEL_RUN_TYPE:-}" ]; then
        install_on_kaggle "$(find_python)"
    elif ! { command -v uv >/dev/null && install_with_uv; }; then
        python=$(find_python)
        install_with_pip "$python"
    fi
    # `accelerate launch` prints five lines about its own defaults at every start
    if ! grep -q ACCELERATE_LOG_LEVEL .venv/bin/activate; then
        printf '\nexport ACCELERATE_LOG_LEVEL="${ACCELERATE_LOG_LEVEL:-error}"\n' >>.venv/bin/activate
    fi
    printf '%s\n' "$wanted" >.venv/installed.txt
}

write_lock() {
    local tools
    tools=$(mktemp -d)
    "$(find_python)" -m venv "$tools/venv" && "$tools/venv/bin/pip" install --quiet uv
    echo "$TORCH" >"$tools/torch.txt"
    local -a compile=("$tools/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes
        --only-binary :all: --no-annotate --no-header)
    {
        echo "# Written by ./run.sh lock. Wheels alone; torch and what its CUDA build needs are left out: see run.sh."
        "${compile[@]}" -c "$tools/torch.txt" requirements.txt tests/requirements.txt
        "${compile[@]}" --no-deps requirements-no-deps.txt
    } | awk '/^[a-z]/ { kept = !/^(torch|triton|nvidia-[^=]*|cuda-[^=]*)==/ } kept || /^#/' >"$tools/requirements.lock"
    mv "$tools/requirements.lock" requirements.lock
    rm -rf "$tools"
    say "requirements.lock: $(grep -c == requirements.lock) packages"
}

default() { # one value of configs/default.yaml; a list becomes a,b,c
    PYTHONPATH=src .venv/bin/python -c '
import sys
from foldblend.settings.loading import load_defaults
from foldblend.settings.paths import find_paths
value = getattr(load_defaults(find_paths()), sys.argv[1])
print(value if isinstance(value, str) else ",".join(value))' "$1"
}

main_job() {
    local competition
    local -a runs
    competition=${1:-$(default competition)}
    IFS=, read -r -a runs <<<"${2:-$(default runs)}"
    say "folds of $competition"
    .venv/bin/python src/make_folds.py --competition "$competition"
    say "training ${runs[*]}"
    .venv/bin/python src/train_all.py --competition "$competition" --runs "${runs[@]}"
    say "blending ${runs[*]}"
    .venv/bin/python src/blend.py --competition "$competition" --runs "${runs[@]}"
}

competition="" wanted_runs="" locked=yes
if [ "${1:-}" = --no-lock ]; then locked="" && shift; fi
case "${1:-}" in
test)
    shift
    setup
    exec .venv/bin/python -m pytest -n auto --dist worksteal "$@"
    ;;
setup)
    setup
    exit
    ;;
lock)
    write_lock
    exit
    ;;
esac
while [ $# -gt 0 ]; do
    case "$1" in
    --competition | --runs)
        [ $# -ge 2 ] || die "$1 needs a value"
        if [ "$1" = --runs ]; then wanted_runs=$2; else competition=$2; fi
        shift 2
        ;;
    --competition=*) competition=${1#*=} && shift ;;
    --runs=*) wanted_runs=${1#*=} && shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit ;;
    *) die "unknown argument '$1'; expected --competition NAME, --runs A,B, test, setup or lock" ;;
    esac
done
setup
main_job "$competition" "$wanted_runs"
