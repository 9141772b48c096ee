"""The flags of run_glue.py: their dataclasses, old names, and every check that needs no model and no data."""

import json
import os
import re
import sys
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from layerdrop.checkpoints import HubOptions, is_local
from layerdrop.data import FILE_TYPES, OwnFiles
from layerdrop.errors import UserError
from layerdrop.runs import RunSpec
from layerdrop.scorers import SCORERS
from layerdrop.strategies import STRATEGIES, get_strategy
from layerdrop.tasks import DEMO_TASKS, TASKS, Task, get_task


def flag(help: str, default: Any = None, **metadata) -> Any:
    """A dataclass field with its --help text."""
    return field(default=default, metadata={"help": help.replace("%", "%%"), **metadata})


@dataclass
class ModelArguments:
    """Which checkpoint."""

    model_name_or_path: str = flag(
        "Folder or hub name of a pre-trained checkpoint; demo: the embedded miniature.", "bert-base-uncased"
    )
    tokenizer_name: str | None = flag("Folder or hub name of the tokenizer, if not that of the model.")
    model_revision: str = flag("Branch, tag or commit on the hub.", "main")
    cache_dir: str | None = flag("Where downloads from the hub are kept.")
    token: str | None = flag("Access token for private models on the hub.")
    trust_remote_code: bool = flag("Run code that comes with the checkpoint.", False)
    from_scratch: bool = flag(
        "Random weights instead of the pre-trained ones: the baseline that shows what pre-training is worth. "
        "Strategies still look at the pre-trained layers.",
        False,
    )

    @property
    def hub(self) -> HubOptions:
        """How to look checkpoints up."""
        return HubOptions(self.model_revision, self.cache_dir, self.token, self.trust_remote_code)


@dataclass
class DataArguments:
    """Which task, and where its examples are. Without --data_dir or files, GLUE comes from the hub."""

    task_name: str | None = flag(f"Task (mrpc if no files are given): {', '.join([*TASKS, *DEMO_TASKS])}.")
    data_dir: str | None = flag("Local GLUE folder in the classical layout (RTE/train.tsv, ...).")
    train_file: str | None = flag(f"Own training file: {', '.join(FILE_TYPES)}.")
    validation_file: str | None = flag("Own development file.")
    test_file: str | None = flag("Own test file, without labels.")
    text_columns: str | None = flag("Own files: the one or two text columns, separated by a comma.")
    label_column: str = flag("Own files: the label column.", "label")
    label_type: Literal["auto", "class", "number"] = flag("Own files: classification or regression.", "auto")
    skip_bad_rows: bool = flag("Leave malformed rows out and count them, instead of stopping at the first.", False)
    max_seq_length: int = flag("Tokens; longer inputs are cut.", 128)
    pad_to_max_length: bool = flag("Pad every batch to --max_seq_length instead of its longest example.", False)
    max_train_samples: int | None = flag("Use the first N training examples only.")
    max_eval_samples: int | None = flag("Use the first N development examples only.")
    max_predict_samples: int | None = flag("Use the first N test examples only.")

    @property
    def own_files(self) -> OwnFiles | None:
        """The user's own files, if any were given."""
        given = (("train", self.train_file), ("validation", self.validation_file), ("test", self.test_file))
        files = tuple((split, path) for split, path in given if path)
        texts = tuple(name.strip() for name in self.text_columns.split(",")) if self.text_columns else ()
        regression = {"auto": None, "class": False, "number": True}[self.label_type]
        return OwnFiles(files, texts, self.label_column, regression) if files else None

    @property
    def source(self) -> str:
        """Where the examples come from: the paths of own files, the GLUE folder, `demo` or `hub`."""
        if self.own_files:
            return ", ".join(path for _, path in self.own_files.files)
        return "demo" if self.task.name in DEMO_TASKS else self.data_dir or "hub"

    @property
    def task(self) -> Task | None:
        """The GLUE task; None where own files define one."""
        if self.task_name is None and self.own_files:
            return None
        return get_task(self.task_name or "mrpc")


