"""The forward and backward pass of a training step as a CUDA graph.

A step launches a thousand kernels, and a small batch occupies the GPU for less time than the launches take. A CUDA
graph is recorded once for each shape of a batch, and launches all of its kernels at once. They are the same kernels on
the same numbers, with the same random draws; clipping and the optimizer follow as before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.training_args import ParallelMode

from layerdrop.architectures import family_of

Batch = Mapping[str, torch.Tensor]
"""`labels` (batch,), the model's inputs (batch, tokens), perhaps a teacher's outputs; on the model's device."""
Step = Callable[[nn.Module, Batch], torch.Tensor]
"""Computes the loss of a batch, adds its gradients to the parameters' and returns the loss, detached."""


OTHER_STEPS = ("fp16", "gradient_checkpointing", "torch_compile", "torch_empty_cache_steps", "auto_find_batch_size")
OTHER_STEPS += ("deepspeed", "fsdp")
"""Settings with which the host takes part in the passes, or the memory of other batches is needed again."""


def can_capture(model: PreTrainedModel, args: TrainingArguments) -> bool:
    """Whether CUDA can capture the training step of a model whose layers stay the same from step to step."""
    return (
        args.device.type == "cuda"
        and model.config.model_type in family_of(model.config).capturable
        and args.parallel_mode != ParallelMode.DISTRIBUTED  # a single process can be wrapped too
        and args.gradient_accumulation_steps == 1
        and not any(getattr(args, name) for name in OTHER_STEPS)
        and not ("lomo" in args.optim or "layerwise" in args.optim)  # these update parameters in the backward pass
    )


@dataclass(frozen=True)
class _Recorded:
    batch: dict[str, torch.Tensor]
    """What the graph reads."""
    replay: Callable[[], None]
    loss: torch.Tensor
    """What it writes, beside the gradients."""


class CapturedSteps:
    """Executes training steps. The first one of each shape is an ordinary step; the second one is recorded, and all
    later ones are replayed. A model that has lost layers counts as another shape."""

    def __init__(self, step: Step):
        self.step = step
        self.recorded: dict[tuple, _Recorded | None] = {}
        """Shape -> None after its first step."""
        self.gradients: dict[nn.Parameter, torch.Tensor] = {}
        """Of the parameters that take part: where the graphs write them."""
        self.pool = None
        """Memory that the graphs share: one runs at a time."""

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar. The parameters have no gradients before, and those of the batch afterwards."""
        tensors = ((name, tensor.shape, tensor.dtype) for name, tensor in sorted(batch.items()))
        shape = model.config.num_hidden_layers, *tensors
        if shape not in self.recorded:
            self.recorded[shape] = None
            return self._first(model, batch)
        recorded = self.recorded[shape]
        if recorded is None:
            recorded = self.recorded[shape] = self._record(model, batch)
        for name, tensor in batch.items():
            recorded.batch[name].copy_(tensor, non_blocking=True)
        self._show_gradients(model)
        recorded.replay()
        return recorded.loss.clone()

    def _first(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        loss = self.step(model, batch)
        for parameter in model.parameters():
            if parameter.grad is not None and parameter not in self.gradients:
                self.gradients[parameter] = torch.empty_like(parameter)
        return loss

    def _record(self, model: nn.Module, batch: Batch) -> _Recorded:
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        self._show_gradients(model)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

        def step() -> torch.Tensor:
            torch._foreach_zero_(gradients)
            return self.step(model, inputs)

        replay, loss = self._graph(step)
        return _Recorded(inputs, replay, loss)

    def _show_gradients(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.grad = self.gradients.get(parameter)

    def _graph(self, function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """Record a function. Its replay writes into the tensor that is returned."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that load and pin batches call CUDA meanwhile: this must not end the recording.
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                result = function()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RuntimeError(
                f"CUDA cannot capture this model's training step ({error}). Add --no_speedups."
            ) from error
        self.pool = self.pool or graph.pool()
        return graph.replay, result
