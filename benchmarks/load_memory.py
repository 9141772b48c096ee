#!/usr/bin/env python
"""Peak host memory of loading a checkpoint with K of its n layers dropped, for K = 0 ... n-1.

    python benchmarks/load_memory.py [MODEL]

Without MODEL: a BERT-base of random weights, written to a temporary folder. Every load runs in a process of its own.
`peak` is the largest resident size of that process; `above` is what it is above the peak with K = n-1; `weights` is the
size of the layers that K keeps beyond that one. Dropping follows the kept size where above / weights is at most 1.15.
"""

import argparse
import json
import subprocess
import sys
import tempfile

LOAD = """
import json, sys
from transformers import AutoConfig
from layerdrop.runs.environment import peak_memory
from layerdrop.loading import load_classifier
name, k = sys.argv[1], int(sys.argv[2])
config = AutoConfig.from_pretrained(name)
n = config.num_hidden_layers
model, _ = load_classifier(name, range(n - k, n))
for p in model.parameters():
    p.sum()  # the weights are mapped from the file: have every page of them in memory
print(json.dumps([n, peak_memory()["host"], sum(p.numel() * p.element_size() for p in model.parameters())]))
"""


def measure(name: str, k: int) -> tuple[int, int, int]:
    """(depth of the checkpoint, peak bytes of the process, bytes of the loaded weights)."""
    done = subprocess.run([sys.executable, "-c", LOAD, name, str(k)], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="folder of a checkpoint")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        name = model or folder
        if not model:
            from transformers import BertConfig, BertForSequenceClassification

            BertForSequenceClassification(BertConfig()).save_pretrained(folder)
        n = measure(name, 0)[0]
        rows = [(k, *measure(name, k)[1:]) for k in range(n)]
    _, least_peak, least_weights = rows[-1]
    mib = 2**20
    print(f"{'K':>3} {'kept MiB':>9} {'peak MiB':>9} {'above':>7} {'weights':>8} {'ratio':>6}")
    for k, peak, weights in rows:
        above, more = peak - least_peak, weights - least_weights
        ratio = f"{above / more:6.2f}" if more else "     -"
        print(f"{k:>3} {weights / mib:9.1f} {peak / mib:9.1f} {above / mib:7.1f} {more / mib:8.1f} {ratio}")


if __name__ == "__main__":
    main()