@dataclass
class DropArguments:
    """Which layers to drop or freeze. Layer ids count from 0, next to the embeddings."""

    drop_strategy: str | None = flag(f"Which layers to drop: {', '.join(STRATEGIES)}.")
    drop_k: int | None = flag("K: how many layers to drop.")
    drop_threshold: float | None = flag("contribution: drop every layer whose similarity is above this, instead of K.")
    drop_layers: str | None = flag("Ids of the layers to drop, as 9,10,11.", aliases=["--remove_layers"])
    drop_order_file: str | None = flag("greedy, optimal: a search's result, one id a line, first to drop first.")
    weight_scope: Literal["final", "layer"] = flag(
        "variance, aggregation: the second feed-forward matrix, or all of the layer's matrices.", "final"
    )
    score_on: str | None = flag("Compute the scores on this checkpoint of the same architecture instead of the model.")
    score_split: Literal["train", "validation", "test"] = flag(
        "contribution: the split to average over (MNLI: matched).", "validation"
    )
    max_score_samples: int | None = flag("contribution: use the first N examples of that split only.")
    freeze_layers: str | None = flag("Ids of kept layers that fine-tuning leaves as they are, as 0,1,2.")
    freeze_embeddings: bool = flag("Leave the embeddings as they are.", False)
    dry_run: bool = flag("Print what would be dropped and kept, scores and parameters, and stop.", False)
    json: bool = flag("With --dry_run: print one JSON object.", False)


@dataclass
class TrainArguments(TrainingArguments):
    """The library's TrainingArguments with the papers' recipe as defaults: 3 epochs, batch 32, AdamW 2e-5, linear."""

    output_dir: str | None = flag("Folder of the run. Default: runs/MODEL_TASK_STRATEGY_kK_seedS.")
    per_device_train_batch_size: int = flag("Training batch size on each device.", 32)
    per_device_eval_batch_size: int = flag("Evaluation batch size on each device.", 32)
    learning_rate: float = flag("Peak learning rate.", 2e-5)
    eval_strategy: str = flag("When to evaluate while training: no, steps, epoch.", "epoch")
    logging_strategy: str = flag("When to log the training loss: no, steps, epoch.", "epoch")
    save_strategy: str = flag(
        "When to save a checkpoint to resume from: no, steps, epoch, best. If not given, each epoch's is removed "
        "once the run has succeeded.",
        "epoch",
    )
    save_total_limit: int | None = flag("How many checkpoints to keep.", 1)
    train_sampling_strategy: str = flag("group_by_length, random or sequential.", "group_by_length")
    remove_unused_columns: bool = flag("Without effect: batches hold what the model takes.", False)
    dataloader_pin_memory: bool = flag("Pin batches in memory for a GPU.", torch.cuda.is_available())
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto: bf16 where the hardware has it, else fp32.", "auto"
    )
    save_model: bool = flag("Keep the fine-tuned model in the run's folder.", True)
    overwrite_output_dir: bool = flag("Start again in a folder that holds a run, which is lost.", False)


