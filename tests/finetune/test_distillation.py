"""Learning from a teacher."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from layerdrop.criteria.selection import Selection
from layerdrop.data.batches import Collator
from layerdrop.data.labels import Labels
from layerdrop.data.tasks import TASKS
from layerdrop.finetune import teacher as teacher_module
from layerdrop.finetune.distillation import Distillation, attention_loss, layers_loss, patient_loss
from layerdrop.finetune.spec import DistilSpec
from layerdrop.finetune.teacher import (
    IndexedDataset,
    TeacherCollator,
    _columns,
    eager_attention,
    patient_pairs,
    teacher_outputs,
)
from layerdrop.runs.spec import RunSpec
from layerdrop.states import layer_states
from layerdrop.surgery import drop_layers, layer_list
from layerdrop.system.distributed import finish, gather
from tests import tiny
from tests.finetune.test_finetune import TOKENIZER, dataset
from tests.processes import group_of
from tests.running import same, weights
from tests.training import CLASSES, VALUES

LOG3 = math.log(3)
KL = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
"""Divergence of (1/2, 1/2) from (3/4, 1/4)."""
WORDS = "--task_name rte --num_train_epochs 1 --learning_rate 1e-3 --drop_strategy top --drop_k 3"


# ---- losses worked by hand -------------------------------------------------------------------------------------------
def test_logits():
    student = torch.zeros(2, 2, requires_grad=True)
    teacher = torch.tensor([[LOG3, 0.0], [1.0, 1.0]])
    loss = CLASSES.kind.distillation_loss
    assert loss(student, teacher, 1.0).item() == pytest.approx(KL / 2)  # the second row costs nothing
    warm = loss(student, 2 * teacher, 2.0)
    assert warm.item() == pytest.approx(4 * KL / 2)  # the same softened distributions, times T squared
    warm.backward()
    # T (softmax(student / T) - softmax(teacher / T)) / rows
    assert torch.allclose(student.grad, torch.tensor([[-0.25, 0.25], [0.0, 0.0]]) * 2 / 2, atol=1e-6)


def test_values():
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.5]])
    assert VALUES.kind.distillation_loss(student, teacher, 9.0).item() == pytest.approx((4 + 0.25) / 2)


def test_patient():
    student, teacher = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 2.0]]])
    assert patient_loss(student, teacher).item() == pytest.approx((0.6**2 + 0.2**2) / 2)
    assert patient_loss(student, 7 * student).item() == pytest.approx(0, abs=1e-12)


def test_layers():
    """Two pairs of layers, two rows of which the second has one token of padding, two numbers a token."""
    mask = torch.tensor([[1, 1], [1, 0]])
    teacher = torch.zeros(2, 2, 2, 2)
    student = [torch.ones(2, 2, 2, requires_grad=True), torch.full((2, 2, 2), 3.0)]
    loss = layers_loss(student, teacher, mask)
    assert loss.item() == pytest.approx(1 + 9)  # a sum over the pairs of means over real tokens
    loss.backward()
    expected = torch.full((2, 2, 2), 2 / 6)
    expected[1, 1] = 0
    assert torch.allclose(student[0].grad, expected)


def test_attention():
    mask = torch.tensor([[1, 1, 0]])
    teacher = torch.zeros(1, 1, 2, 3, 3)
    student = torch.zeros(1, 2, 3, 3)
    student[0, 0, 0, 1] = 2.0
    student[0, 1, 2, 0] = 5.0  # from padding
    student[0, 1, 0, 2] = 5.0  # to padding
    assert attention_loss([student], teacher, mask).item() == pytest.approx(4 / 8)


def test_pairs_of_patient_distillation():
    """Sun et al.: teacher's layers 2, 4, 6, 8, 10 (from 1) of 12 for a student of 6."""
    assert patient_pairs(6, 12) == [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9)]
    assert patient_pairs(3, 6) == [(0, 1), (1, 3)] and patient_pairs(4, 6) == [(0, 0), (1, 2), (2, 3)]
    assert patient_pairs(1, 6) == []


# ---- the teacher's outputs -------------------------------------------------------------------------------------------
TYPES = ["bert", "xlnet", "distilbert", "modernbert", "deberta-v2", "longformer", "albert", "mobilebert", "mpnet"]


