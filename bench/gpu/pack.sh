#!/usr/bin/env bash
# Make bench/gpu/wheels/, what the GPU check needs and a machine without a network may lack. Carry that folder along.
#   bench/gpu/pack.sh [TRAIN_TSV]
# TRAIN_TSV: GoEmotions' train.tsv (3.5 MB); without it the check makes texts of the same lengths up.
# check.py unpacks only the packages that the machine does not have. For Python 3.12 on x86-64, CUDA 13.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
wheels=$here/wheels
limit_mib=40 # with the project's files beside it the whole has to stay under 64 MiB

packages=(peft jsonargparse docstring-parser iterative-stratification emoji sentencepiece protobuf threadpoolctl psutil
    jinja2 markupsafe pyyaml packaging tqdm pytest-xdist execnet)

fetch() {
    "$python" -m pip download --quiet --no-deps --dest "$wheels" --only-binary :all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any "$@"
}

# bitsandbytes' wheel has a library for every release of CUDA; all but those for CUDA 13.0 and for CPUs are left out.
cut_bitsandbytes() {
    "$python" - "$wheels" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

[wheel] = Path(sys.argv[1]).glob("bitsandbytes-*.whl")
cut = wheel.with_suffix(".cut")
with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(cut, "w", zipfile.ZIP_DEFLATED) as kept:
    libraries = [name for name in whole.namelist() if name.endswith(".so")]
    wanted = [name for name in libraries if name.endswith(("_cuda130.so", "_cpu.so"))]
    if len(wanted) != 2:
        sys.exit(f"{wheel.name}: no library for CUDA 13.0 and for CPUs among {libraries}")
    for name in whole.namelist():
        if name not in libraries or name in wanted:
            kept.writestr(whole.getinfo(name), whole.read(name))
cut.replace(wheel)
PYTHON
}

rm -rf "$wheels"
mkdir "$wheels"
fetch "${packages[@]}" bitsandbytes
cut_bitsandbytes
[ $# -eq 0 ] || cp "$1" "$wheels/train.tsv"
size=$(du -sm "$wheels" | cut -f1)
ls -l "$wheels"
echo "$wheels: $size MiB"
[ "$size" -le "$limit_mib" ] || { echo "error: more than $limit_mib MiB. Leave packages out" >&2; exit 1; }