@dataclass
class Arguments:
    """All flags of one run, checked."""

    model: ModelArguments
    data: DataArguments
    drop: DropArguments
    train: TrainArguments
    given: frozenset[str] = frozenset()
    """Names of the flags that were given, not left at their default."""
    notes: list[str] = field(default_factory=list)
    """What was translated from older flags."""

    @property
    def drop_layers(self) -> tuple[int, ...]:
        """The ids of --drop_layers."""
        return parse_ids("--drop_layers", self.drop.drop_layers)

    @property
    def freeze_layers(self) -> tuple[int, ...]:
        """The ids of --freeze_layers."""
        return parse_ids("--freeze_layers", self.drop.freeze_layers)

    @property
    def rolling_checkpoints(self) -> bool:
        """Whether checkpoints only serve to resume an interrupted run."""
        return "save_strategy" not in self.given and not self.train.load_best_model_at_end

    @property
    def splits(self) -> list[str]:
        """`train`, `validation`, `test`: what the job needs to read, and no more."""
        train, drop, data = self.train, self.drop, self.data
        needed = {"train": train.do_train, "validation": train.do_eval, "test": train.do_predict}
        if drop.dry_run:
            needed = dict.fromkeys(needed, False)
            if data.task is None:
                needed[data.own_files.files[0][0]] = True  # the files say how many classes there are
        row = get_strategy(drop.drop_strategy) if drop.drop_strategy else None
        if row and row.scorer and SCORERS[row.scorer].needs_data:
            needed[drop.score_split] = True
        return [split for split, wanted in needed.items() if wanted]

    def max_samples(self, split: str) -> int | None:
        """--max_train_samples, --max_eval_samples or --max_predict_samples for a split of that kind."""
        kinds = {"train": "max_train_samples", "validation": "max_eval_samples", "test": "max_predict_samples"}
        return getattr(self.data, kinds[split.partition("_")[0]])

    @property
    def needs_hub(self) -> bool:
        """Whether a model, tokenizer or data set is named that is no local folder."""
        names = (self.model.model_name_or_path, self.model.tokenizer_name, self.drop.score_on)
        hub_data = self.data.source == "hub" and bool(self.splits)
        return hub_data or self.train.push_to_hub or any(name and not is_local(name) for name in names)

    def spec(self, task: str, order: tuple[int, ...] = ()) -> RunSpec:
        """The identity of the run. task: its resolved name; order: of `greedy` or `optimal`."""
        model, data, drop, train = self.model, self.data, self.drop, self.train
        row = get_strategy(drop.drop_strategy) if drop.drop_strategy else None
        scorer = SCORERS[row.scorer] if row and row.scorer else None
        return RunSpec(
            model=model.model_name_or_path,
            task=task,
            data=data.source,
            strategy=drop.drop_strategy,
            k=len(self.drop_layers) if row and row.listed else drop.drop_k,
            threshold=drop.drop_threshold,
            layers=self.drop_layers,
            order=order,
            score_on=drop.score_on if scorer else None,
            score_split=drop.score_split if scorer and scorer.needs_data else None,
            score_samples=drop.max_score_samples if scorer and scorer.needs_data else None,
            weight_scope=drop.weight_scope if scorer and not scorer.needs_data else None,
            freeze_layers=self.freeze_layers,
            freeze_embeddings=drop.freeze_embeddings,
            seed=train.seed,
            max_seq_length=data.max_seq_length,
            pad_to_max_length=data.pad_to_max_length,
            precision=train.precision,
            max_train_samples=data.max_train_samples,
            max_eval_samples=data.max_eval_samples,
            revision=model.model_revision,
            processes=train.world_size * max(1, train.n_gpu),
            train=train.do_train,
            from_scratch=model.from_scratch,
            training=recipe(train) if train.do_train else {},
        )

    def default_output_dir(self) -> str:
        """runs/MODEL_TASK_STRATEGY_kK_seedS (`_scratch` before the seed where the weights are random)."""
        model, drop, own = self.model, self.drop, self.data.own_files
        task = self.data.task.name if self.data.task else own.name
        parts = [Path(model.model_name_or_path.rstrip("/")).name, task]
        if self.drop_layers:
            parts.append("list_" + "-".join(map(str, self.drop_layers)))
        elif drop.drop_strategy:
            how = f"k{drop.drop_k}" if drop.drop_threshold is None else f"t{drop.drop_threshold:g}"
            parts.append(f"{drop.drop_strategy}_{how}")
        else:
            parts.append("full_k0")
        parts += ["scratch"] * model.from_scratch + [f"seed{self.train.seed}"]
        return os.path.join("runs", "_".join(parts) + ("" if self.train.do_train else "_eval"))


