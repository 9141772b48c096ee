"""From a DropSpec to ids, for real checkpoints."""

import math
import shutil
from pathlib import Path

import pytest

from layerdrop.architectures import HubOptions, ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.parsing import parse
from layerdrop.criteria import stored
from layerdrop.criteria.scoring import Scores, score_layers
from layerdrop.criteria.selection import search_space, select_layers, split_to_score
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.weights import variance
from layerdrop.data.batches import Collator, batches
from layerdrop.data.glue import read_glue_split
from layerdrop.data.tasks import TASKS
from layerdrop.data.tokens import tokenize
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier
from layerdrop.runs.checks import check_selection
from layerdrop.runs.spec import RunSpec
from tests import tiny
from tests.criteria.test_scorers import contribution


def run_of(words: str) -> RunSpec:
    return parse(words.split()).to_spec()[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--drop_strategy top --drop_k 6", "--drop_k 6"),
        ("--drop_strategy contribution --drop_k 6", "--drop_k 6"),
        ("--drop_layers 6", "no layer 6"),
        ("--freeze_layers 6", "--freeze_layers: no layer 6"),
        ("--drop_strategy top --drop_k 2 --freeze_layers 5", "--freeze_layers: layer 5 is not kept"),
        ("--drop_strategy random --drop_k 5 --teacher auto --distill patient", "the model keeps only one layer"),
        ("--drop_layers 0,1,2,3,4 --teacher auto --distill patient", "the model keeps only one layer"),
    ],
)
def test_what_no_score_could_mend(words, said):
    with pytest.raises(UserError, match=said):
        check_selection(run_of(words), tiny.config("bert"))


@pytest.mark.parametrize("words", ["patient --distill_states_weight 0", "logits", "layers"])
def test_a_model_of_one_layer_can_learn_from_a_teacher(words):
    check_selection(run_of(f"--drop_strategy top --drop_k 5 --teacher auto --distill {words}"), tiny.config("bert"))
    check_selection(run_of("--drop_strategy top --drop_k 4 --teacher auto --distill patient"), tiny.config("bert"))


def test_first_layer_of_modernbert_is_said_before_anything_is_loaded():
    with pytest.raises(UserError, match="layer 0 of ModernBERT"):
        check_selection(run_of("--drop_strategy bottom --drop_k 1"), tiny.config("modernbert"))


def test_which_split_is_scored():
    assert split_to_score(DropSpec("contribution", 2, score_split="train")) == "train"
    assert not split_to_score(DropSpec("variance", 2)) and not split_to_score(DropSpec("top", 2))
    assert not split_to_score(DropSpec())


def test_contribution_of_a_checkpoint(bert, glue):
    """The scores are those of the encoder on the split's rows, however they are batched."""
    examples = read_glue_split(glue, TASKS["rte"], "validation")
    tokenizer = tiny.tokenizer()
    wanted = DropSpec("contribution", 2, score_split="train", score_samples=7)
    selection = select_layers(wanted, Checkpoint.open(bert), examples, batch_size=5)
    rows = batches(tokenize(examples.head(7), tokenizer, 128), 1)
    expected = contribution(tiny.model("bert").base_model, map(Collator.of(tokenizer), rows))
    assert selection.scores == pytest.approx(expected, abs=1e-6)
    ranked = sorted(range(6), key=lambda i: -expected[i])
    assert selection.dropped == sorted(ranked[:2]) and selection.why == "contribution, K = 2"
    above = select_layers(DropSpec("contribution", threshold=sorted(expected)[3]), Checkpoint.open(bert), examples)
    assert above.why.startswith("contribution, above 0.") or above.why.startswith("contribution, above -")


