#!/usr/bin/env bash
# One model, strategy and K, several tasks: bash scripts/sweep_tasks.sh MODEL "rte mrpc" K STRATEGY [SEEDS] [--flag ...]
# The full model (K = 0) goes along. What is done already is not done again. Records: runs/sweep.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo 'usage: bash scripts/sweep_tasks.sh MODEL "rte mrpc" K STRATEGY ["SEEDS"] [--flag value ...]' >&2
    exit 2
fi
model=$1 tasks=$2 k=$3 strategies=$4 seeds=42
shift 4
if [ $# -gt 0 ] && [[ $1 != --* ]]; then seeds=$1 && shift; fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -x "$root/.venv/bin/python" ] && . "$root/.venv/bin/activate"
# the lists are words apart: no quotes
exec python "$root/scripts/sweep.py" "$root/configs/studies/sweep.yaml" \
    --models "$model" --tasks $tasks --k 0 $k --strategies $strategies --seeds $seeds "$@"