# ---- what changes the result, of the library's settings -------------------------------------------------------------
RECIPE = (
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "train_sampling_strategy",
)
"""Always part of a run's identity."""
NO_EFFECT = (
    "auto_find_batch_size bf16 bf16_full_eval debug disable_tqdm do_eval do_predict do_train fp16 "
    "fp16_full_eval full_determinism gradient_checkpointing activation_checkpointing "
    "half_precision_backend ignore_data_skip json include_for_metrics include_num_input_tokens_seen "
    "local_rank output_dir overwrite_output_dir per_device_eval_batch_size precision prediction_loss_only "
    "project remove_unused_columns report_to restore_callback_states_from_checkpoint "
    "resume_from_checkpoint run_name seed skip_memory_metrics torch_empty_cache_steps use_cache use_cpu "
    "label_names batch_eval_metrics length_column_name enable_jit_checkpoint"
).split()
NO_EFFECT_PREFIX = (
    "dataloader_",
    "ddp_",
    "eval_",
    "hub_",
    "log_",
    "logging_",
    "push_to_",
    "save_",
    "trackio_",
    "torch_compile",
)


def recipe(train: TrainArguments) -> dict[str, Any]:
    """The settings that change the result: RECIPE, and every other one that is not at its default."""
    values = train.to_dict()
    defaults = TrainArguments(output_dir=train.output_dir, use_cpu=train.use_cpu, report_to=[]).to_dict()

    def matters(name: str) -> bool:
        if name in RECIPE or name == "dataloader_drop_last":
            return True
        ignored = name in NO_EFFECT or name.startswith(NO_EFFECT_PREFIX)
        if ignored and not (train.load_best_model_at_end and name.startswith(("eval_", "save_st"))):
            return False
        return values[name] != defaults.get(name)

    return {name: values[name] for name in sorted(values) if matters(name)}


# ---- older names ----------------------------------------------------------------------------------------------------
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",
    "use_auth_token": "token",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "num_epochs": "num_train_epochs",
}
WITHOUT_EFFECT = {
    "model_type": "the checkpoint's configuration says it",
    "do_lower_case": "the checkpoint's tokenizer says it",
    "overwrite_cache": "nothing is cached",
    "group_by_length": "it is the default; --train_sampling_strategy random turns it off",
    "save_safetensors": "checkpoints are always safetensors",
    "use_fast_tokenizer": "the library chooses the tokenizer",
    "fp16_opt_level": "use --precision",
    "fp16_backend": "use --precision",
    "half_precision_backend": "use --precision",
    "logging_dir": "the logging integration's own environment variable says it",
    "evaluate_during_training": "it is the default; --eval_strategy no turns it off",
    "eval_all_checkpoints": "every epoch is evaluated; --eval_strategy no turns it off",
    "server_ip": "attach a debugger with the debugger's own means",
    "server_port": "attach a debugger with the debugger's own means",
    "config_name": "the configuration is the checkpoint's",
    "ignore_mismatched_sizes": "a head of another size is always replaced",
}


def translate(argv: list[str], notes: list[str]) -> list[str]:
    """Older flags under their present names; what was done is appended to `notes`."""
    out: list[str] = []
    i = 0
    while i < len(argv):
        word, equals, value = argv[i].partition("=")
        name = word[2:].replace("-", "_") if word.startswith("--") else ""
        has_value = i + 1 < len(argv) and not argv[i + 1].startswith("--")
        if name in RENAMED:
            notes.append(f"--{name} is now --{RENAMED[name]}")
            out.append(f"--{RENAMED[name]}{equals}{value}")
        elif name in WITHOUT_EFFECT:
            notes.append(f"--{name} has no effect: {WITHOUT_EFFECT[name]}")
            i += has_value and not equals
        elif name == "resume_from_checkpoint" and not equals and not has_value:
            out += [word, "True"]
        else:
            out.append(argv[i])
        i += 1
    return out


