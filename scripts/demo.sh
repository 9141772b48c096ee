#!/usr/bin/env bash
# Create the environment, then run the bundled demo model: the full model, the model without its six top layers, and
# a comparison of both. Needs no model hub and no data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh

full=runs/demo_demo-rte_full_k0_seed42 cut=runs/demo_demo-rte_top_k6_seed42
rm -rf "$full"/checkpoint-* "$cut"/checkpoint-* # left by an interrupted demo

echo "== 1. The full model: 12 layers, fine-tuned to decide whether one sentence follows from another"
layerdrop run configs/demo.yaml --output_dir "$full"
echo
echo "== 2. The model without the six layers next to the classifier"
layerdrop run configs/demo.yaml --drop_strategy top --drop_k 6 --output_dir "$cut"
echo
echo "== 3. Side by side (differences to the full model; accuracy in points)"
layerdrop compare "$full" "$cut"
echo
echo "The demo model is trained on synthetic text. Use it to try the tool, not to draw conclusions about language."
echo "Next: . .venv/bin/activate && layerdrop --help, or README.md."
