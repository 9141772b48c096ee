"""Criteria on models with known answers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, set_seed

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria import stored
from layerdrop.criteria.outputs import fisher, logit_kl, loss_drop, mean_loss, sleb, sleb_kl, taylor
from layerdrop.criteria.scoring import score_layers
from layerdrop.criteria.selection import select_layers
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.states import Blocks, linear_cka, residual, score_states
from layerdrop.criteria.table import CRITERIA
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import TASKS
from layerdrop.errors import UserError
from layerdrop.states import States, layer_states
from layerdrop.strategies import by_score
from layerdrop.surgery import drop_layers, layer_list
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES

OF_STATES = [name for name, row in CRITERIA.items() if row.looks_at == "states"]
OF_OUTPUTS = [name for name, row in CRITERIA.items() if row.needs_head]


def examples(n=12, classes=2) -> Examples:
    texts = [" ".join(tiny.WORDS[(7 * i + j) % 60] for j in range(2 + i % 9)) for i in range(n)]
    return Examples((texts,), np.arange(n) % classes, [str(i) for i in range(n)])


def idle(model, i):
    """Make a layer of a BERT the identity: what its sublayers compute is nothing, its norms do nothing."""
    layer = layer_list(model)[i]
    layer.forward = lambda hidden_states, *args, **kwargs: hidden_states
    return model


def all_rows(names, model, batches):
    return score_states({name: CRITERIA[name].function() for name in names}, model, batches)


# ---- states ----------------------------------------------------------------------------------------------------------
def test_a_layer_that_does_nothing():
    encoder = idle(tiny.model("bert").base_model, 2)
    rows = all_rows(OF_STATES, encoder, [tiny.batch(4, seed=seed) for seed in range(12)])
    expected = {"contribution": 1, "block-influence": 0, "angular-block": 0, "relative-magnitude": 0, "linearity": 0}
    for name, value in (expected | {"cka": 1}).items():
        scores = rows[name][0]
        assert scores[2] == pytest.approx(value, abs=1e-6), name
        assert all(abs(score - value) > 1e-4 for i, score in enumerate(scores) if i != 2), name
        assert by_score(scores, 1, CRITERIA[name].drops) == [2], name


def test_losses_outputs_and_weights_drop_the_lowest():
    """A layer is worth what its absence costs, or what its weights hold, so the least is dropped first."""
    others = {name: row.drops for name, row in CRITERIA.items() if row.looks_at != "states"}
    assert len(others) == 8 and set(others.values()) == {"lowest"}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_padding_and_batch_size_change_nothing(model_type):
    """Each text alone, without padding, or all in one batch."""
    encoder, left = tiny.model(model_type).base_model, model_type == "xlnet"
    if model_type == "mobilebert":
        encoder.get_input_embeddings().weight.data[0] = 0
    whole = tiny.batch(8, left)
    alone = []
    for row, mask in enumerate(whole["attention_mask"].bool()):
        alone.append({name: tensor[row : row + 1, mask] for name, tensor in whole.items()})
    one, each = all_rows(OF_STATES, encoder, [whole]), all_rows(OF_STATES, encoder, alone)
    for name in OF_STATES:
        tolerance = 2e-3 if name == "linearity" else 2e-5
        assert len(one[name]) == (6 if name == "angular-block" else 1)
        np.testing.assert_allclose(np.concatenate(one[name]), np.concatenate(each[name]), atol=tolerance, err_msg=name)


def test_means_are_over_real_tokens():
    """Worked by hand: one layer, three tokens of which the last is padding."""
    before = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    after = torch.tensor([[[0.0, 1.0], [0.0, 4.0], [-5.0, 5.0]]])
    real, token = torch.tensor([[True, True, False]]), torch.tensor([0])
    found = {}
    for name in ("contribution", "block-influence", "relative-magnitude", "angular-block"):
        collector = CRITERIA[name].function()
        collector.add(States([before], [after]), real, token)
        found[name] = collector.rows()[0]
    assert found["contribution"] == [0.0] and found["block-influence"] == [0.5]  # (1 + 0) / 2
    assert found["relative-magnitude"] == pytest.approx([(math.sqrt(2) + 0.5) / 2])
    assert found["angular-block"] == pytest.approx([0.5])  # a right angle is half of half a turn


def test_moments_by_hand():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(500, 3))
    y = x @ generator.normal(size=(3, 3)) + 0.5 * generator.normal(size=(500, 3)) + 7
    moments = [CRITERIA[name].function() for name in ("linearity", "cka")]
    for part in (slice(0, 100), slice(100, 500)):
        states = States([torch.tensor(x[None, part])], [torch.tensor(y[None, part])])
        real = torch.ones(1, part.stop - part.start, dtype=torch.bool)
        for collector in moments:
            collector.add(states, real, torch.tensor([0]))
    a, b = x - x.mean(0), y - y.mean(0)
    fitted = a @ np.linalg.lstsq(a, b, rcond=None)[0]
    assert moments[0].rows()[0] == pytest.approx([((b - fitted) ** 2).sum() / (b**2).sum()])
    cka = (np.linalg.norm(b.T @ a) ** 2) / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert moments[1].rows()[0] == pytest.approx([cka])
    eye = torch.eye(3)
    assert linear_cka(eye, 2 * eye, 4 * eye) == pytest.approx(1) and residual(eye, eye, 4 * eye) == pytest.approx(0.75)


def test_blocks_are_distances_of_states():
    encoder = tiny.model("bert").base_model
    batch = tiny.batch(4)
    rows = score_states({"x": Blocks()}, encoder, [batch])["x"]
    states = layer_states(encoder, batch)
    points = [state[:, 0].double() for state in [*states.inputs, states.outputs[-1]]]
    assert [len(row) for row in rows] == [6, 5, 4, 3, 2, 1]
    for k in range(1, 7):
        for i in range(7 - k):
            angle = torch.cosine_similarity(points[i], points[i + k]).clamp(-1, 1).arccos() / math.pi
            assert rows[k - 1][i] == pytest.approx(float(angle.mean()), abs=1e-6)


# ---- outputs ---------------------------------------------------------------------------------------------------------
def labelled(n=3):
    return [tiny.batch(4, seed=i) | {"labels": torch.tensor([0, 1, 1, 0])} for i in range(n)]


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_a_layer_that_does_nothing_is_worth_nothing(name):
    model = idle(tiny.model("bert"), 2)
    args = (1,) if CRITERIA[name].unit == "steps" else ()
    scores = CRITERIA[name].function(model, labelled(), *args)[0]
    assert scores[2] == pytest.approx(0, abs=1e-6)
    assert all(abs(score) > 1e-6 for i, score in enumerate(scores) if i != 2)


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_batches_of_any_size_give_the_same(name):
    model, args = tiny.model("bert"), (3,) if CRITERIA[name].unit == "steps" else ()
    batches = labelled()
    rows = [{key: tensor[i : i + 1] for key, tensor in batch.items()} for batch in batches for i in range(4)]
    a, b = (CRITERIA[name].function(model, parts, *args) for parts in (batches, rows))
    np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-5, rtol=1e-4)


def test_losses_without_layers_are_those_of_the_cut_model():
    batches = labelled(1)
    (batch,) = batches
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}

    def loss(gone):
        with torch.no_grad():
            return cross_entropy(drop_layers(tiny.model("bert"), gone)(**inputs).logits, batch["labels"]).item()

    model = tiny.model("bert")
    assert loss_drop(model, batches)[0] == pytest.approx([loss([i]) - loss([]) for i in range(6)], abs=1e-6)
    first, second = sleb(model, batches, 2)
    best = min(range(6), key=lambda i: (first[i], -i))
    expected = [math.nan if i == best else loss(sorted([best, i])) - loss([]) for i in range(6)]
    assert second == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert model.config.num_hidden_layers == 6 and mean_loss(model, batches) == pytest.approx(loss([]))


def test_divergences_by_hand():
    batches = labelled(2)
    inputs = [{name: tensor for name, tensor in batch.items() if name != "labels"} for batch in batches]

    def odds(gone):
        model = drop_layers(tiny.model("bert"), gone)
        with torch.no_grad():
            return torch.cat([model(**part).logits for part in inputs]).double().softmax(-1)

    def kl(gone):
        p, q = odds([]), odds(gone)
        return float((p * (p.log() - q.log())).sum(-1).mean())

    first, second = sleb_kl(tiny.model("bert"), batches, 2)
    assert first == pytest.approx([kl([i]) for i in range(6)], rel=1e-4)
    assert logit_kl(tiny.model("bert"), batches) == [first]
    best = min(range(6), key=lambda i: (first[i], -i))
    expected = [math.nan if i == best else kl(sorted([best, i])) for i in range(6)]
    assert second == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_gradients_by_hand():
    model, batches = tiny.model("bert"), labelled(2)
    inputs = [{name: t for name, t in batch.items() if name != "labels"} for batch in batches]

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return [[p.grad.clone() for p in layer.parameters()] for layer in layer_list(model)]

    pairs = list(zip(inputs, [batch["labels"] for batch in batches], strict=True))
    losses = [cross_entropy(model(**x).logits, labels, reduction="sum") for x, labels in pairs]
    layers = zip(layer_list(model), gradients(sum(losses) / 8), strict=True)
    expected = [
        sum(float((w.detach() * g).abs().sum()) for w, g in zip(layer.parameters(), of_mean, strict=True))
        for layer, of_mean in layers
    ]
    assert taylor(model, batches)[0] == pytest.approx(expected, rel=1e-5)
    total = [0.0] * 6
    for x, batch in zip(inputs, batches, strict=True):
        for row in range(4):
            one = {name: tensor[row : row + 1] for name, tensor in x.items()}
            squares = gradients(cross_entropy(model(**one).logits, batch["labels"][row : row + 1]))
            total = [t + sum(float((g**2).sum()) for g in gs) / 8 for t, gs in zip(total, squares, strict=True)]
    assert fisher(model, batches)[0] == pytest.approx(total, rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_values_too():
    model = tiny.model("bert", num_labels=1, problem_type="regression")
    batches = [tiny.batch(4) | {"labels": torch.tensor([0.5, 1.0, 2.0, 3.0])}]
    for name in OF_OUTPUTS:
        rows = CRITERIA[name].function(model, batches, *((2,) if CRITERIA[name].unit == "steps" else ()))
        assert np.isfinite(rows[0]).all() and len(rows[0]) == 6, name


# ---- from a checkpoint -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_criterion_for_every_family(tmp_path, model_type):
    """The tiny checkpoints have a classifier of two classes. All criteria are computed in one pass over the texts."""
    checkpoint, store = Checkpoint.open(tiny.save(tmp_path / model_type, model_type)), str(tmp_path / "scores")
    names, how = [name for name in CRITERIA], {"tokenizer": checkpoint.tokenizer, "weight_scope": "final"}
    found = stored.stored_scores(names, checkpoint, examples(), TASKS["rte"], folder=store, k=2, **how)
    assert found.head == "the checkpoint's classifier" and set(found.rows) == set(names)
    first = model_type == "modernbert"  # its first layer cannot go
    for name, rows in found.rows.items():
        assert len(rows) == {"angular-block": 6, "sleb": 2, "sleb-kl": 2}.get(name, 1)
        missing = sum(map(math.isnan, rows[0]))
        assert missing == (first and name in ("loss-drop", "sleb", "logit-kl", "sleb-kl")), name
    for name in names:
        drop = DropSpec(name, 2, score_split="train")
        selection = select_layers(drop, checkpoint, examples(), TASKS["rte"], score_store=store)
        assert len(selection.dropped) == 2 == len(selection.order) and not (first and 0 in selection.dropped), name
        assert len(selection.scores) == 6 and selection.why == f"{name}, K = 2"
    assert len(list(Path(store).iterdir())) == 1  # the selections have read the scores of the pass


def test_a_masked_language_model_is_its_own_judge(tmp_path):
    set_seed(1)
    model = AutoModelForMaskedLM.from_config(tiny.config("bert"))
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = score_layers(["loss-drop", "logit-kl"], checkpoint, examples(), TASKS["rte"], batch_size=5)
    assert found.head == "the checkpoint's masked-LM head"
    other = score_layers(["loss-drop"], checkpoint, examples(), TASKS["rte"], batch_size=12)
    assert found.rows["loss-drop"][0] == pytest.approx(other.rows["loss-drop"][0], abs=1e-5)
    assert len(set(found.rows["logit-kl"][0])) == 6 and min(found.rows["logit-kl"][0]) > 0


def test_without_any_head(tmp_path):
    tiny.model("bert").base_model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no head for taylor. Needed: a classifier trained on this task, or a masked"):
        score_layers(["taylor"], Checkpoint.open(str(tmp_path)), examples(), TASKS["rte"])


def test_scores_without_their_inputs(bert):
    """The flags always give both; a call in Python may not."""
    checkpoint = Checkpoint.open(str(bert))
    with pytest.raises(UserError, match="contribution, loss-drop: scores are measured on texts. Give examples"):
        score_layers(["variance", "contribution", "loss-drop"], checkpoint)
    for name in ("angular-block", "linearity", "taylor"):
        with pytest.raises(UserError, match=f"{name}: scores are measured on texts. Give examples"):
            score_layers([name], checkpoint, examples(0), TASKS["rte"])
    assert Blocks().rows() == []
    with pytest.raises(UserError, match="loss-drop: scores are measured with a head. Give the task"):
        score_layers(["variance", "loss-drop"], checkpoint, examples())
    assert len(score_layers(["variance"], checkpoint).rows["variance"][0]) == checkpoint.n_layers


def test_another_order_of_labels_changes_no_score(tmp_path):
    """With three classes: an order of two is its own inverse."""
    model = tiny.model("bert", num_labels=3)
    words = tiny.tokenizer()
    names, rows = TASKS["mnli"].labels, examples()
    rows.labels = np.arange(len(rows)) % 3
    for order, folder in (((0, 1, 2), "a"), ((2, 0, 1), "b")):
        with torch.no_grad():
            turned = tiny.model("bert", num_labels=3)
            turned.load_state_dict(model.state_dict())
            turned.classifier.weight.copy_(model.classifier.weight[list(order)])
            turned.classifier.bias.copy_(model.classifier.bias[list(order)])
        turned.config.id2label = {i: names[j] for i, j in enumerate(order)}
        turned.config.label2id = {names[j]: i for i, j in enumerate(order)}
        turned.save_pretrained(tmp_path / folder)
        words.save_pretrained(tmp_path / folder)
    found = [
        score_layers(["loss-drop"], Checkpoint.open(str(tmp_path / folder)), rows, TASKS["mnli"]).rows["loss-drop"]
        for folder in "ab"
    ]
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)


# ---- random ----------------------------------------------------------------------------------------------------------
def test_random_sets_are_even_and_seeded(tmp_path):
    checkpoint = Checkpoint.open(tiny.save(tmp_path / "m"))
    sets = [select_layers(DropSpec("random", 2), checkpoint, seed=seed).dropped for seed in range(300)]
    assert sets[:5] == [select_layers(DropSpec("random", 2), checkpoint, seed=seed).dropped for seed in range(5)]
    assert len({tuple(ids) for ids in sets}) == 15
    assert (abs(np.bincount(np.concatenate(sets)) - 100) < 40).all()
    two, four = (select_layers(DropSpec("random", k), checkpoint, seed=3) for k in (2, 4))
    assert set(two.dropped) < set(four.dropped) and four.order[:2] == two.order
    modern = Checkpoint.open(tiny.save(tmp_path / "modern", "modernbert"))
    assert all(0 not in select_layers(DropSpec("random", 5), modern, seed=seed).dropped for seed in range(9))


@pytest.mark.parametrize("name", ["block-influence", "angular-block", "sleb", "taylor", "random"])
def test_a_whole_run(run, name):
    code, record, out, err = run(f"--task_name rte --max_steps 1 --drop_strategy {name} --drop_k 2")
    assert code == 0 and len(record["dropped"]) == 2, err
    if name != "random":
        assert record["spec"]["drop"]["score_split"] == "train" and len(record["scores"]) == 6
    if name in ("sleb", "taylor"):
        assert "scores are measured with the checkpoint's classifier" in err
    code, _, out, _ = run(f"--task_name rte --dry_run --drop_strategy {name} --drop_k 2", output=None)
    assert code == 0 and ("scores" in out) == (name != "random")


# ---- kept scores -----------------------------------------------------------------------------------------------------
def test_scores_are_computed_once(tmp_path, monkeypatch):
    checkpoint, folder = Checkpoint.open(tiny.save(tmp_path / "m")), str(tmp_path / "scores")
    asked = []

    def spied(names, *args, **how):
        asked.append(names)
        return score_layers(names, *args, **how)

    monkeypatch.setattr(stored, "score_layers", spied)

    def scores(names, k=1, data=None, **how):
        data = data or examples()
        return stored.stored_scores(names, checkpoint, data, TASKS["rte"], folder=folder, k=k, **how)

    one = scores(["cka", "taylor"])
    two = scores(["taylor", "cka", "sleb"], k=2)
    assert asked == [["cka", "taylor"], ["sleb"]] and two.rows["cka"] == one.rows["cka"]
    assert two.head == "the checkpoint's classifier"
    assert len(scores(["sleb"], k=1).rows["sleb"]) == 2 and len(asked) == 2  # more steps than are needed
    assert scores(["sleb"], k=3).rows["sleb"][0] == two.rows["sleb"][0] and asked[2] == ["sleb"]
    scores(["cka"], data=examples(9))
    scores(["cka"], max_seq_length=7)
    assert len(asked) == 5
    again = score_layers(["cka"], checkpoint, examples(), TASKS["rte"])
    assert again.rows["cka"][0] == pytest.approx(one.rows["cka"][0])
    (tmp_path / "scores" / next(path.name for path in (tmp_path / "scores").iterdir())).write_text("{")
    for names in (["cka"], ["taylor"]):
        scores(names)  # a file that is damaged is written anew
    assert stored.stored_scores(["cka"], checkpoint, examples(), TASKS["rte"]).rows == again.rows


def test_runs_use_kept_scores(run, tmp_path, monkeypatch):
    words = "--task_name rte --max_steps 1 --drop_strategy taylor --score_store kept"
    code, two, _, err = run(f"{words} --drop_k 2", output="two")
    assert code == 0 and len(list((tmp_path / "kept").iterdir())) == 1, err
    monkeypatch.setattr(stored, "score_layers", None)  # any K
    code, three, _, err = run(f"{words} --drop_k 3", output="three")
    assert code == 0 and three["scores"] == two["scores"] and set(two["dropped"]) < set(three["dropped"]), err