# ---- parsing --------------------------------------------------------------------------------------------------------
DICTIONARIES = TrainingArguments._VALID_DICT_FIELDS
GROUPS = (ModelArguments, DataArguments, DropArguments, TrainArguments)


class Parser(HfArgumentParser):
    """The library's parser; what is wrong becomes one UserError instead of a page of usage."""

    def __init__(self):
        super().__init__(
            GROUPS,
            allow_abbrev=False,
            usage="run_glue.py [CONFIG.yaml] [--flag value ...]",
            description="Drop layers of a pre-trained encoder, fine-tune it on a GLUE task, record what that did.",
        )
        for action in self._actions:
            if action.type is string_to_bool and action.nargs is None:  # `bool | None`: --disable_tqdm alone means yes
                action.nargs, action.const = "?", True

    def error(self, message: str):
        """Raise UserError with argparse's message, put in our order: flag, value received, what is allowed."""
        message = re.sub(r"^argument (--\w+)(/--[\w-]+)*", r"\1", message)
        message = message.replace("invalid int value:", "not a whole number:").replace(
            "invalid float value:", "not a number:"
        )
        raise UserError(f"{message.rstrip('.')}. See run_glue.py --help.")


class _Loader(yaml.SafeLoader):
    """YAML whose mappings may not say a key twice."""

    def construct_mapping(self, node, deep=False):
        """The mapping; a repeated key is an error."""
        seen = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for i, key in enumerate(seen) if key in seen[:i]]:
            raise yaml.constructor.ConstructorError(
                problem=f"'{twice[0]}' is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_settings(path: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises UserError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        settings = json.loads(text) if path.endswith(".json") else yaml.load(text, _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration ({error.strerror}). Check the path.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML or JSON ({' '.join(str(error).split())}).") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: a configuration is a list of `flag: value` lines.")
    return settings


def flags_of(settings: dict[str, Any]) -> list[str]:
    """Settings by the names of flags, as the words of a command line; those that are None are left out."""
    if nested := [name for name, value in settings.items() if isinstance(value, dict) and name not in DICTIONARIES]:
        raise UserError(f"'{nested[0]}' holds settings of its own. Write every flag on a line of its own.")
    words = []
    for name, value in settings.items():
        if value is None:
            continue
        words.append(f"--{name}")
        if isinstance(value, list) and name in _list_flags():
            words += map(str, value)
        elif isinstance(value, list):
            words.append(",".join(map(str, value)))
        else:
            words.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return words


@cache
def _list_flags() -> set[str]:
    """The flags that take several words."""
    hints = get_type_hints(TrainArguments)
    return {f.name for f in fields(TrainArguments) if get_origin(hints[f.name]) is list}


@cache
def _parser() -> Parser:
    return Parser()


def parse(argv: list[str]) -> Arguments:
    """Flags (after an optional YAML or JSON file, which they override) -> checked Arguments.

    Raises UserError; everything that is wrong is in its message, one line each.
    """
    notes: list[str] = []
    if argv and argv[0].endswith((".yaml", ".yml", ".json")) and not argv[0].startswith("-"):
        argv = flags_of(read_settings(argv[0])) + argv[1:]
    argv = translate(argv, notes)
    parser = _parser()
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UserError(
            "\n".join(_unknown_word(word, parser) for word in unknown if word.startswith("-"))
            or f"'{unknown[0]}' belongs to no flag. A configuration file comes first: run_glue.py X.yaml --flag value."
        )
    given = frozenset(word.partition("=")[0][2:].replace("-", "_") for word in argv if word.startswith("--"))
    if not {"do_train", "do_eval", "do_predict"} & given:
        namespace.do_train = namespace.do_eval = True
    if not namespace.do_eval or not namespace.do_train:
        namespace.eval_strategy = "no"  # the library would turn do_eval on
    if "disable_tqdm" not in given:
        namespace.disable_tqdm = not sys.stderr.isatty()
    _choose_precision(namespace)
    wanted_output_dir = namespace.output_dir
    try:
        groups = [kind(**{f.name: getattr(namespace, f.name) for f in fields(kind) if f.init}) for kind in GROUPS]
    except (ValueError, ImportError, RuntimeError) as error:
        raise UserError(" ".join(str(error).split())) from None
    arguments = Arguments(*groups, given=given, notes=notes)
    check(arguments)
    if wanted_output_dir is None:
        arguments.train.output_dir = arguments.default_output_dir()
    return arguments


