#!/usr/bin/env bash
# Environment, lint, all tests. Further arguments go to pytest: scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
ruff check .
ruff format --check .
exec python -m pytest "$@"
