#!/usr/bin/env bash
# Create the environment, lint, run all tests. Arguments are passed to pytest: scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
python -c 'import ray' 2>/dev/null || pip install --quiet --disable-pip-version-check -c constraints.txt ray ||
    echo "Ray cannot be installed here; its tests are skipped" >&2
python -c 'import onnxruntime, onnxscript' 2>/dev/null ||
    pip install --quiet --disable-pip-version-check -c constraints.txt onnx onnxscript onnxruntime ||
    echo "ONNX cannot be installed here; its tests are skipped" >&2
ruff check .
ruff format --check .
lint-imports
mypy
export OMP_NUM_THREADS=1  # the tests themselves are spread over the cores
exec python -m pytest -n auto --maxprocesses 8 --dist worksteal -rs "$@"
