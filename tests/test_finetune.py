import pytest

from layerdrop.errors import UserError
from layerdrop.finetune import _result_name, freeze
from tests import tiny


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "xlnet"])
def test_freezing(model_type):
    model = tiny.model(model_type)
    freeze(model, (1, 3), embeddings=True)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert any("embedding" in name for name in frozen)
    in_layers = {int(name.split("layer.")[1].split(".")[0]) for name in frozen if "layer." in name}
    assert in_layers == {1, 3} and "classifier.weight" not in frozen


def test_nothing_is_frozen_unasked():
    model = tiny.model("bert")
    freeze(model, (), embeddings=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_shared_layers_cannot_be_frozen_alone():
    with pytest.raises(UserError, match="layers share their weights"):
        freeze(tiny.model("albert"), (1,), embeddings=False)


@pytest.mark.parametrize(
    ("logged", "name"),
    [("loss", "train_loss"), ("eval_loss", "loss"), ("eval_matched_accuracy", "matched_accuracy"), ("eval_runtime", ""),
     ("eval_samples_per_second", ""), ("learning_rate", ""), ("train_runtime", ""), ("epoch", "")],
)  # fmt: skip
def test_names_of_results(logged, name):
    assert _result_name(logged) == name
