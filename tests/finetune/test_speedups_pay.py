"""Savings of each speed-up as counts: random numbers, operations, values read, bytes, executions of a step.

The tests that they are undone: test_speedups.py, and for graph capture test_capture.py.
"""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from layerdrop.finetune import speedups
from layerdrop.finetune.speedups.dropout import cheap_dropout
from layerdrop.finetune.speedups.first_token import MODEL_TYPES, first_token_only
from layerdrop.finetune.speedups.no_sync import no_sync
from layerdrop.finetune.speedups.vocabulary import used_rows
from tests import tiny
from tests.finetune.test_capture import Replayed, batches, loss_and_gradients
from tests.finetune.test_no_sync import arguments, batch_on

ROWS, TOKENS = tiny.batch()["input_ids"].shape
HIDDEN, INNER, HEADS = (tiny.SIZES[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads"))


class Counter(TorchDispatchMode):
    """Counts random numbers, and tensors whose value Python reads."""

    def __init__(self):
        super().__init__()
        self.drawn = self.read = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        if name in ("native_dropout", "bernoulli", "bernoulli_", "random_"):
            self.drawn += (result[0] if isinstance(result, tuple) else result).numel()
        self.read += name == "_local_scalar_dense"
        return result


def test_every_speed_up_has_a_test_here():
    modules = {path.stem for path in Path(speedups.__file__).parent.glob("*.py")} - {"__init__"}
    assert {f"test_{name}_pays" for name in modules} <= set(globals())


def test_dropout_pays():
    """One random number for four elements, also of the attention weights."""
    model, states = tiny.model("bert").train(), ROWS * TOKENS * HIDDEN
    elements = [states, *[ROWS * HEADS * TOKENS**2, states, states] * tiny.N_LAYERS, ROWS * HIDDEN]
    with Counter() as without:
        model(**tiny.batch())
    with cheap_dropout(model), Counter() as inside:
        model(**tiny.batch())
    assert without.drawn == sum(elements) and inside.drawn == sum((n + 3) // 4 for n in elements)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_first_token_pays(model_type):
    """The last layer's queries, outputs and feed-forward matrices at the first token only."""
    model = tiny.model(model_type)

    def operations() -> int:
        with FlopCounterMode(display=False) as counter:
            model(**tiny.batch())
        return counter.get_total_flops()

    without = operations()
    with first_token_only(model):
        inside = operations()
    tokens, matrices = ROWS * (TOKENS - 1), 2 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER
    assert without - inside >= 2 * tokens * matrices


def test_no_sync_pays(tmp_path):
    """A forward pass reads no value."""
    model = tiny.model("bert").train()
    with Counter() as without:
        model(**tiny.batch())
    with no_sync(model, arguments(tmp_path)), Counter() as inside:
        model(**tiny.batch())
    assert without.read > 0 and inside.read == 0


def test_vocabulary_pays():
    """Gradients and the two moments of AdamW have no rows for unused ids."""
    model, batch = tiny.model("bert").train(), batch_on("cpu")
    used = len(batch["input_ids"].unique())  # with padding
    assert 0 in batch["input_ids"]

    def size() -> int:
        optimizer = torch.optim.AdamW(model.parameters())
        model(**batch).loss.backward()
        optimizer.step()
        moments = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
        return sum(tensor.nbytes for tensor in [*moments, *(parameter.grad for parameter in model.parameters())])

    without = size()
    with used_rows(model, batch["input_ids"].numpy()):
        inside = size()
    assert without - inside == 3 * 4 * (len(tiny.VOCABULARY) - used) * HIDDEN


def test_capture_pays():
    """Python executes a step twice for each of two shapes. All other steps are replays."""
    executed, replays = [], []

    class Counted(Replayed):
        def _graph(self, function):
            result = function()
            return lambda: replays.append(result), result

    def step(model, batch):
        executed.append(batch)
        return loss_and_gradients(model, batch)

    captured, model = Counted(step), tiny.model("bert")
    for batch in batches(12):
        captured(model, batch)
    assert len(executed) == 4 and len(replays) == 10
