#!/usr/bin/env bash
# One model, strategy and K, several tasks: bash scripts/sweep_tasks.sh MODEL "rte mrpc" K STRATEGY [SEEDS] [--flag ...]
# The full model (K = 0) is included. Finished runs are reused. Records are in runs/sweep.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo 'usage: bash scripts/sweep_tasks.sh MODEL "rte mrpc" K STRATEGY ["SEEDS"] [--flag value ...]' >&2
    exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/sweep_k.sh" "$1" "$2" "0 $3" "${@:4}"