def _unknown_word(word: str, parser: Parser) -> str:
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    name = word.partition("=")[0]
    near = get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, n=1)
    return f"{name}: no such flag." + (f" Did you mean {near[0]}?" if near else "") + " All flags: run_glue.py --help."


def _choose_precision(namespace) -> None:
    """Settle `auto`, and make the library's own flags say the same."""
    if namespace.bf16 or namespace.fp16:
        asked = "bf16" if namespace.bf16 else "fp16"
        if namespace.precision not in ("auto", asked):
            raise UserError(f"--precision {namespace.precision} and --{asked} contradict each other. Give one of them.")
        namespace.precision = asked
    gpu = torch.cuda.is_available() and not namespace.use_cpu
    if namespace.precision == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else cpu_has_bf16()
        namespace.precision = "bf16" if fast else "fp32"
    namespace.bf16, namespace.fp16 = namespace.precision == "bf16", namespace.precision == "fp16"
    if namespace.fp16 and not gpu:
        raise UserError("--precision fp16: needs a GPU. Allowed on this machine: auto, fp32, bf16.")
    if not torch.accelerator.is_available():
        namespace.use_cpu = True  # the library needs to be told, for bf16 and for several processes


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def parse_ids(flag_name: str, text: str | None) -> tuple[int, ...]:
    """`9,10,11` -> (9, 10, 11). Raises UserError."""
    if text is None or not str(text).strip():
        return ()
    words = str(text).replace(" ", ",").strip("[]").split(",")
    try:
        return tuple(int(word) for word in words if word)
    except ValueError:
        raise UserError(f"{flag_name} '{text}': not a list of layer ids. Write them as 9,10,11.") from None


# ---- checks ---------------------------------------------------------------------------------------------------------
def check(arguments: Arguments) -> None:
    """Raise one UserError that names everything that is wrong with the flags, one line each."""
    problems = []
    for one in (_check_drop, _check_data, _check_train):
        try:
            problems += one(arguments)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


def _check_drop(arguments: Arguments) -> list[str]:
    drop, wrong = arguments.drop, []
    if arguments.drop_layers:
        if drop.drop_strategy not in (None, "list"):
            return [f"--drop_layers and --drop_strategy {drop.drop_strategy} both choose layers. Give one of them."]
        drop.drop_strategy = "list"
    if drop.drop_strategy is None:
        for name in ("drop_k", "drop_threshold", "drop_order_file", "score_on"):
            if getattr(drop, name) not in (None, 0):
                wrong.append(f"--{name} needs a strategy. Choose --drop_strategy: {', '.join(STRATEGIES)}.")
        return wrong + _check_freeze(arguments)
    row = get_strategy(drop.drop_strategy)
    if row.listed:
        if not arguments.drop_layers:
            wrong.append("--drop_strategy list: needs the ids. Add --drop_layers 9,10,11.")
        if drop.drop_k not in (None, len(arguments.drop_layers)):
            wrong.append(
                f"--drop_k {drop.drop_k}: --drop_layers names {len(arguments.drop_layers)} layers. Leave --drop_k out."
            )
    elif drop.drop_k is None and drop.drop_threshold is None:
        also = " or --drop_threshold X" if row.threshold else ""
        wrong.append(f"--drop_strategy {row.name}: how many layers? Add --drop_k N{also}.")
    if drop.drop_k is not None and drop.drop_k < 0:
        wrong.append(f"--drop_k {drop.drop_k}: a number of layers. Choose 0 or more.")
    if drop.drop_threshold is not None:
        if not row.threshold:
            wrong.append(f"--drop_threshold: only for --drop_strategy contribution, not {row.name}. Use --drop_k.")
        elif drop.drop_k is not None:
            wrong.append("--drop_k and --drop_threshold both say how many layers. Give one of them.")
        elif not -1 <= drop.drop_threshold <= 1:
            wrong.append(
                f"--drop_threshold {drop.drop_threshold}: a cosine similarity. Choose -1 to 1 "
                "(the paper's: 0.95, 0.925, 0.9)."
            )
    if drop.drop_order_file and not row.order:
        wrong.append(f"--drop_order_file: only for greedy and optimal, not {row.name}. Leave it out.")
    if drop.score_on and not row.scorer:
        wrong.append(f"--score_on: {row.name} has no scores. It goes with {', '.join(SCORERS)}.")
    return wrong + _check_freeze(arguments)


