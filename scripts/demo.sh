#!/usr/bin/env bash
# Environment, then the main job on the embedded miniature: the full model, the same without its six top layers, and
# both side by side. Needs no model hub and no data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh

full=runs/demo_demo-rte_full_k0_seed42 cut=runs/demo_demo-rte_top_k6_seed42
rm -rf "$full"/checkpoint-* "$cut"/checkpoint-* # of a demonstration that was interrupted

echo "== 1. The full model: 12 layers, fine-tuned to tell whether one sentence follows from another"
python run_glue.py configs/demo.yaml --output_dir "$full"
echo
echo "== 2. The same without the six layers next to the classifier"
python run_glue.py configs/demo.yaml --drop_strategy top --drop_k 6 --output_dir "$cut"
echo
echo "== 3. Side by side (differences to the full model; accuracy in points)"
python scripts/compare.py "$full" "$cut"
echo
echo "The miniature speaks a small artificial English: good for trying the tool, not for conclusions about language."
echo "Next: python run_glue.py --help, or README.md."
