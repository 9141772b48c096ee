"""The model card of a run: README.md with the hub's metadata."""

import os
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from jinja2 import Template

from layerdrop.checkpoints import EMBEDDED
from layerdrop.data.read import note_on_texts
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS, metric_prefix
from layerdrop.runs.command import command_of
from layerdrop.runs.record import CHOICE_OF_K, RunRecord, read_record
from layerdrop.runs.results import CARD_FILE, CARD_MARK
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.summary import constant_words
from layerdrop.system.text import markdown, one_line

USE = """```python
from transformers import pipeline

classify = pipeline({arguments})
print(classify({texts}))
```"""
TEXTS = ('"A first text."', '"A second text."')
LIMITS = ("validation_share", "hold_out", "max_eval_samples")
"""Settings that select the rows of the evaluation."""
MOST_CLASSES, LOWEST = 20, 5
"""Number of classes whose F1 a card shows; with more classes, it shows the lowest ones."""
MOMENTS = {
    "finetuned": "after fine-tuning the full model, before a second fine-tuning",
    "after": "after fine-tuning the full model, without a second fine-tuning",
    "gradual": "one by one during fine-tuning",
    "elastic": "after one fine-tuning of the full model and shallower models",
    "pretrained": "before fine-tuning",
}
TEXT = Template("""
# {{ title }}

`{{ base }}` with {{ record.kept | length }} of {{ record.n_layers }} layers, fine-tuned on {{ task }}.

## Layers

{%- if record.dropped_before %}
The starting checkpoint already lacks layer{{ "s" if record.dropped_before | length > 1 }}
{#- #} {{ record.dropped_before | join(", ") }} of the original model, which has
{{ record.n_layers }} layers.
{% endif %}
{%- if spec.drop.strategy or dropped %}
Dropped{% if record.dropped_before %} by this run{% endif %}: {{ dropped | join(", ") or "none" }}
{#- #} (ids count from 0, next to the embeddings), by `{{ strategy }}`,
{{ moment }}.
{%- else %}
{{ "This run drops no further layer" if record.dropped_before else "Dropped: none" }}.
{%- if spec.start %} Training variant: `--drop_when {{ spec.drop_when }}`.{% endif %}
{%- endif %}
Parameters: {{ "{:,}".format(record.parameters_before) }}
{%- if record.parameters_after != record.parameters_before %} -> {{ "{:,}".format(record.parameters_after) }}
{%- endif %}.
{%- if spec.distil %}
Distilled from {{ teacher }} (`--distill {{ spec.distil.distill }}`).
{%- endif %}

## Use

{{ use }}

## Scores
{% if record.metrics %}
| metric | value |
|---|---|
{%- for name, value in metrics.items() %}
| {{ name }} | {{ "%.4f" % value }} |
{%- endfor %}

The values are fractions, measured on {{ rows }}.
{%- if n_rows %}
Rows: {{ n_rows | join(", ") }}.
{%- endif %}
{%- if chosen %}
`layerdrop choose-k` selected K on half of these rows, so these scores are too high on average.
{%- endif %}
{%- if overlap %}
{{ overlap }}.
{%- endif %}
{%- if record.label_threshold %}
A label is predicted if its probability is above {{ record.label_threshold }}.
{%- endif %}
{%- for words in constant %}

**Warning:** the model gives {{ words }}.
{%- endfor %}
{%- for split, classes, lowest in by_class %}

F1 of {{ "the %d lowest of %d classes" | format(classes | length, lowest) if lowest else "each class" }} on {{ split }}:

| class | F1 |
|---|---|
{%- for name, value in classes.items() %}
| {{ name }} | {{ "%.4f" % value }} |
{%- endfor %}
{%- endfor %}
{%- else %}
Not evaluated.
{%- endif %}

## Training

Seed {{ spec.seed }}, {{ spec.precision }}
{%- if seconds %}, {{ "%.0f" % seconds }} s of training{{ " on " ~ device if device }}{% endif %}. To repeat the run
{%- if local %} in the folder where it was started{% endif %}:

```bash
{{ command }}
```

## Limits

One run with one seed: other seeds give other scores. The model solves only the task that it was fine-tuned on.
The license and the limits of `{{ base }}` also apply to this model.
""")


def push_card(record: RunRecord, hub_model_id: str | None, token: str | None) -> None:
    """Upload the card to the model's repository on the hub. The Trainer uploads the model before this call."""
    api = HfApi(token=token)
    repository = api.create_repo(hub_model_id or Path(record.folder).absolute().name, exist_ok=True).repo_id
    api.upload_file(path_or_fileobj=Path(record.folder) / CARD_FILE, path_in_repo=CARD_FILE, repo_id=repository)


def card(
    record: RunRecord, use: str | None = None, library: str = "transformers", run: RunSpec | None = None
) -> ModelCard:
    """The model card of a successful run.

    use: Markdown with instructions to load the model; None: a pipeline. library: the hub's name of the library that
    loads the model. run: the run to repeat; None: the record's.
    """
    pairs = len(record.text_columns or record.task.texts) > 1
    use = use or pipeline_use(record.task.kind.pipeline_arguments("THIS_FOLDER"), pairs)
    text = f"---\n{_metadata(record, library).to_yaml()}\n---\n{CARD_MARK}\n{_text(record, use, run or record.spec)}\n"
    return ModelCard(text, ignore_metadata_errors=True)


def pipeline_use(arguments: str, pairs: bool) -> str:
    """Markdown with code that calls the library's pipeline. pairs: whether the model reads two texts."""
    texts = f'{{"text": {TEXTS[0]}, "text_pair": {TEXTS[1]}}}' if pairs else TEXTS[0]
    return USE.format(arguments=arguments, texts=texts)