def _check_freeze(arguments: Arguments) -> list[str]:
    return [f"--freeze_layers: {i} is no layer id. Ids count from 0." for i in arguments.freeze_layers if i < 0]


def _check_data(arguments: Arguments) -> list[str]:
    data, wrong = arguments.data, []
    own = data.own_files
    try:
        data.task  # noqa: B018  raises for an unknown name
    except UserError as error:
        wrong.append(str(error))
    if own and data.data_dir:
        wrong.append("--data_dir and --train_file/--validation_file/--test_file both say where the data is. Give one.")
    if own:
        for split in arguments.splits:
            if split not in dict(own.files):
                steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
                wrong.append(
                    f"--{split}_file is missing: {steps[split]} or --score_split {split} needs it "
                    "(without any --do_* flag, training and evaluation are on)."
                )
    for name, least in (
        ("max_seq_length", 2),
        ("max_train_samples", 1),
        ("max_eval_samples", 1),
        ("max_predict_samples", 1),
    ):
        value = getattr(data, name)
        if value is not None and value < least:
            wrong.append(f"--{name} {value}: must be {least} or more.")
    return wrong


def _check_train(arguments: Arguments) -> list[str]:
    train, wrong = arguments.train, []
    if not (train.do_train or train.do_eval or train.do_predict or arguments.drop.dry_run):
        wrong.append("nothing to do: --do_train, --do_eval and --do_predict are all off. Turn one on.")
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(train, name) < 1:
            wrong.append(f"--{name} {getattr(train, name)}: must be 1 or more.")
    if not 0 <= train.learning_rate < float("inf"):
        wrong.append(f"--learning_rate {train.learning_rate}: must be a number that is not negative.")
    for name in ("seed", "data_seed"):
        if not 0 <= (getattr(train, name) or 0) < 2**32:
            wrong.append(f"--{name} {getattr(train, name)}: must be from 0 to {2**32 - 1}.")
    best = train.metric_for_best_model
    task = arguments.data.task if best else None
    if task and not any(best.endswith(name) for name in ("loss", *task.metrics)):
        wrong.append(f"--metric_for_best_model {best}: {task.name} has {', '.join(('loss', *task.metrics))}.")
    if train.num_train_epochs <= 0 and train.max_steps <= 0:
        wrong.append(f"--num_train_epochs {train.num_train_epochs}: must be above 0. To evaluate alone use --do_eval.")
    name = arguments.model.model_name_or_path
    if train.output_dir and os.path.isdir(name) and os.path.realpath(name) == os.path.realpath(train.output_dir):
        wrong.append(f"--output_dir {train.output_dir}: is the checkpoint's own folder. Choose another --output_dir.")
    if train.resume_from_checkpoint and train.overwrite_output_dir:
        wrong.append("--resume_from_checkpoint and --overwrite_output_dir contradict each other. Give one of them.")
    if arguments.drop.json and not arguments.drop.dry_run:
        wrong.append("--json goes with --dry_run; a run's own JSON is record.json in its folder.")
    return wrong