def words_for(model_type):
    words = tiny.tokenizer(left=model_type == "xlnet")
    if model_type in ("distilbert", "roberta", "modernbert", "mpnet", "longformer"):
        words.model_input_names = ["input_ids", "attention_mask"]
    return words


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("kind", ["patient", "layers"])
def test_stored_outputs_are_those_of_a_fresh_pass(tmp_path, model_type, kind):
    teacher, words = tiny.model(model_type), words_for(model_type)
    if model_type == "mobilebert":  # joins each token's embedding to its neighbours': the last sees the padding's
        teacher.get_input_embeddings().weight.data[words.pad_token_id] = 0
    data, layers = dataset(words), [1, 3, 4]
    attention = kind == "layers" and model_type in ("bert", "xlnet", "deberta-v2")
    teacher.train()  # the pass is one of evaluation all the same
    with eager_attention(teacher):
        outputs = teacher_outputs(
            teacher, data, Collator.of(words), kind=kind, layers=layers, attention=attention, columns=[1, 0],
            folder=tmp_path, batch_size=5,
        )  # fmt: skip
        assert not list(tmp_path.iterdir())  # the file goes with the process
        assert teacher.training
        teacher.eval()
        rows = [3, 17, 4]
        collate = TeacherCollator(Collator.of(words), outputs)
        batch = collate([IndexedDataset(data.columns, data.offsets, data.labels)[row] for row in rows])
        inputs = {name: batch[name] for name in words.model_input_names}
        with torch.no_grad():
            fresh = teacher(**inputs, output_attentions=attention)
    assert torch.allclose(batch["teacher_logits"], fresh.logits[:, [1, 0]], atol=1e-5)
    mask, states = batch["attention_mask"].bool(), layer_states(teacher, inputs).outputs
    for i, layer in enumerate(layers):
        if kind == "patient":
            token = [int(line.nonzero()[-1]) if model_type == "xlnet" else 0 for line in mask]
            expected = states[layer][range(3), token]
            assert torch.allclose(batch["teacher_states"][:, i], expected, atol=1e-5)
        else:
            assert torch.allclose(batch["teacher_states"][:, i][mask], states[layer][mask], atol=1e-5)
            assert (batch["teacher_states"][:, i][~mask] == 0).all()
    if attention:
        for i, layer in enumerate(layers):
            pairs = mask[:, None, :, None] & mask[:, None, None, :]
            assert torch.allclose(batch["teacher_attention"][:, i], fresh.attentions[layer] * pairs, atol=1e-5)


def batch_for(teacher, kind, layers, folder, regression=False):
    data = dataset(classes=2)
    outputs = teacher_outputs(teacher, data, Collator.of(TOKENIZER), kind=kind, layers=layers, folder=folder)
    numbered = IndexedDataset(data.columns, data.offsets, data.labels)
    return TeacherCollator(Collator.of(TOKENIZER), outputs)([numbered[i] for i in range(6)])


@pytest.mark.parametrize(
    ("kind", "layers", "more"),
    [
        ("logits", [], {}),
        ("patient", [1, 3], {"distill_states_weight": 7.0}),
        ("layers", [0, 1, 4], {"distill_states_weight": 2.0}),
    ],
)
def test_the_loss_is_the_sum_of_its_parts(tmp_path, kind, layers, more):
    teacher = tiny.model("bert", seed=1)
    student = drop_layers(tiny.model("bert"), [2, 3, 5])
    spec = DistilSpec(kind, "x", distill_temperature=3.0, distill_weight=0.25, **more)
    batch = batch_for(teacher, kind, layers, tmp_path)
    ours = {"logits": [], "patient": [0, 1], "layers": [0, 1, 2]}[kind]
    loss = Distillation(CLASSES, student, spec, ours)(student, batch)
    inputs = {name: batch[name] for name in TOKENIZER.model_input_names}
    with torch.no_grad():
        logits, theirs = student(**inputs).logits, teacher(**inputs).logits
    log_p, q = (logits / 3).log_softmax(-1), (theirs / 3).softmax(-1)
    expected = 0.75 * cross_entropy(logits, batch["labels"]) + 0.25 * 9 * (q * (q.log() - log_p)).sum(-1).mean()
    s, t = layer_states(student, inputs).outputs, layer_states(teacher, inputs).outputs
    if kind == "patient":
        parts = [(s[i][:, 0], t[j][:, 0]) for i, j in zip(ours, layers, strict=True)]
        unit = [(a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)) for a, b in parts]
        expected += 7 * torch.stack([(a - b) ** 2 for a, b in unit]).mean()
    if kind == "layers":
        mask = batch["attention_mask"].bool()
        expected += 2 * sum(((s[i][mask] - t[j][mask]) ** 2).mean() for i, j in zip(ours, layers, strict=True))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert student.base_model.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("model_type", ["bert", "xlnet", "deberta-v2", "distilbert"])
