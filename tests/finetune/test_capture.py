"""Recorded training steps: with a stand-in for CUDA's recording on the processor, with a GPU the real one."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from torch import nn
from transformers.training_args import OptimizerNames

from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.speedups.capture import MODEL_TYPES, NOT_CAPTURABLE, CapturedSteps, can_capture
from layerdrop.surgery import drop_layers
from tests import tiny
from tests.finetune.test_no_sync import OnDevice, arguments
from tests.running import same, weights
from tests.training import CLASSES


def loss_and_gradients(model: nn.Module, batch) -> torch.Tensor:
    loss = CLASSES(model, batch)
    loss.backward()
    return loss.detach()


class Replayed(CapturedSteps):
    """A replay executes the recorded function again: on the processor. `n` counts the recordings."""

    n = 0

    def _graph(self, function):
        self.n += 1
        result = function().clone()
        return lambda: result.copy_(function()), result


class OnCuda:
    """Settings as if on a GPU."""

    device = torch.device("cuda")

    def __init__(self, args):
        self.args = args

    def __getattr__(self, name):
        return getattr(self.args, name)


def batches(n: int) -> list[dict[str, torch.Tensor]]:
    """Of two shapes, with other tokens each."""
    found = []
    for i in range(n):
        torch.manual_seed(i)
        length = (9, 6)[i % 3 == 2]
        ids = torch.randint(5, 60, (4, length))
        mask = torch.ones_like(ids)
        mask[0, 4:] = 0
        found.append({"input_ids": ids * mask, "attention_mask": mask, "labels": torch.randint(0, 2, (4,))})
    return found


def trained(model: nn.Module, step, some, cut_at: int | None = None) -> list[float]:
    """Losses; the model learns."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1), []
    for i, batch in enumerate(some):
        if i == cut_at:
            drop_layers(model, [0])
        losses.append(float(step(model, batch)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("cut_at", [None, 7])
def test_recorded_steps_train_as_ordinary_ones(cut_at):
    some, plain, model = batches(12), *(without_dropout(tiny.model("mpnet")) for _ in range(2))
    for each in (plain, model):
        each.mpnet.encoder.layer[1].requires_grad_(False)
        each.unused = nn.Parameter(torch.ones(3))  # gets no gradient: weight decay must not move it
    expected = trained(plain, loss_and_gradients, some, cut_at)
    recorded = Replayed(loss_and_gradients)
    assert trained(model, recorded, some, cut_at) == expected
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert torch.equal(model.unused, torch.ones(3))
    assert recorded.n == (2 if cut_at is None else 4)


def test_a_loss_stays_as_it_was():
    recorded, model, some = Replayed(loss_and_gradients), tiny.model("bert"), batches(2)
    losses = [recorded(model, batch) for batch in (some[0], some[0], some[1])]
    assert losses[1] == losses[0] != losses[2]


def test_the_gradients_are_freed():
    recorded, model, (batch,) = Replayed(loss_and_gradients), tiny.model("bert"), batches(1)
    for _ in range(2):
        recorded(model, batch)
    assert any(parameter.grad is not None for parameter in model.parameters())
    recorded.release()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "flags",
    [
        "--drop_strategy top --drop_k 2",
        "--drop_strategy top --drop_k 2 --drop_when gradual --drop_every_epochs 3",
        "--drop_strategy top --drop_k 2 --teacher auto --distill layers",
        "--gradient_accumulation_steps 2",
        "--layerdrop_rate 0.3",
    ],
)
def test_a_run_with_recorded_steps(run, flags, tmp_path, monkeypatch):
    """The same bits as a run without; on the processor a replay executes the step again."""
    model = tiny.save(tmp_path / "still", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    words = f"--task_name rte --save_model True {flags}"
    assert run(words, model, output="ordinary")[0] == 0
    recordings = []

    class Counted(Replayed):
        def _graph(self, function):
            recordings.append(self)
            return super()._graph(function)

    monkeypatch.setattr("layerdrop.finetune.trainer.CapturedSteps", Counted)
    monkeypatch.setattr(
        "layerdrop.finetune.trainer.can_capture",
        lambda model, args: can_capture(model, OnCuda(args)),
    )
    assert run(words, model, output="recorded")[0] == 0
    assert bool(recordings) == ("accumulation" not in flags and "layerdrop" not in flags)
    assert same(weights("ordinary"), weights("recorded"))
    assert not any(each.graphs or each.gradients or each.pool for each in recordings)  # freed


@pytest.mark.parametrize("error", [RuntimeError("a copy from the host"), torch.OutOfMemoryError("no memory")])
def test_a_step_that_cannot_be_recorded(error, monkeypatch):
    def refused(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", refused)
    recorded, model, (batch,) = CapturedSteps(loss_and_gradients), tiny.model("bert"), batches(1)
    recorded(model, batch)
    with pytest.raises(type(error), match="--no_speedups" if type(error) is RuntimeError else "^no memory$"):
        recorded(model, batch)


def test_what_can_be_recorded(tmp_path):
    model, args = tiny.model("bert"), arguments(tmp_path, OnDevice)
    assert not can_capture(model, args)  # the device is another one
    args.device_name = "cuda"
    assert can_capture(model, args)
    assert not can_capture(tiny.model("longformer"), args)
    for name in NOT_CAPTURABLE:
        before = getattr(args, name)
        assert not before
        setattr(args, name, True)
        assert not can_capture(model, args)
        setattr(args, name, before)
    for optimizer in ("lomo", "galore_adamw_layerwise"):
        args.optim = OptimizerNames(optimizer)
        assert not can_capture(model, args)
    args.optim = OptimizerNames("adamw_torch_fused")
    assert can_capture(model, args)
    args.gradient_accumulation_steps = 2
    assert not can_capture(model, args)
    args.gradient_accumulation_steps = 1
    assert can_capture(model, args)
    args.distributed_state = SimpleNamespace(distributed_type=DistributedType.MULTI_GPU, num_processes=1)
    assert args.world_size == 1 and not can_capture(model, args)  # torchrun wraps a single process too


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_recordable_step_reads_no_value(model_type, tmp_path):
    model, args = tiny.model(model_type).train().to("meta"), arguments(tmp_path, OnDevice)
    batch = {name: tensor.to("meta") for name, tensor in batches(1)[0].items()}
    with speedups(model, args, train=True, used_ids=batches(1)[0]["input_ids"].numpy()):
        loss_and_gradients(model, batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_recorded_on_a_gpu(model_type, precision, tmp_path):
    if precision == "bf16" and model_type == "deberta":
        pytest.skip("fp32 alone")
    args, losses = arguments(tmp_path, OnDevice), {}
    args.device_name = "cuda"

    def step(model, batch):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = CLASSES(model, batch)
        loss.backward()
        return loss.detach()

    some = [{name: tensor.cuda() for name, tensor in batch.items()} for batch in batches(12)]
    for name, how in {"plain": step, "recorded": CapturedSteps(step)}.items():
        torch.manual_seed(0)
        model = tiny.model(model_type).train().cuda()
        with speedups(model, args, train=True, used_ids=torch.arange(60).numpy()):
            losses[name] = trained(model, how, some)
    assert losses["recorded"] == pytest.approx(losses["plain"], rel=2e-2 if precision == "bf16" else 1e-3)
