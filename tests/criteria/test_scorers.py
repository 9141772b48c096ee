import numpy as np
import pytest
import torch

from layerdrop.architectures import family_of
from layerdrop.criteria.states import score_states
from layerdrop.criteria.table import CRITERIA
from layerdrop.criteria.weights import aggregation, layer_weights, variance
from layerdrop.states import layer_states, sentence_tokens
from layerdrop.surgery import layer_list
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES


def of_states(name, encoder, batches):
    """The first row of a criterion that looks at states."""
    return score_states({name: CRITERIA[name].function()}, encoder, batches)[name][0]


def contribution(encoder, batches):
    return of_states("contribution", encoder, batches)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_contribution_is_the_cosine_at_the_sentence_token(model_type):
    encoder = tiny.model(model_type).base_model
    left = model_type == "xlnet"
    batches = [tiny.batch(4, left, seed=1), tiny.batch(3, left, seed=2)]
    scores = contribution(encoder, batches)
    expected = np.zeros(tiny.N_LAYERS)
    for batch in batches:
        for row in range(len(batch["input_ids"])):
            one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
            with torch.no_grad():
                states = encoder(**one, output_hidden_states=True).hidden_states
            last = family_of(encoder.config).sentence_token == -1
            position = int(one["attention_mask"][0].nonzero()[-1]) if last else 0
            vectors = [state[0, position].double().numpy() for state in states]
            for i in range(tiny.N_LAYERS):
                a, b = vectors[i], vectors[i + 1]
                expected[i] += a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 7
    checked = slice(0, 5) if model_type in tiny.FINAL_NORMS else slice(0, 6)
    np.testing.assert_allclose(scores[checked], expected[checked], atol=2e-6)
    assert len(scores) == tiny.N_LAYERS and all(-1 <= score <= 1 for score in scores)


def test_contribution_of_a_layer_that_does_nothing_is_one():
    encoder = tiny.model("xlnet").base_model
    encoder.layer[2].forward = lambda h, g, **kwargs: (h, g)
    scores = contribution(encoder, [tiny.batch(4, left=True)])
    assert scores[2] == pytest.approx(1.0) and max(s for i, s in enumerate(scores) if i != 2) < 0.999


def test_contribution_leaves_no_hook_behind():
    encoder = tiny.model("bert").base_model
    contribution(encoder, [tiny.batch()])
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layer_list(encoder))


def test_last_token_is_the_last_that_is_not_padding():
    mask = torch.tensor([[0, 1, 1], [1, 1, 0], [1, 1, 1]])
    assert sentence_tokens(tiny.model("xlnet"), mask).tolist() == [2, 1, 2]
    assert sentence_tokens(tiny.model("bert"), mask).tolist() == [0, 0, 0]


@pytest.mark.parametrize("scope", ["final", "layer"])
def test_weight_scores(scope):
    encoder = tiny.model("bert").base_model
    variances = variance(encoder, weight_scope=scope)
    magnitudes = aggregation(encoder, weight_scope=scope)
    for i, layer in enumerate(encoder.encoder.layer):
        matrices = {"final": [layer.output.dense.weight], "layer": [p for p in layer.parameters() if p.dim() == 2]}[
            scope
        ]
        weights = np.concatenate([m.detach().numpy().ravel() for m in matrices]).astype(np.float64)
        assert len(matrices) == {"final": 1, "layer": 6}[scope]
        assert variances[i] == pytest.approx(weights.var(), rel=1e-6)
        assert magnitudes[i] == pytest.approx(np.abs(weights).mean(), rel=1e-6)


def test_shared_layers_score_the_same():
    encoder = tiny.model("albert").base_model
    assert len(set(variance(encoder))) == 1 and len(variance(encoder)) == tiny.N_LAYERS


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_final_matrix_is_the_second_of_the_feed_forward_network(model_type):
    config = tiny.config(model_type)
    inner = config.d_inner if model_type == "xlnet" else config.hidden_dim if model_type == "distilbert" else 24
    weights = layer_weights(tiny.model(model_type).base_model, "final")
    hidden = 8 if model_type == "mobilebert" else 16
    assert [len(w) for w in weights] == [inner * hidden] * tiny.N_LAYERS


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_states_of_every_layer(model_type):
    """(batch, tokens, hidden) each, and those that the library itself reports."""
    encoder = tiny.model(model_type).base_model
    batch = tiny.batch(3, left=model_type == "xlnet") | {"labels": torch.zeros(3)}
    states = layer_states(encoder, batch)
    with torch.no_grad():
        expected = encoder(**tiny.batch(3, left=model_type == "xlnet"), output_hidden_states=True).hidden_states
    assert len(states.inputs) == len(states.outputs) == tiny.N_LAYERS
    n = tiny.N_LAYERS - (model_type in tiny.FINAL_NORMS)
    for i in range(n):
        torch.testing.assert_close(states.inputs[i], expected[i][:, :9])
        torch.testing.assert_close(states.outputs[i], expected[i + 1][:, :9])
    assert states.outputs[0].shape[:2] == batch["input_ids"].shape
