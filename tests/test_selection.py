import dataclasses
from types import SimpleNamespace

import pytest
import torch

from layerdrop import scorers
from layerdrop.checkpoints import HubOptions
from layerdrop.data import Collator, batches, read_glue_split, tokenise
from layerdrop.errors import UserError
from layerdrop.runs import RunSpec
from layerdrop.selection import check_selection, find_order, select_layers
from layerdrop.tasks import TASKS
from tests import tiny

ARGS = SimpleNamespace(device=torch.device("cpu"), per_device_eval_batch_size=5)


def spec(**changes) -> RunSpec:
    return dataclasses.replace(RunSpec("bert-base-uncased", "rte", "hub"), **changes)


def test_orders(tmp_path):
    (tmp_path / "order.txt").write_text("3\n1\n")
    assert find_order(None, None, "x", "rte") == find_order("top", None, "x", "rte") == ()
    assert find_order("greedy", None, "bert-base-uncased", "rte") == (0, 7, 5, 11, 2, 8)
    assert find_order("greedy", str(tmp_path / "order.txt"), "bert-base-uncased", "rte") == (3, 1)
    with pytest.raises(UserError, match="--drop_strategy optimal: needs a search's result"):
        find_order("optimal", None, "bert-base-uncased", "rte")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "top", "k": 6}, "--drop_k 6"),
        ({"strategy": "contribution", "k": 6}, "--drop_k 6"),
        ({"strategy": "list", "layers": (6,)}, "no layer 6"),
        ({"freeze_layers": (6,)}, "--freeze_layers: no layer 6"),
        ({"strategy": "top", "k": 2, "freeze_layers": (5,)}, "--freeze_layers: layer 5 is not kept"),
    ],
)
def test_what_no_score_could_mend(changes, said):
    with pytest.raises(UserError, match=said):
        check_selection(spec(**changes), tiny.config("bert"))


def test_first_layer_of_modernbert_is_said_before_anything_is_loaded():
    with pytest.raises(UserError, match="layer 0 of ModernBERT"):
        check_selection(spec(strategy="bottom", k=1), tiny.config("modernbert"))


def test_contribution_of_a_checkpoint(bert, glue):
    """The scores are those of the encoder on the split's rows, however they are batched."""
    examples = read_glue_split(glue, TASKS["rte"], "validation")
    tokenizer = tiny.tokenizer()
    wanted = spec(model=bert, strategy="contribution", k=2, score_samples=7)
    selection = select_layers(wanted, 6, HubOptions(), examples, tokenizer, ARGS)
    rows = batches(tokenise(examples.head(7), tokenizer, 128), 1)
    encoder = tiny.model("bert").base_model
    expected = scorers.contribution(encoder, map(Collator.of(tokenizer), rows))
    assert selection.scores == pytest.approx(expected, abs=1e-6)
    ranked = sorted(range(6), key=lambda i: -expected[i])
    assert selection.dropped == sorted(ranked[:2])


def test_no_strategy_drops_nothing(bert):
    assert select_layers(spec(model=bert), 6, HubOptions(), None, None, ARGS).dropped == []