def test_attention_of_an_identical_student_costs_nothing(tmp_path, model_type):
    """Neither in training nor in evaluation; the other terms keep the training's dropout, to the same draws."""
    student, words, layers = tiny.model(model_type), words_for(model_type), [0, 2, 5]
    data = dataset(words, classes=2)
    spec = DistilSpec("layers", "x", distill_weight=0.0, distill_states_weight=1.0, distill_attention=True)
    of = {"kind": "layers", "layers": layers, "attention": True, "folder": tmp_path}
    with eager_attention(student):
        outputs = teacher_outputs(student, data, Collator.of(words), **of)
    numbered = IndexedDataset(data.columns, data.offsets, data.labels)
    batch = TeacherCollator(Collator.of(words), outputs)([numbered[row] for row in range(6)])

    def loss(model, attention):
        set_seed(3)
        objective = Distillation(CLASSES, model, replace(spec, distill_attention=attention), layers)
        with eager_attention(model):
            return objective(model, batch)

    evaluated = loss(student, True)
    assert evaluated.item() == pytest.approx(loss(student, False).item(), abs=1e-9)
    student.train()
    assert loss(student, True).item() == pytest.approx(loss(student, False).item(), abs=1e-9)
    assert loss(student, True) != evaluated and student.training

    for parameter in student.parameters():
        parameter.data.mul_(1.5)
    attention = loss(student, True) - loss(student, False)
    assert attention > 1e-6
    attention.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 1e-6 for p in layer_list(student)[0].parameters())


# ---- several processes -----------------------------------------------------------------------------------------------
def outputs_in_a_group(folder: Path, number: int, size: int) -> None:
    """The outputs of a teacher, in a process of two; saved with the rows that it saw and the files that it made."""
    method = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=method, rank=number, world_size=2)
    files, new = [], teacher_module._new_file
    teacher_module._new_file = lambda *of: files.append(new(*of)) or files[-1]
    teacher, data, seen = tiny.model("bert"), dataset(classes=2), []
    teacher.register_forward_hook(lambda _, args, given, output: seen.append(len(given["input_ids"])), with_kwargs=True)
    of = {"kind": "layers", "layers": [1, 4], "attention": True, "folder": folder / "out", "batch_size": size}
    with eager_attention(teacher):
        outputs = teacher_outputs(teacher, data, Collator.of(TOKENIZER), **of)
    left = gather([str(path) for path in Path(folder, "out").iterdir()])
    torch.save([*(outputs[name].values for name in OUTPUTS), seen, len(files), left], folder / f"found{number}.pt")
    finish()


OUTPUTS = ("teacher_logits", "teacher_states", "teacher_attention")


@pytest.mark.parametrize("size", [5, 1000])
def test_processes_share_one_pass_and_its_files(tmp_path, size, monkeypatch):
    """Each row is computed once, by one of them, and all see every row; also where one has no batch at all."""
    monkeypatch.chdir(tmp_path)
    ended = group_of(2, lambda number: outputs_in_a_group(tmp_path, number, size))
    assert [process.code for process in ended] == [0, 0], ended
    found = [torch.load(tmp_path / f"found{number}.pt") for number in "01"]
    teacher, data = tiny.model("bert"), dataset(classes=2)
    of = {"kind": "layers", "layers": [1, 4], "attention": True, "folder": tmp_path, "batch_size": size}
    with eager_attention(teacher):
        alone = teacher_outputs(teacher, data, Collator.of(TOKENIZER), **of)
    for process in found:
        for ours, name in zip(process[:3], OUTPUTS, strict=True):
            assert torch.equal(ours, alone[name].values)
    assert sum(map(sum, (process[3] for process in found))) == len(data)
    assert len(found[0][3]) - len(found[1][3]) in (0, 1)
    assert [process[4] for process in found] == [3, 0] and found[0][5] == [[], []]


def test_the_scored_weights_stay_in_their_process():
    """Selections travel from the first process to all others."""
    selection = Selection([1], [1], "why", [0.5, 0.2], encoder_weights={"weight": torch.ones(3)})
    other = pickle.loads(pickle.dumps(selection))
    assert other == replace(selection, encoder_weights=None) and selection.encoder_weights is not None


