#!/usr/bin/env bash
# One model and task, several K: bash scripts/sweep_k.sh MODEL TASK "0 2 4 6" STRATEGY [SEEDS] [--flag value ...]
# Finished runs are reused. Records are in runs/sweep. --flag: any flag of layerdrop sweep or layerdrop run.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo 'usage: bash scripts/sweep_k.sh MODEL TASK "0 2 4 6" STRATEGY ["SEEDS"] [--flag value ...]' >&2
    exit 2
fi
model=$1 tasks=$2 k=$3 strategies=$4 seeds=42
shift 4
if [ $# -gt 0 ] && [[ $1 != --* ]]; then seeds=$1 && shift; fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v layerdrop >/dev/null || . "$root/.venv/bin/activate"
# unquoted: lists of words
exec layerdrop sweep "$root/configs/studies/sweep.yaml" \
    --models "$model" --tasks $tasks --k $k --strategies $strategies --seeds $seeds "$@"