def test_weights_that_scoring_has_read_are_not_read_again(bert, monkeypatch):
    checkpoint, opened = Checkpoint.open(bert), []
    weights = checkpoint.weights()

    class Spy:
        def __init__(self, name, tensor):
            self.name, self.tensor = name, tensor

        def __getitem__(self, part):
            opened.append(self.name)
            return self.tensor[part]

        def __getattr__(self, attribute):
            return getattr(self.tensor, attribute)

    monkeypatch.setattr(Checkpoint, "weights", lambda _: {name: Spy(name, value) for name, value in weights.items()})
    selection = select_layers(DropSpec("variance", 2), checkpoint)
    model, new = load_classifier(checkpoint, selection.dropped, weights=selection.encoder_weights)
    assert len(opened) == len(set(opened)) == len(weights) and not new
    plain, _ = load_classifier(checkpoint, selection.dropped)
    assert all((a == b).all() for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_scores_of_another_checkpoint(bert, tmp_path):
    other = tiny.save(tmp_path / "other", seed=5)
    selection = select_layers(DropSpec("variance", 2, score_on=other), Checkpoint.open(bert))
    assert selection.scores == variance(tiny.model("bert", seed=5).base_model)
    assert selection.scores != select_layers(DropSpec("variance", 2), Checkpoint.open(bert)).scores
    assert selection.fingerprints == {"score_on": Checkpoint.open(other).fingerprints["model"]}
    assert selection.encoder_weights is None
    shallow = tiny.save(tmp_path / "shallow", num_hidden_layers=4)
    with pytest.raises(UserError, match="--score_on .*shallow: has 4 layers, the model 6"):
        select_layers(DropSpec("variance", 2, score_on=shallow), Checkpoint.open(bert))
    with pytest.raises(UserError, match="--score_on /nowhere: no such folder"):
        select_layers(DropSpec("variance", 2, score_on="/nowhere"), Checkpoint.open(bert))


def test_no_strategy_drops_nothing(bert):
    assert select_layers(DropSpec(), Checkpoint.open(bert)).dropped == []


def test_why(bert):
    for drop, why in (
        (DropSpec("top", 2), "top, K = 2"),
        (DropSpec("list", layers=(1, 2, 4)), "list, K = 3"),
    ):
        assert select_layers(drop, Checkpoint.open(bert)).why == why


# ---- which row of a criterion becomes the record's scores ------------------------------------------------------------
ROWS = [[0.3, 0.1, 0.2, 0.4], [0.6, math.nan, 0.5, 0.7], [0.8, math.nan, math.nan, 0.9]]
"""A stepwise criterion's rows of K = 3, of four layers. Of blocks the row of K has 4 - K + 1 numbers."""


@pytest.mark.parametrize(
    ("strategy", "k", "row", "dropped"),
    [
        ("sleb", 1, 0, [1]),
        ("sleb", 2, 1, [1, 2]),
        ("sleb-kl", 3, 2, [0, 1, 2]),
        ("loss-drop", 2, 0, [1, 2]),
        ("angular-block", 1, 0, [1]),
        ("angular-block", 2, 1, [2, 3]),
    ],
)
@pytest.mark.parametrize("filled_with", [3, None])
def test_the_scores_are_those_of_step_k_whichever_k_filled_the_cache(
    bert, monkeypatch, strategy, k, row, dropped, filled_with
):
    rows = ROWS
    if strategy == "angular-block":
        rows = [ROWS[0], [0.6, 0.7, 0.5], [0.8, 0.9]]
    rows = rows if filled_with or strategy == "angular-block" else rows[:k]
    found = Scores({strategy: rows[:1] if strategy == "loss-drop" else rows})
    monkeypatch.setattr("layerdrop.criteria.selection.stored_scores", lambda *_, **__: found)
    checkpoint = Checkpoint(ModelSpec(bert), HubOptions(), tiny.config("bert", num_hidden_layers=4))
    selection = select_layers(DropSpec(strategy, k), checkpoint)
    expected = [*rows[row], *[math.nan] * (4 - len(rows[row]))]
    assert str(selection.scores) == str(expected) and selection.dropped == dropped


def test_the_cache_of_a_larger_k_gives_the_same_scores(bert, glue, tmp_path):
    examples, task = read_glue_split(glue, TASKS["rte"], "validation"), TASKS["rte"]

    def scores(k, store):
        drop = DropSpec("sleb", k, score_split="validation", score_samples=6)
        return select_layers(drop, Checkpoint.open(bert), examples, task, score_store=str(tmp_path / store)).scores

    alone = scores(1, "a")
    assert str(scores(3, "b")) != str(alone)
    assert str(scores(1, "b")) == str(alone)


def test_the_cache_is_of_the_criteria_s_code(bert, tmp_path, monkeypatch):
    """A changed function is computed again."""
    computed = []

    def score(names, *rest, **arguments):
        computed.append(names)
        return score_layers(names, *rest, **arguments)

    monkeypatch.setattr(stored, "score_layers", score)

    def select():
        select_layers(DropSpec("variance", 1), Checkpoint.open(bert), score_store=str(tmp_path / "store"))
        return len(computed)

    assert [select(), select()] == [1, 1]
    changed = tmp_path / "criteria"
    shutil.copytree(Path(stored.__file__).parent, changed)
    monkeypatch.setattr(stored, "__file__", str(changed / "stored.py"))
    assert stored._hash_of_modules() == stored.CRITERIA_HASH  # the same files
    (changed / "weights.py").write_text((changed / "weights.py").read_text() + "# changed\n")
    monkeypatch.setattr(stored, "CRITERIA_HASH", stored._hash_of_modules())
    assert select() == 2


def test_a_search_of_layers_that_share_their_weights_is_refused(tmp_path):
    folder = tiny.save(tmp_path / "albert", "albert")
    said = f"^--model_name_or_path {folder}: ALBERT shares one layer, .* run --drop_strategy top --drop_k K$"
    with pytest.raises(UserError, match=said):
        search_space(Checkpoint.open(folder), 2, "--max_k")