# ---- whole runs ------------------------------------------------------------------------------------------------------
@pytest.fixture
def teacher(run, tmp_path):
    """A fine-tuned model in the folder `teacher`."""
    assert run("--task_name rte --num_train_epochs 2 --learning_rate 1e-3", output="teacher")[0] == 0
    return str(tmp_path / "teacher")


@pytest.mark.parametrize("kind", ["logits", "patient --distill_states_weight 0", "layers --distill_states_weight 0"])
def test_weight_0_changes_no_bit(run, teacher, kind):
    code, plain, _, _ = run(WORDS, output="plain")
    code, distilled, _, err = run(
        f"{WORDS} --teacher {teacher} --distill {kind} --distill_weight 0", output="distilled"
    )
    assert code == 0 and same(weights("plain"), weights("distilled")) and distilled["metrics"] == plain["metrics"], err
    assert distilled["id"] != plain["id"] and distilled["fingerprints"]["teacher"]


@pytest.mark.parametrize("model_type", ["bert", "xlnet", "albert", "modernbert", "distilbert"])
@pytest.mark.parametrize("kind", ["logits", "patient", "layers"])
def test_every_kind_trains(run, tmp_path, model_type, kind):
    model = tiny.save(tmp_path / model_type, model_type)
    code, record, _, err = run(f"{WORDS} --drop_k 2 --teacher auto --distill {kind}", model=model)
    assert code == 0 and record["prerequisites"]["trainings"] == 1 and record["seconds"]["teacher"] > 0, err
    assert run(f"{WORDS} --drop_k 2", model=model, output="plain")[0] == 0
    assert not same(weights("out"), weights("plain"))
    assert weights("out").keys() == weights("plain").keys()  # an ordinary model
    assert sorted(path.name for path in Path("out").iterdir() if "teacher" in path.name) == []


def test_attention_too(run, teacher):
    words = f"{WORDS} --teacher {teacher} --distill layers"
    code, record, _, err = run(f"{words} --distill_attention", output="attention")
    assert code == 0 and record["status"] == "success", err
    assert run(words, output="without")[0] == 0
    assert not same(weights("attention"), weights("without"))
    assert AutoModelForSequenceClassification.from_pretrained("attention").config._attn_implementation == "sdpa"


def test_regression_learns_the_teachers_values(run):
    assert run("--task_name stsb --max_steps 2", output="teacher")[0] == 0
    code, record, _, err = run("--task_name stsb --drop_strategy top --drop_k 3 --teacher teacher --max_steps 2")
    assert code == 0 and "spearmanr" in record["metrics"], err


def test_start_and_teacher_are_one_run(run):
    """The student starts as its teacher: what layer reduction with one stage of distillation does."""
    code, record, _, err = run(f"{WORDS} --drop_when finetuned --teacher auto --distill layers")
    assert code == 0 and len(list(Path("out/prior").glob("*/record.json"))) == 1, err
    assert (
        record["fingerprints"]["start"] == record["fingerprints"]["teacher"]
        and record["prerequisites"]["trainings"] == 1
    )
    spec = RunSpec.from_dict(record["spec"])
    assert spec.start == spec.teacher and spec.id == record["id"]
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_resumed_it_is_the_same(run, tmp_path):
    words = f"{WORDS} --num_train_epochs 2 --teacher auto --distill layers --save_strategy epoch --save_total_limit 5"
    assert run(words, output="whole")[0] == 0
    code, _, _, err = run(f"{words} --resume_from_checkpoint {tmp_path}/whole/checkpoint-3", output="again")
    assert code == 0 and same(weights("whole"), weights("again")), err


def test_the_teachers_class_for_each_of_the_students():
    """With three classes: an order of two is its own inverse."""

    def head(*names):
        config = SimpleNamespace(problem_type=None, num_labels=3, id2label=dict(enumerate(names)))
        return SimpleNamespace(name="t", label_names=names, classes=names, has_classifier=True, config=config)

    teacher = head("contradiction", "entailment", "neutral")
    assert _columns(teacher, Labels(TASKS["mnli"])) == [1, 2, 0]
    student = Labels(TASKS["mnli"], head("neutral", "contradiction", "entailment"))
    assert _columns(teacher, student) == [2, 0, 1]


