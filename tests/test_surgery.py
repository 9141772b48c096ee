"""The contract of every family, with exact oracles: what is compared is compared bit for bit."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from layerdrop import surgery
from layerdrop.architectures import FAMILIES, family_of
from layerdrop.errors import UserError
from layerdrop.surgery import CONFIG_KEY, drop_layers, layer_list, load_classifier
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
    some = [[5], [3, 4, 5], [2, 3], [1, 4], [1, 2, 3, 4, 5]]
    first_too = [[0], [0, 2, 5], [0, 1, 2, 3, 4]]
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
                if model_type == "modernbert":
                    expected = full.base_model.final_norm(expected)
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
        for dropped in cases(model_type):
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
            config = surgery.reduced_config(full.config, dropped)
            assert surgery.count_parameters(reduced_model(folder, dropped)) == expected
            assert surgery.count_parameters(surgery.empty_model(config)) == expected

    def test_dropping_again_is_recorded_in_original_ids(self, checkpoints, model_type, tmp_path):
        folder, _ = checkpoints(model_type)
        reduced_model(folder, [1, 5]).save_pretrained(tmp_path)  # left: 0, 2, 3, 4
        twice = reduced_model(str(tmp_path), [1])  # of those the second
        assert surgery.original_layers(twice.config) == (N_LAYERS, [0, 3, 4])
        assert torch.equal(outputs(twice).logits, outputs(reduced_model(folder, [1, 2, 5])).logits)

    def test_the_head_does_not_depend_on_what_is_dropped(self, checkpoints, model_type, tmp_path):
        folder, full = checkpoints(model_type)
        full.base_model.save_pretrained(tmp_path)
        heads = []
        for dropped in ([], [5], [1, 2, 3]):
            set_seed(3)
            model, new = load_classifier(str(tmp_path), dropped)
            assert new
            heads.append([dict(model.named_parameters())[name] for name in new if "pooler" not in name])
        for other in heads[1:]:
            for a, b in zip(heads[0], other, strict=True):
                if model_type == "modernbert":  # its initialisation is scaled by the depth: the same draws all the same
                    a, b = (torch.nn.functional.normalize(x, dim=None) for x in (a, b))
                    torch.testing.assert_close(a, b)
                else:
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
    config = AutoConfig.for_model("gpt2")
    with pytest.raises(UserError, match="model type 'gpt2' is not in the table"):
        family_of(config)


@pytest.mark.parametrize("kind", ["shards", "bin", "bin shards", "fp16", "fp16 bin", "base model", "old bin"])
def test_every_kind_of_checkpoint(kind, tmp_path):
    """Only the weights' packaging differs; fp16 weights are read as fp32."""
    full = tiny.model("bert")
    if "fp16" in kind:
        full.half()
    expected = drop_layers(copy.deepcopy(full).float(), [0, 3])
    saved = full.base_model if kind == "base model" else full
    if "bin" not in kind:
        saved.save_pretrained(tmp_path, max_shard_size="20KB" if "shards" in kind else "1GB")
    else:
        saved.config.save_pretrained(tmp_path)
        state = saved.state_dict()
        if "shards" in kind:
            import json

            names = list(state)
            for number, part in enumerate((names[::2], names[1::2])):
                torch.save({name: state[name] for name in part}, tmp_path / f"part{number}.bin")
            index = {name: f"part{number % 2}.bin" for number, name in enumerate(names)}
            (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
        else:
            torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=kind != "old bin")
    assert not list(tmp_path.glob("model.safetensors")) or "shards" not in kind
    loaded = reduced_model(str(tmp_path), [0, 3])
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    states = [model.base_model(**tiny.batch())[0] for model in (loaded, expected)]
    assert torch.equal(*states)


def test_bin_with_code_is_refused(tmp_path):
    """A .bin that would run code on loading does not get to."""
    tiny.config("bert").save_pretrained(tmp_path)

    class Harm:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"x": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read safely"):
        reduced_model(str(tmp_path), [])


def test_missing_layer_weights_are_an_error(tmp_path):
    full = tiny.model("bert")
    state = {name: value for name, value in full.state_dict().items() if ".layer.4." not in name}
    full.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no .*encoder\.layer\.4.*Give a complete checkpoint"):
        reduced_model(str(tmp_path), [])
    assert reduced_model(str(tmp_path), [4]).config.num_hidden_layers == 5


def test_head_of_another_size_is_replaced(tmp_path):
    tiny.model("bert", num_labels=3).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    surgery.set_labels(config, ["no", "yes"])
    model, new = load_classifier(str(tmp_path), [], config)
    assert sorted(new) == ["classifier.bias", "classifier.weight"] and model.classifier.out_features == 2


def test_frozen_ids_are_those_of_the_checkpoint():
    assert surgery.positions("--freeze_layers", [0, 2, 3], (0, 3)) == [0, 2]
    with pytest.raises(UserError, match="--freeze_layers: layer 1 is not kept. Kept: 0, 2, 3"):
        surgery.positions("--freeze_layers", [0, 2, 3], (1,))


def test_only_the_kept_layers_are_read(bert, monkeypatch):
    """So that peak memory follows the kept size."""
    read = []

    class Spy:
        def __init__(self, name, tensor):
            self.name, self.tensor = name, tensor

        def __getitem__(self, part):
            read.append(self.name)
            return self.tensor[part]

        def __getattr__(self, attribute):
            return getattr(self.tensor, attribute)

    weights = surgery.open_weights(bert)
    monkeypatch.setattr(
        surgery, "open_weights", lambda *args: {name: Spy(name, value) for name, value in weights.items()}
    )
    reduced_model(bert, [1, 2, 5])
    layers = {int(name.split(".")[3]) for name in read if ".layer." in name}
    assert layers == {0, 3, 4} and len(read) == len(set(read))


def test_weights_of_another_size(bert, tmp_path):
    tiny.config("bert", hidden_size=32).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((Path(bert) / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="the weights do not fit config.json"):
        reduced_model(str(tmp_path), [])
