"""The contract of every family, with exact oracles: what is compared is compared bit for bit."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from layerdrop import surgery
from layerdrop.architectures import CONFIG_KEY, FAMILIES, family_of, original_layers
from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier, number_of_parameters
from layerdrop.surgery import drop_layers, layer_list, without
from tests import tiny
from tests.tiny import N_LAYERS

MODEL_TYPES = [name for family in FAMILIES for name in family.model_types]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Model type -> (folder, the full model)."""
    made = {}

    def get(model_type: str):
        if model_type not in made:
            folder = tiny.save(tmp_path_factory.mktemp("checkpoints") / model_type, model_type)
            made[model_type] = folder, AutoModelForSequenceClassification.from_pretrained(folder).eval()
        return made[model_type]

    return get


def test_every_family_is_tested():
    assert sorted(MODEL_TYPES) == sorted(tiny.CONFIGS)


def reduced_model(folder, dropped):
    return load_classifier(folder, dropped)[0]


@torch.no_grad()
def outputs(model, **kwargs):
    return model(**tiny.batch(left=model.config.model_type == "xlnet"), **kwargs)


def cases(model_type: str) -> list[list[int]]:
    """What can be dropped: one end, the other, the middle, something uneven, all but one."""
    some = [[3, 4, 5], [2, 3], [1, 2, 3, 4, 5]]
    first_too = [[0], [0, 2, 5]]
    return some if model_type == "modernbert" else some + first_too


@pytest.mark.parametrize("model_type", MODEL_TYPES)
class TestContract:
    def test_dropping_nothing_changes_no_bit(self, checkpoints, model_type):
        folder, full = checkpoints(model_type)
        same = reduced_model(folder, [])
        assert same.config.to_dict() == full.config.to_dict()
        assert torch.equal(outputs(same).logits, outputs(full).logits)

    def test_top_gives_the_full_models_hidden_states(self, checkpoints, model_type):
        folder, full = checkpoints(model_type)
        inputs = tiny.batch(left=model_type == "xlnet")
        with torch.no_grad():
            states = full.base_model(**inputs, output_hidden_states=True).hidden_states
            for k in range(1, N_LAYERS):
                last = reduced_model(folder, range(N_LAYERS - k, N_LAYERS)).base_model(**inputs)[0]
                expected = states[N_LAYERS - k]
                if norm := tiny.FINAL_NORMS.get(model_type):
                    expected = full.base_model.get_submodule(norm)(expected)
                assert torch.equal(last, expected), k

    def test_loading_the_kept_layers_equals_removing_the_others(self, checkpoints, model_type):
        folder, full = checkpoints(model_type)
        for dropped in cases(model_type):
            loaded, removed = reduced_model(folder, dropped), drop_layers(copy.deepcopy(full), dropped)
            assert torch.equal(outputs(loaded).logits, outputs(removed).logits), dropped
            kept = [i for i in range(N_LAYERS) if i not in dropped]
            if not family_of(full.config).shared:
                originals = [layer_list(full)[i].state_dict() for i in kept]
                for original, layer in zip(originals, layer_list(loaded), strict=True):
                    assert all(torch.equal(original[name], value) for name, value in layer.state_dict().items())
            assert loaded.config.to_dict() == removed.config.to_dict()

    def test_dropping_changes_the_outcome(self, checkpoints, model_type):
        folder, full = checkpoints(model_type)
        assert not torch.equal(outputs(reduced_model(folder, [2, 3])).logits, outputs(full).logits)

    def test_nothing_stale_is_left(self, checkpoints, model_type):
        _, full = checkpoints(model_type)
        removed = drop_layers(copy.deepcopy(full), [1, 4])
        fresh = AutoModelForSequenceClassification.from_config(removed.config)
        for (name, old), (_, new) in zip(removed.named_modules(), fresh.named_modules(), strict=True):
            for attribute in ("layer_idx", "layer_id", "n_layers", "n_layer", "num_hidden_layers"):
                assert getattr(old, attribute, None) == getattr(new, attribute, None), (name, attribute)

    @pytest.mark.parametrize("how", ["loaded", "removed"])
    def test_saved_model_is_an_ordinary_one(self, checkpoints, model_type, how, tmp_path):
        folder, full = checkpoints(model_type)
        for dropped in cases(model_type)[::2] if how == "loaded" else [[1, 4]]:  # the two ways agree, as shown above
            reduced = reduced_model(folder, dropped) if how == "loaded" else drop_layers(copy.deepcopy(full), dropped)
            reduced.save_pretrained(tmp_path)
            again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
            assert not info["missing_keys"] and not info["unexpected_keys"]
            assert torch.equal(outputs(again.eval()).logits, outputs(reduced).logits), dropped
            kept = [i for i in range(N_LAYERS) if i not in dropped]
            assert getattr(again.config, CONFIG_KEY) == {"n_layers": N_LAYERS, "kept": kept}

    def test_parameter_count(self, checkpoints, model_type):
        folder, full = checkpoints(model_type)
        shared = family_of(full.config).shared
        for dropped in cases(model_type):
            gone = 0 if shared else sum(p.numel() for i in dropped for p in layer_list(full)[i].parameters())
            expected = sum(p.numel() for p in full.parameters()) - gone
            assert sum(p.numel() for p in drop_layers(copy.deepcopy(full), dropped).parameters()) == expected
            assert number_of_parameters(Checkpoint.open(folder), dropped) == expected

    def test_dropping_again_is_recorded_in_original_ids(self, checkpoints, model_type, tmp_path):
        folder, _ = checkpoints(model_type)
        reduced_model(folder, [1, 5]).save_pretrained(tmp_path)  # left: 0, 2, 3, 4
        twice = reduced_model(str(tmp_path), [1])  # of those the second
        assert original_layers(twice.config) == (N_LAYERS, [0, 3, 4])
        assert torch.equal(outputs(twice).logits, outputs(reduced_model(folder, [1, 2, 5])).logits)

    def test_the_head_does_not_depend_on_what_is_dropped(self, checkpoints, model_type, tmp_path):
        folder, full = checkpoints(model_type)
        copy.deepcopy(full.base_model).save_pretrained(tmp_path)  # writes into the configuration
        heads = []
        for dropped in ([], [5], [1, 2, 3]):
            set_seed(3)
            model, new = load_classifier(str(tmp_path), dropped)
            assert new
            heads.append([dict(model.named_parameters())[name] for name in new])
        for other in heads[1:]:
            for a, b in zip(heads[0], other, strict=True):
                assert torch.equal(a, b)

    def test_all_layers_cannot_be_dropped(self, checkpoints, model_type):
        folder, _ = checkpoints(model_type)
        with pytest.raises(UserError):
            reduced_model(folder, range(N_LAYERS))


