"""Python code that runs an exported model, for the card in its folder."""

from layerdrop.deploy.onnx import FILE

PIPELINE = """\
from transformers import pipeline

classify = pipeline("text-classification", ".", truncation=True, max_length={length})
print(classify({texts}))
"""
ONNX = """\
import onnxruntime
from transformers import AutoTokenizer

tokens = AutoTokenizer.from_pretrained(".")({texts}, truncation=True, max_length={length}, return_tensors="np")
session = onnxruntime.InferenceSession("{file}")
print(session.run(None, {{given.name: tokens[given.name] for given in session.get_inputs()}}))
"""
TEXTS = ('"A first text."', '"A second text."')


def lines(onnx: bool, pairs: bool, length: int) -> str:
    """Python code that prints the prediction (ONNX: the logits) for a text or a pair of texts, run in the export's
    folder. length: maximum number of tokens of an input."""
    if onnx:
        return ONNX.format(texts=", ".join(TEXTS[: 1 + pairs]), length=length, file=FILE)
    pair = f'{{"text": {TEXTS[0]}, "text_pair": {TEXTS[1]}}}'
    return PIPELINE.format(texts=pair if pairs else TEXTS[0], length=length)
