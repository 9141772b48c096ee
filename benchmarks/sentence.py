#!/usr/bin/env python
"""Compare sentence encoders before and after a cut: Spearman's correlation on STS-B's validation set.

    python benchmarks/sentence.py minilm glue/STS-B/dev.tsv --k 0 1 2 3

Needs sentence-transformers. A folder without `modules.json` gets mean pooling. Each row also has the largest difference
of the cut encoder's embeddings and the pooled hidden_states[n - k] of the full encoder, for the first 64 sentences."""

import argparse
import csv
import subprocess
import sys
import tempfile

import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer


def read_pairs(path: str) -> tuple[list[str], list[str], list[float]]:
    """(first sentences, second sentences, labels) of STS-B's file."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], [float(row["score"]) for row in rows]


def cut(model: str, k: int, folder: str) -> None:
    """Run `layerdrop cut` with the strategy top."""
    words = ["--drop_strategy", "top", "--drop_k", str(k), "--output_dir", folder]
    subprocess.run([sys.executable, "-m", "layerdrop", "cut", model, *words], check=True)


def score(encoder: SentenceTransformer, pairs: tuple[list[str], list[str], list[float]]) -> float:
    """100 times Spearman's correlation of the labels with the cosine of two embeddings."""
    first, second, labels = pairs
    vectors = [encoder.encode(texts, convert_to_tensor=True, show_progress_bar=False) for texts in (first, second)]
    return 100 * spearmanr(torch.cosine_similarity(*vectors).cpu(), labels).statistic


@torch.no_grad()
def difference(full: SentenceTransformer, reduced: SentenceTransformer, k: int, texts: list[str]) -> float:
    """Largest difference of the reduced embeddings and the pooled hidden_states[n - k] of the full encoder."""
    features = full.preprocess(texts)
    features = {name: value.to(full.device) for name, value in features.items() if hasattr(value, "to")}
    embeddings = reduced(dict(features))["sentence_embedding"]
    states = full[0].auto_model(**features, output_hidden_states=True).hidden_states
    pooled = {"token_embeddings": states[len(states) - 1 - k], "attention_mask": features["attention_mask"]}
    for module in list(full)[1:]:
        pooled = module(pooled)
    return float((pooled["sentence_embedding"] - embeddings).abs().max())


def main() -> None:
    """Print a line for each K."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a sentence encoder")
    parser.add_argument("pairs", help="STS-B's dev.tsv")
    parser.add_argument("--k", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.pairs)
    full = SentenceTransformer(arguments.model).eval()
    for k in arguments.k:
        if not k:
            print(f"K = 0: {score(full, pairs):.1f}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            cut(arguments.model, k, folder)
            reduced = SentenceTransformer(folder).eval()
        gap = difference(full, reduced, k, pairs[0][:64])
        print(f"K = {k}: {score(reduced, pairs):.1f}, largest difference {gap}", flush=True)


if __name__ == "__main__":
    main()
