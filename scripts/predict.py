#!/usr/bin/env python
"""Predictions of an exported model: python scripts/predict.py EXPORTED sentences.tsv [--output predictions.tsv]

EXPORTED: a folder of scripts/export.py, or any folder of a classifier; with model.onnx by onnxruntime, else by torch.
The file has one text in each line, or two that are separated by a tab.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 unusable input."""
    from layerdrop.errors import UserError
    from layerdrop.files import LocalPath, write_atomically

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=LocalPath, help="folder of a classifier")
    parser.add_argument("texts", type=LocalPath, help="file of texts, one or two in a line")
    parser.add_argument("--output", type=LocalPath, help="file of the predictions (default: stdout)")
    parser.add_argument("--batch_size", type=int, default=32)
    args = parser.parse_args(argv)
    try:
        lines = predict(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = "".join(f"{line}\n" for line in lines)
    if args.output:
        write_atomically(Path(args.output), text)
    else:
        print(text, end="")
    return 0


def predict(args: argparse.Namespace) -> list[str]:
    """A header, then a class name or a value for each line of the file."""
    import numpy as np

    from layerdrop.checkpoints import Checkpoint
    from layerdrop.data.batches import Collator
    from layerdrop.data.examples import Examples
    from layerdrop.data.tokens import tokenise
    from layerdrop.errors import UserError
    from layerdrop.files import make_folder_of

    try:
        rows = [line.split("\t") for line in Path(args.texts).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{args.texts}: cannot read it ({error}). Give a text file.") from None
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not widths <= {1, 2}:
        raise UserError(f"{args.texts}: its lines have {sorted(widths)} columns. Give one text in each line, or two.")
    if args.output:
        make_folder_of("--output", args.output, rb"\Aprediction[\t\n]")
    checkpoint = Checkpoint.open(args.model, flag="MODEL")
    texts = tuple(list(column) for column in zip(*rows, strict=True))
    examples = Examples(texts, None, [str(i) for i in range(len(rows))])
    data = tokenise(examples, checkpoint.tokenizer, checkpoint.max_length())
    logits = _classifier(args.model, checkpoint)(data, Collator.of(checkpoint.tokenizer), args.batch_size)
    if checkpoint.is_regression:
        return ["prediction", *(f"{value:.6g}" for value in logits[:, 0])]
    names = [checkpoint.config.id2label[i] for i in range(logits.shape[1])]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    sure = (odds / odds.sum(1, keepdims=True)).max(1)
    return ["prediction\tprobability", *(f"{names[i]}\t{p:.4f}" for i, p in zip(logits.argmax(1), sure, strict=True))]


def _classifier(folder: str, checkpoint):
    """A function of (data, collate, batch size) -> logits in the order of the source."""
    from layerdrop.export.onnx import FILE, OnnxClassifier, check_packages
    from layerdrop.loading import load_classifier

    if (Path(folder) / FILE).is_file():
        check_packages()
        return OnnxClassifier(Path(folder) / FILE).logits
    from layerdrop.evaluate import logits_of

    model, _ = load_classifier(checkpoint, replace_head=False)
    return lambda data, collate, batch_size: logits_of(model, data, collate, batch_size, "fp32")


if __name__ == "__main__":
    from layerdrop.process import tolerate_broken_output

    tolerate_broken_output()
    sys.exit(main())
