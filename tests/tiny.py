"""Small things to test on: checkpoints of every family with random weights, a tokenizer, GLUE folders."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, set_seed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from layerdrop.data.tasks import TASKS

N_LAYERS = 6
RECORD_KEYS = {
    *("spec", "status", "n_layers", "dropped", "kept", "scores", "parameters_before", "parameters_after"),
    *("metrics", "seconds", "environment", "error"),
}
"""What every record has at least."""
WORDS = [f"w{i}" for i in range(60)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]

SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
CONFIGS = {
    "data2vec-text": {"type_vocab_size": 2},
    "megatron-bert": {},
    "roberta-prelayernorm": {"type_vocab_size": 2},
    "rembert": {"input_embedding_size": 8, "output_embedding_size": 8},
    "roformer": {"embedding_size": 8},
    "xlm-roberta-xl": {"type_vocab_size": 2},
    "eurobert": {**_GROUPED, "mask_token_id": 4, "bos_token_id": 2, "eos_token_id": 3},
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": None},
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "gpt2": {"n_inner": 24, "bos_token_id": 2, "eos_token_id": 3},
    "bert": {},
    "roberta": {"type_vocab_size": 2},
    "xlm-roberta": {"type_vocab_size": 2},
    "camembert": {"type_vocab_size": 2},
    "electra": {"embedding_size": 8},
    "ernie": {},
    "mpnet": {},
    "mobilebert": {"embedding_size": 8, "intra_bottleneck_size": 8, "num_feedforward_networks": 2},
    "deberta": {"type_vocab_size": 2},
    "deberta-v2": {"type_vocab_size": 2, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {},
    "xlnet": {"n_layer": N_LAYERS, "n_head": 2, "d_model": 16, "d_inner": 24, "pad_token_id": 0},
    "albert": {"embedding_size": 8},
    "longformer": {"attention_window": [4, 8, 8, 4, 4, 8], "sep_token_id": 3},
    "modernbert": {"local_attention": 4, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
}


FINAL_NORMS = {
    "modernbert": "final_norm",
    "megatron-bert": "encoder.ln",
    "roberta-prelayernorm": "LayerNorm",
    "xlm-roberta-xl": "encoder.LayerNorm",
    "gpt2": "ln_f",
    **dict.fromkeys(("eurobert", "llama", "mistral", "qwen2", "qwen3"), "norm"),
}
"""Model types whose base model norms the last states once more -> where."""


def config(model_type: str, **changes):
    """A small configuration of that model type."""
    values = CONFIGS[model_type] if model_type == "xlnet" else SIZES | CONFIGS[model_type]
    if model_type == "xlnet":
        values = values | {"vocab_size": len(VOCABULARY)}
    if model_type == "distilbert":
        values = {k: v for k, v in values.items() if k in ("vocab_size", "max_position_embeddings", "pad_token_id")}
        values |= {"dim": 16, "n_layers": N_LAYERS, "n_heads": 2, "hidden_dim": 24}
    return CONFIG_MAPPING[model_type](**values | changes)


def model(model_type: str, seed: int = 0, **changes):
    """A sequence classifier with random weights that are large enough to tell layers apart, in evaluation mode."""
    set_seed(seed)
    tiny = AutoModelForSequenceClassification.from_config(config(model_type, **changes))
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return tiny.eval()


def tokenizer(left: bool = False) -> PreTrainedTokenizerFast:
    """Words by whitespace. With `left` as XLNet's: padding on the left, the sentence token last."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = (
        ("$A [SEP] [CLS]", "$A [SEP] $B:1 [SEP]:1 [CLS]:1")
        if left
        else ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    )
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="left" if left else "right",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save(folder: Path, model_type: str = "bert", **changes) -> str:
    """A checkpoint folder with tokenizer."""
    tiny = model(model_type, **changes)
    tiny.save_pretrained(folder)
    names = ["input_ids", "attention_mask"]
    if model_type not in ("distilbert", "roberta", "modernbert", "mpnet", "longformer"):
        names.insert(1, "token_type_ids")
    words = tokenizer(left=model_type == "xlnet")
    words.model_input_names = names
    words.save_pretrained(folder)
    return str(folder)


def batch(rows: int = 4, left: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask (rows, 9), with padding of different length on one side."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, len(VOCABULARY), (rows, 9), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        padding = row % 4
        part = slice(0, padding) if left else slice(9 - padding, 9)
        mask[row, part] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def sentence(generator: random.Random, words: int = 6) -> str:
    """Words of the tokenizer's vocabulary."""
    return " ".join(generator.choices(WORDS, k=generator.randint(2, words)))


def write_lines(path: Path, lines: list[list[str]]) -> None:
    """A tab-separated file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


HEADERS = {
    "cola": (["source", "label", "star", "sentence"], ["index", "sentence"]),
    "sst2": (["sentence", "label"], ["index", "sentence"]),
    "mrpc": (
        ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
        ["index", "#1 ID", "#2 ID", "#1 String", "#2 String"],
    ),
    "stsb": (
        ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"],
        ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"],
    ),
    "qqp": (["id", "qid1", "qid2", "question1", "question2", "is_duplicate"], ["id", "question1", "question2"]),
    "mnli": (
        ["index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label"],
        ["index", "promptID", "pairID", "genre", "sentence1", "sentence2"],
    ),
    "qnli": (["index", "question", "sentence", "label"], ["index", "question", "sentence"]),
    "rte": (["index", "sentence1", "sentence2", "label"], ["index", "sentence1", "sentence2"]),
    "wnli": (["index", "sentence1", "sentence2", "label"], ["index", "sentence1", "sentence2"]),
}


def glue(folder: Path, name: str, rows: int = 24, seed: int = 0) -> Path:
    """The classical folder of one GLUE task, with artificial rows, below `folder`. Labels go round in turn."""
    generator, task = random.Random(seed), TASKS[name]
    labelled, unlabelled = HEADERS[name]
    texts = set(task.texts)

    def row(number: int, header: list[str]) -> list[str]:
        cells = {column: sentence(generator) if column in texts else f"x{number}" for column in header}
        cells |= {column: str(number) for column in ("index", "id") if column in header}
        if task.label in header:
            cells[task.label] = task.words[number % len(task.words)] if task.words else f"{number % 6:.3f}"
        return [cells[column] for column in header]

    for split, header in (("train", labelled), ("dev", labelled), ("test", unlabelled)):
        for suffix in [""] if split == "train" else task.suffixes:
            lines = [row(i, header) for i in range(rows if split == "train" else rows // 2)]
            head = [] if name == "cola" and split != "test" else [header]
            write_lines(folder / task.folder / f"{split}{suffix}.tsv", head + lines)
    return folder
