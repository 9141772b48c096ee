"""The model card of a run: README.md with the hub's metadata."""

from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from layerdrop.checkpoints import EMBEDDED
from layerdrop.data.tasks import TASKS, metric_prefix
from layerdrop.runs.command import command_of
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.results import CARD_FILE, CARD_MARK
from layerdrop.runs.spec import RunSpec

USE = """```python
from transformers import pipeline

classify = pipeline("text-classification", "THIS_FOLDER")
```"""
MOMENTS = {
    "finetuned": "after a first fine-tuning in full depth, before a second one",
    "after": "after fine-tuning in full depth, without a second one",
    "gradual": "one after the other while fine-tuning",
    "pretrained": "before fine-tuning",
}


def push_card(record: RunRecord, hub_model_id: str | None, token: str | None) -> None:
    """Upload the card to the model's repository on the hub. The Trainer has uploaded the model."""
    api = HfApi(token=token)
    repository = api.create_repo(hub_model_id or Path(record.folder).absolute().name, exist_ok=True).repo_id
    api.upload_file(path_or_fileobj=Path(record.folder) / CARD_FILE, path_in_repo=CARD_FILE, repo_id=repository)


def card(record: RunRecord, use: str = USE) -> ModelCard:
    """The model card of a successful run. use: text that says how to load the model."""
    return ModelCard(
        f"---\n{_metadata(record).to_yaml()}\n---\n{CARD_MARK}\n\n{_text(record, use)}", ignore_metadata_errors=True
    )


def _metadata(record: RunRecord) -> ModelCardData:
    spec, task = record.spec, record.spec.data.task
    glue = task in TASKS
    limited = {name: value for name in ("hold_out", "max_eval_samples") if (value := getattr(spec.data, name))}
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type="nyu-mll/glue" if glue else task,
            dataset_name=f"GLUE {task}" if glue else task,
            dataset_config=task if glue else None,
            dataset_split="train" if spec.data.hold_out else split,
            dataset_args=limited or None,
            metric_type=name,
            metric_value=value,
        )
        for split, name, value in _measured(record)
        if not name.endswith("loss") and value == value
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["layerdrop", "layer-dropping"],
        base_model=hub_name(spec.model.name),
        datasets=["nyu-mll/glue"] if glue else None,
        model_name=spec.name,
        eval_results=results or None,
    )


def hub_name(model: str) -> str | None:
    """The hub name of a checkpoint, or of the model of a run's folder. None for other local folders."""
    try:
        if not Path(model).expanduser().exists():
            validate_repo_id(model)
            return None if model in EMBEDDED else model
        record = read_record(model)
        return hub_name(record.spec.model.name) if record and record.spec.model.name != model else None
    except (ValueError, RecursionError):  # no hub name, no record, or two runs that name each other
        return None


def _measured(record: RunRecord) -> list[tuple[str, str, float]]:
    """(split, metric, value) in the order of the record. Metrics of MNLI's two splits have no prefix."""
    prefixes = {split: metric_prefix(split) for split in record.data if split.startswith("validation")}
    measured = []
    for name, value in record.metrics.items():
        split = next((split for split, prefix in prefixes.items() if name.startswith(prefix)), "validation")
        measured.append((split, name.removeprefix(prefixes.get(split, "")), value))
    return measured


def _measured_on(record: RunRecord) -> str:
    """A description of the rows that the scores were measured on."""
    data = record.spec.data
    first = f"the first {data.max_eval_samples:,} rows of " if data.max_eval_samples else ""
    if data.hold_out:
        return f"{first}{data.hold_out:.0%} of the training set, held out; the validation set was not read"
    return first + " and ".join(dict.fromkeys(split for split, _, _ in _measured(record)))


def _text(record: RunRecord, use: str) -> str:
    spec = record.spec
    before, after = record.parameters_before, record.parameters_after
    dropped = ", ".join(map(str, record.dropped)) or "none"
    lines = [
        f"# {spec.name}",
        f"`{_shown(spec.model.name)}` with {len(record.kept)} of {record.n_layers} layers, fine-tuned on "
        f"{spec.data.task}.",
        "## Layers",
        f"Dropped: {dropped} (ids from 0, next to the embeddings), by `{spec.drop.strategy or 'none'}`, "
        f"{MOMENTS[spec.drop_when]}. Parameters: {before:,} -> {after:,}." + _teacher(spec),
        "## Use",
        use,
        "## Scores",
        *_scores(record),
        "## Training",
        f"Seed {spec.seed}, {spec.precision}" + _cost(record) + ". The same run again:",
        f"```bash\n{command_of(spec)}\n```",
        "## Limits",
        "One run with one seed: other seeds give other scores. The model knows only the task that it was fine-tuned "
        f"on. The license and the limits of `{_shown(spec.model.name)}` apply to it too.",
    ]
    return "\n\n".join(lines) + "\n"


def _shown(model: str) -> str:
    """The hub name, else the folder's name without its path."""
    return hub_name(model) or Path(model.rstrip("/")).name


def _teacher(spec: RunSpec) -> str:
    if not spec.distil:
        return ""
    whom = f"`{_shown(spec.distil.teacher)}`" if spec.distil.teacher else "the full model, fine-tuned first"
    return f" It also learned from {whom} (`--distill {spec.distil.distill}`)."


def _scores(record: RunRecord) -> list[str]:
    if not record.metrics:
        return ["Not evaluated."]
    names = {"f1": f"f1 ({record.positive_label})"} if record.spec.data.files and record.positive_label else {}
    rows = [f"| {names.get(name, name)} | {value:.4f} |" for name, value in record.metrics.items()]
    note = f"As fractions, on {_measured_on(record)}."
    return ["\n".join(["| metric | value |", "|---|---|", *rows]), note]


def _cost(record: RunRecord) -> str:
    seconds = record.seconds.get("train")
    device = record.environment.get("device")
    return f", {seconds:.0f} s of training on {device}" if seconds and device else ""
