"""Graph capture: the forward and backward pass of a training step as a CUDA graph.

A step launches a thousand kernels. With a small batch, launching takes longer than computing. A CUDA graph is captured
once for each shape of a batch and launches all kernels at once. Kernels, inputs and random draws are the same.
Clipping and the optimizer follow as in an ordinary step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.training_args import ParallelMode

Batch = Mapping[str, torch.Tensor]
"""`labels` (batch,), the model's inputs (batch, tokens), and with a teacher its outputs; on the model's device."""
Step = Callable[[nn.Module, Batch], torch.Tensor]
"""Computes the loss of a batch, adds its gradients to `parameter.grad`, and returns the detached loss."""

MODEL_TYPES = (
    *("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "mpnet", "mobilebert", "deberta"),
    *("deberta-v2", "data2vec-text", "megatron-bert", "roberta-prelayernorm", "rembert", "roformer", "xlm-roberta-xl"),
    *("distilbert", "albert"),
)
"""Model types whose training step does not synchronize host and GPU, so that CUDA can capture the step."""
NOT_CAPTURABLE = (
    *("fp16", "gradient_checkpointing", "torch_compile", "torch_empty_cache_steps", "auto_find_batch_size"),
    *("deepspeed", "fsdp"),
)
"""Settings that need the host during a step, or that free GPU memory between steps."""


def can_capture(model: PreTrainedModel, args: TrainingArguments) -> bool:
    """Whether CUDA can capture the training steps of a model. Its layers must not change from step to step."""
    return (
        args.device.type == "cuda"
        and model.config.model_type in MODEL_TYPES
        and args.parallel_mode != ParallelMode.DISTRIBUTED  # DistributedDataParallel can also wrap a single process
        and args.gradient_accumulation_steps == 1
        and not any(getattr(args, name) for name in NOT_CAPTURABLE)
        and not ("lomo" in args.optim or "layerwise" in args.optim)  # these update parameters in the backward pass
    )


@dataclass(frozen=True)
class _Graph:
    batch: dict[str, torch.Tensor]
    """Input of the graph."""
    replay: Callable[[], None]
    loss: torch.Tensor
    """Loss that the graph writes. The graph also writes the gradients."""


class CapturedSteps:
    """Execute training steps as CUDA graphs.

    The first step of each shape is an ordinary step. The second step captures a graph, and all later steps replay it.
    The number of layers is part of the shape.
    """

    def __init__(self, step: Step):
        self.step = step
        self.graphs: dict[tuple, _Graph | None] = {}
        """Shape -> its graph; None between the first and the second step."""
        self.gradients: dict[nn.Parameter, torch.Tensor] = {}
        """Trained parameter -> output of the graphs."""
        self.pool = None
        """Memory pool of all graphs, which run one at a time."""

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the loss of a batch, a scalar, and set the gradients of the parameters.

        Clear gradients before the call.
        """
        tensors = ((name, tensor.shape, tensor.dtype) for name, tensor in sorted(batch.items()))
        shape = model.config.num_hidden_layers, *tensors
        if shape not in self.graphs:
            self.graphs[shape] = None
            return self._first(model, batch)
        graph = self.graphs[shape]
        if graph is None:
            graph = self.graphs[shape] = self._capture(model, batch)
        for name, tensor in batch.items():
            graph.batch[name].copy_(tensor, non_blocking=True)
        self._set_gradients(model)
        graph.replay()
        return graph.loss.clone()

    def release(self) -> None:
        """Free the graphs and their memory, also the gradients of the parameters."""
        for parameter in self.gradients:
            parameter.grad = None
        self.graphs.clear()
        self.gradients.clear()
        self.pool = None

    def _first(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        loss = self.step(model, batch)
        for parameter in model.parameters():
            if parameter.grad is not None and parameter not in self.gradients:
                self.gradients[parameter] = torch.empty_like(parameter)
        return loss

    def _capture(self, model: nn.Module, batch: Batch) -> _Graph:
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        self._set_gradients(model)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

        def step() -> torch.Tensor:
            torch._foreach_zero_(gradients)
            return self.step(model, inputs)

        replay, loss = self._graph(step)
        return _Graph(inputs, replay, loss)

    def _set_gradients(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.grad = self.gradients.get(parameter)

    def _graph(self, function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """Capture a function. Returns the graph's replay, and the tensor that each replay writes."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that load and pin batches also call CUDA. Their calls must not end the capture.
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