def test_per_layer_lists_follow(checkpoints):
    folder, full = checkpoints("longformer")
    assert reduced_model(folder, [1, 4]).config.attention_window == [4, 8, 4, 8]
    folder, full = checkpoints("modernbert")
    types = full.config.layer_types
    assert reduced_model(folder, [1, 4]).config.layer_types == [types[i] for i in (0, 2, 3, 5)]


def test_modernbert_keeps_its_first_layer(checkpoints):
    with pytest.raises(UserError, match="layer 0 of ModernBERT cannot be dropped"):
        reduced_model(checkpoints("modernbert")[0], [0])


def test_albert_with_groups_is_refused():
    with pytest.raises(UserError, match="2 groups of shared layers"):
        family_of(tiny.config("albert", num_hidden_groups=2))


def test_unknown_model_type():
    config = AutoConfig.for_model("opt")
    with pytest.raises(UserError, match="model type 'opt' is not supported. Allowed: bert"):
        family_of(config)


def test_a_row_whose_path_is_not_a_list_of_layers(checkpoints, monkeypatch):
    _, full = checkpoints("bert")
    row = dataclasses.replace(family_of(full.config), layers="encoder")
    monkeypatch.setattr(surgery, "family_of", lambda config: row)
    with pytest.raises(TypeError, match="encoder of BertForSequenceClassification is a BertEncoder, not a ModuleList"):
        layer_list(full)


def test_frozen_ids_are_those_of_the_checkpoint():
    assert surgery.positions("--freeze_layers", [0, 2, 3], (0, 3)) == [0, 2]
    with pytest.raises(UserError, match="--freeze_layers: layer 1 is not kept. Kept: 0, 2, 3"):
        surgery.positions("--freeze_layers", [0, 2, 3], (1,))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_without_layers_for_a_while(checkpoints, model_type):
    folder, full = checkpoints(model_type)
    before, config, weights = outputs(full).logits, full.config.to_dict(), dict(full.named_parameters())
    with pytest.raises(ZeroDivisionError), without(full, [1, 4]) as reduced:
        assert reduced is full
        assert torch.equal(outputs(reduced).logits, outputs(reduced_model(folder, [1, 4])).logits)
        with without(full, [0] if model_type != "modernbert" else [1]):
            assert full.config.num_hidden_layers == N_LAYERS - 3
        assert full.config.num_hidden_layers == N_LAYERS - 2
        raise ZeroDivisionError
    assert torch.equal(outputs(full).logits, before) and full.config.to_dict() == config
    after = dict(full.named_parameters())
    assert after.keys() == weights.keys() and all(after[name] is weights[name] for name in weights)
    assert [getattr(m, "layer_idx", None) for m in full.modules()] == [
        getattr(m, "layer_idx", None) for m in copy.deepcopy(full).modules()
    ]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.data())
def test_dropping_composes(data):
    """drop(A), then drop(B), is drop(A and B): logits to the last bit, depth and original ids."""
    full = tiny.model("bert")
    first = data.draw(st.sets(st.integers(0, N_LAYERS - 1), max_size=N_LAYERS - 1))
    left = [i for i in range(N_LAYERS) if i not in first]
    second = data.draw(st.sets(st.sampled_from(left), max_size=len(left) - 1))
    twice = drop_layers(copy.deepcopy(full), sorted(first))
    drop_layers(twice, [left.index(i) for i in second])
    once = drop_layers(copy.deepcopy(full), sorted(first | second))
    assert torch.equal(outputs(twice).logits, outputs(once).logits)
    assert original_layers(twice.config) == original_layers(once.config)
    assert sum(p.numel() for p in twice.parameters()) == sum(p.numel() for p in once.parameters())
