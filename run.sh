#!/usr/bin/env bash
# From nothing to a checked submission. Everything is installed into .venv/ in this folder.
#   ./run.sh                                                 what configs/default.yaml names: minutes on 2 cores
#   ./run.sh --competition goemotions --runs tfidf,minilm    another competition, other runs: about an hour
#   ./run.sh test [pytest arguments]                         the tests
#   ./run.sh setup                                           only the environment
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

install_with_uv() {
    local backend=auto
    if [ "$(uname -s)" = Linux ] && [ "$(gpus)" -eq 0 ]; then backend=cpu; fi
    uv venv --quiet --seed --allow-existing --python ">=3.11,<3.14" .venv &&
        UV_TORCH_BACKEND=$backend uv pip install --python .venv/bin/python -r requirements.txt -r tests/requirements.txt &&
        uv pip install --quiet --python .venv/bin/python --no-deps -r requirements-no-deps.txt
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
    .venv/bin/python -m pip install --quiet -r requirements.txt -r tests/requirements.txt
    .venv/bin/python -m pip install --quiet --no-deps -r requirements-no-deps.txt
}

install_cpu_torch() { # if pip would download gigabytes of CUDA libraries, uv finds the CPU build
    local pip=".venv/bin/python -m pip"
    if $pip install --quiet --dry-run --report - torch==2.13.0 2>/dev/null | grep -q '"name": "nvidia-'; then
        $pip install --quiet uv
        if .venv/bin/uv pip install --python .venv/bin/python --torch-backend cpu torch==2.13.0; then return; fi
        say "no CPU build of torch found: installing the CUDA build"
    fi
    $pip install --quiet torch==2.13.0
}

setup() {
    local wanted python
    wanted=$(cat requirements.txt requirements-no-deps.txt tests/requirements.txt)
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

competition="" wanted_runs=""
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
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0" && exit ;;
    *) die "unknown argument '$1'; expected --competition NAME, --runs A,B, test or setup" ;;
    esac
done
setup
main_job "$competition" "$wanted_runs"
