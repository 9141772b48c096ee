#!/usr/bin/env python
"""Whether a run would work on a GPU, and where it would wait for it, without a GPU.

    python benchmarks/waits.py run_glue.py configs/demo.yaml --precision fp32 --dataloader_pin_memory True \\
        --max_train_samples 320 --max_eval_samples 40 --output_dir /tmp/waits --overwrite_output_dir
    python benchmarks/waits.py benchmarks/stock.py --model_name_or_path CHECKPOINT --data_dir GLUE --task_name rte

Runs the script on a second device whose memory is the host's: tensors of the two do not mix, as on a GPU. Prints each
place where the host waits for the device in a training step (not at the end of an epoch, where results are read), and
how often. Batches count as pinned where they are to be pinned. Measures no seconds, in fp32 alone. Needs a C++ compiler
and `pip install ninja`; compiles for half a minute the first time.
"""

import os
import runpy
import sys
import traceback
import types
from collections import Counter
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

HERE = Path(__file__).resolve().parent
DEVICE = "second"


def make_device() -> types.ModuleType:
    """Let PyTorch have the device; returns the extension."""
    torch.utils.rename_privateuse1_backend(DEVICE)
    extension = load("second_device", [str(HERE / "second_device.cpp")], extra_cflags=["-O1"])
    module = types.ModuleType(f"torch.{DEVICE}")
    module.is_available = module.is_initialized = lambda: True
    module.current_device = lambda: 0
    module.device_count = lambda: 1
    module._is_in_bad_fork = lambda: False
    module.manual_seed = module.manual_seed_all = module.set_device = module.synchronize = lambda *_: None
    module.get_rng_state = lambda *_: torch.get_rng_state()
    module.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    torch._register_device_module(DEVICE, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return extension


def main(script: str, words: list[str]) -> None:
    """Do the run and print."""
    extension = make_device()
    from transformers import TrainerCallback, trainer

    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{DEVICE}:0"
    places: Counter[str] = Counter()
    steps, training = 0, False

    class Steps(TrainerCallback):
        def on_epoch_begin(self, *args, **kwargs):
            nonlocal training
            training = True

        def on_step_end(self, *args, **kwargs):
            nonlocal steps
            steps += 1

        def on_epoch_end(self, *args, **kwargs):
            nonlocal training
            training = False

    def listen(what: str) -> None:
        if training:
            place = next(frame for frame in reversed(traceback.extract_stack()[:-1]) if "/torch/" not in frame.filename)
            places[f"{what}: {Path(place.filename).name}, line {place.lineno}, {place.name}"] += 1

    trainer.DEFAULT_CALLBACKS.append(Steps)
    extension.listen(listen)
    sys.path.insert(0, str(Path(script).resolve().parent))
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        extension.listen(None)
        print(f"{steps} steps, {sum(places.values())} waits")
        for place, times in places.most_common():
            print(f"{times / max(1, steps):6.2f} a step  {place}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