def test_another_order_of_labels_is_put_right(run, teacher):
    """The head of the teacher is turned round, and its names with it: nothing else changes."""
    assert run(f"{WORDS} --teacher {teacher}", output="a")[0] == 0
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    names = model.config.id2label
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    model.config.id2label = {0: names[1], 1: names[0]}
    model.config.label2id = {names[1]: 0, names[0]: 1}
    model.save_pretrained(teacher)
    assert run(f"{WORDS} --teacher {teacher}", output="b")[0] == 0
    assert same(weights("a"), weights("b"))


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"hidden_size": 8}, "--distill patient", "its hidden size is 8, the model's is 16. Use --distill logits"),
        ({"hidden_size": 8}, "--distill layers", "its hidden size is 8"),
        ({"num_hidden_layers": 4}, "--distill layers", "lacks layers that the model has"),
        ({"num_labels": 3}, "", "predicts 3 classes, rte has 2 classes. Give another teacher"),
        ({"id2label": {0: "good", 1: "bad"}, "label2id": {"good": 0, "bad": 1}}, "", "its classes are good, bad"),
        ({"num_labels": 1}, "", "predicts numbers, rte has 2 classes"),
    ],
)
def test_a_teacher_that_does_not_fit(run, tmp_path, changes, words, said):
    folder = tiny.save(tmp_path / "other", **changes)
    code, _, _, err = run(f"{WORDS} --teacher {folder} {words}")
    assert code == 2 and said in err and f"--teacher {folder}" in err, err


def test_another_tokenizer(run, tmp_path, bert):
    """Logits: the teacher reads the sentences with its own tokenizer. States of tokens cannot be paired."""
    folder = tiny.save(tmp_path / "other")
    words = tiny.tokenizer()
    state = json.loads(words.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary["w1"], vocabulary["w2"] = vocabulary["w2"], vocabulary["w1"]
    from tokenizers import Tokenizer

    words._tokenizer = Tokenizer.from_str(json.dumps(state))
    words.save_pretrained(folder)
    assert run(f"{WORDS} --teacher {folder}")[0] == 0
    code, _, _, err = run(f"{WORDS} --teacher {folder} --distill layers", output="layers")
    assert code == 2 and "has another tokenizer" in err, err


def test_a_model_that_is_no_teacher(run, tmp_path, bert):
    from transformers import AutoModel

    AutoModel.from_config(AutoConfig.from_pretrained(bert)).save_pretrained(tmp_path / "encoder")
    tiny.tokenizer().save_pretrained(tmp_path / "encoder")
    code, _, _, err = run(f"{WORDS} --teacher {tmp_path}/encoder")
    assert code == 2 and "has no trained classifier. Fine-tune it first, or use --teacher auto" in err, err
    code, _, _, err = run(f"{WORDS} --teacher nowhere")
    assert code == 2 and "--teacher nowhere" in err.splitlines()[-1] and "fine-tuned model, or auto" in err, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--distill patient", "--distill: only with --teacher"),
        ("--distill_weight 0", "--distill_weight: only with --teacher"),
        ("--teacher auto --distill_states_weight 1", "only with --distill patient and layers, not logits"),
        ("--teacher auto --distill patient --distill_attention", "only with --distill layers, not patient"),
        ("--teacher auto --distill_weight 2", "--distill_weight 2.0: must be from 0 to 1"),
        ("--teacher auto --distill_temperature 0", "--distill_temperature 0.0: must be above 0"),
        ("--teacher auto --distill layers --layerdrop_rate 0.1", "but --layerdrop_rate changes them in training"),
        ("--teacher auto --distill patient --drop_when gradual", "but --drop_when gradual changes"),
        (
            "--teacher auto --do_eval",
            "--teacher: needs training, but --do_train is off. Leave it out, or add --do_train",
        ),
        ("--teacher auto --drop_when after", "--teacher: cannot be combined with --drop_when after. Leave it out, or"),
        ("--teacher auto --drop_when elastic", "--teacher: cannot be combined with --drop_when elastic. Leave it out"),
        ("--teacher auto --distill patient --drop_k 5", "the model keeps only one layer"),
    ],
)
def test_what_cannot_be(run, words, said):
    code, _, _, err = run(f"{WORDS} {words}")
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


def test_rows_of_a_disk_that_is_too_small(monkeypatch, tmp_path):
    from layerdrop.errors import UserError
    from layerdrop.finetune.teacher import TOKENS, RaggedMemmap

    with pytest.raises(UserError, match="its outputs need 1000000000.0 GB"):
        RaggedMemmap((10**9, 250, TOKENS), torch.float32, np.array([10**6]), tmp_path)