def _metadata(record: RunRecord, library: str) -> ModelCardData:
    spec, task = record.spec, record.spec.data.task
    glue, dataset, pipeline = _is_glue(spec.data), _hub_dataset(spec.data), record.task.kind.pipeline
    names = dict(spec.data.files) if spec.data.dataset_name else {}
    parted = spec.data.hold_out or spec.data.validation_share
    limited = {name: value for name in LIMITS if (value := getattr(spec.data, name))}
    results = [
        EvalResult(
            task_type=pipeline,
            task_name=pipeline.replace("-", " ").capitalize(),
            dataset_type=dataset or task,
            dataset_name=f"GLUE {task}" if glue else task,
            dataset_config=task if glue else spec.data.dataset_config_name,
            dataset_split=names.get("train", "train") if parted else names.get(split, split),
            dataset_args=limited or None,
            metric_type=name,
            metric_value=value,
        )
        for split, name, value in _measured(record)
        if not name.endswith("loss") and value == value
    ]
    return ModelCardData(
        library_name=library,
        pipeline_tag=pipeline,
        tags=["layerdrop", "layer-dropping"],
        base_model=hub_name(spec.model.name),
        datasets=[dataset] if dataset else None,
        model_name=_name(record),
        eval_results=results or None,
    )


def _name(record: RunRecord) -> str:
    """The name of the run's spec. For a full model whose checkpoint lacks layers: with the number of its layers."""
    name, layers = record.spec.name, f"{len(record.kept)}_of_{record.n_layers}_layers"
    return name.replace("_full_k0_", f"_{layers}_") if record.dropped_before else name


def _is_glue(data: DataSpec) -> bool:
    return data.task in TASKS and not data.files


def _hub_dataset(data: DataSpec) -> str | None:
    """The hub name of the data. None for local data, except GLUE's."""
    if data.dataset_name:
        return hub_name(data.dataset_name)
    return "nyu-mll/glue" if _is_glue(data) else None


def hub_name(model: str) -> str | None:
    """The hub name of a checkpoint. For a run's folder: the hub name of its model. None for other local checkpoints."""
    try:
        if not Path(os.path.expanduser(model)).exists():
            validate_repo_id(model)
            return None if model in EMBEDDED else model
        record = read_record(model)
        return hub_name(record.spec.model.name) if record and record.spec.model.name != model else None
    except (
        ValueError,
        RecursionError,
    ):  # no hub name, an unreadable record, or two runs that name each other as their model
        return None


def _measured(record: RunRecord) -> list[tuple[str, str, float]]:
    """(split, metric, value) in the order of the record. The prefixes of MNLI's metrics are removed."""
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
    if data.validation_share:
        return f"{first}{data.validation_share:.0%} of the training set, which the training did not read"
    return first + " and ".join(dict.fromkeys(split for split, _, _ in _measured(record)))


def _numbers_of_rows(record: RunRecord) -> list[str]:
    """The rows of training and validation sets: `1,000 of train (3 malformed rows left out)`."""
    shown = []
    for split, read in record.data.items():
        bad = f" ({n:,} malformed row{'s' * (n != 1)} left out)" if (n := read.get("bad_rows")) else ""
        if split.startswith(("train", "validation")):
            shown.append(f"{read.get('rows', 0):,} of {split}{bad}")
    return shown


def _overlap(record: RunRecord) -> str | None:
    """The note on validation rows with texts of training rows. None without such rows, and for old records."""
    validation = record.data.get("validation", {})
    n = validation.get("also_in_train")
    return note_on_texts(n, validation.get("rows", 0)) if n else None


def _shown_f1(values: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """(class -> F1, 0) of all classes. With more than MOST_CLASSES: (class -> F1 of the LOWEST, number of classes)."""
    many = len(values) > MOST_CLASSES
    names = sorted(values, key=lambda name: values[name])[:LOWEST] if many else values
    return {markdown(name): values[name] for name in names}, len(values) if many else 0


def _text(record: RunRecord, use: str, run: RunSpec) -> str:
    spec = record.spec
    teacher = spec.distil and spec.distil.teacher
    text: str = TEXT.render(
        record=record,
        spec=spec,
        use=use,
        title=markdown(_name(record)),
        dropped=[i for i in record.dropped if i not in record.dropped_before],
        task=markdown(spec.data.task),
        base=_shown(spec.model.name),
        strategy=spec.drop.strategy or "none",
        moment=MOMENTS[spec.drop_when],
        teacher=f"`{_shown(teacher)}`" if teacher else "the full model, fine-tuned first",
        metrics={markdown(name): value for name, value in record.named_metrics.items()},
        rows=_measured_on(record),
        n_rows=_numbers_of_rows(record),
        chosen=CHOICE_OF_K in record.notes,
        overlap=_overlap(record),
        constant=constant_words(record, "validation"),
        by_class=[(split, *_shown_f1(values)) for split, values in record.class_f1.items()],
        seconds=record.training_seconds,
        device=None if record.prerequisites.get("seconds") else record.environment.get("device"),
        command=one_line(command_of(run)),
        local=spec.data.source not in ("hub", "demo") and not (spec.data.dataset_name and _hub_dataset(spec.data)),
    )
    return text


def _shown(model: str) -> str:
    """The hub name of a model. Without a hub name: the name of its folder, without the path."""
    return markdown(hub_name(model) or Path(model.rstrip("/")).name, code=True)
