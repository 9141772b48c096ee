"""Every kind of labels end to end: one class for each kind, one contract for all."""

import ast
import csv
import json
import os
import re
import signal
from pathlib import Path

import datasets
import numpy as np
import pytest
import seqeval.metrics as seqeval
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

import layerdrop
from layerdrop.cli.command import run_command
from layerdrop.data.kinds import TokenTags
from layerdrop.finetune import interrupt
from layerdrop.runs.predictions import read_predictions
from tests.running import same, weights

CUT = "--drop_strategy top --drop_k 2"


class EveryKind:
    """The contract of a kind. A subclass has `label_type`, `metrics`, `text`, and `write` for two files of rows."""

    label_type: str
    metrics: tuple[str, ...]
    """Metrics of a run; the first is the selection metric."""
    text: str
    """A text to predict."""
    caption: str
    """A part of the caption of the table of significance."""
    options: str
    """Arguments of the library's pipeline in cards."""
    files = "--train_file train.jsonl --validation_file dev.jsonl"

    def row(self, number: int) -> dict:
        """A row of the files."""
        raise NotImplementedError

    @pytest.fixture
    def own(self, run):
        """own(flags, output) -> the result of a run on the files; the working folder is new."""
        for name, rows in (("train", 24), ("dev", 12)):
            Path(f"{name}.jsonl").write_text("".join(json.dumps(self.row(i)) + "\n" for i in range(rows)))
        return lambda words, output="out", **how: run(f"{self.files} {words}", data=None, output=output, **how)

    @pytest.mark.usefixtures("operators_once")
    def test_train_evaluate_predict_export(self, own, capsys):
        code, record, out, err = own(
            f"{CUT} --learning_rate 1e-2 --test_file dev.jsonl --do_train --do_eval --do_predict"
        )
        assert code == 0 and record["label_type"] == self.label_type, err
        assert tuple(record["metrics"])[1:] == self.metrics and f"{self.metrics[0]} 0." in out
        _, labels, predicted = read_predictions("out")
        assert self.measured(labels, predicted) == pytest.approx(
            {name: record["metrics"][name] for name in self.metrics}, abs=1e-6
        )
        tested = [line.split("\t")[1] for line in Path("out/predictions_test.tsv").read_text().splitlines()[1:]]
        assert tested == predicted
        assert (
            self.tag in Path("out/README.md").read_text()
            and f'"THIS_FOLDER", {self.options})' in Path("out/README.md").read_text()
        )
        assert run_command("predict", ["out", "dev.jsonl"]) == 0
        table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [row[1] for row in table[1:]] == predicted
        self.check_kept_columns("dev.jsonl", [self.row(i) for i in range(12)], table, capsys)
        for words in ("", "--format onnx"):
            if words:
                pytest.importorskip("onnxruntime")
            assert run_command("export", f"out {words} --output small --max_loss 0.1".split()) == 0
            assert "0 of 12 predictions differ" in capsys.readouterr().err
            text = Path("small/README.md").read_text()
            assert words or (f'".", {self.options}' in text and ("truncation" in text) == (self.label_type == "multi"))
            assert layerdrop.load("small")(self.text).label == layerdrop.load("out")(self.text).label
        assert self.printed_by_the_card(capsys) == self.as_printed(layerdrop.load("small")(self.text))
        code, again, _, err = own("--do_eval --seed 3", output="again", model="out")  # the head decides the labels
        assert code == 0 and again["metrics"] == pytest.approx(record["metrics"], abs=1e-5), err

    def check_kept_columns(self, path, rows, table, capsys):
        """The input's columns, lists as JSON, stand before the same predictions; in tsv and csv."""
        kept = [[cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()] for row in rows]
        expected = [own + of for own, of in zip([list(rows[0]), *kept], table, strict=True)]
        assert run_command("predict", ["out", path, "--keep_columns"]) == 0
        assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == expected
        assert run_command("predict", ["out", path, "--keep_columns", "--output", "kept.csv"]) == 0
        with open("kept.csv", newline="") as file:
            assert list(csv.reader(file)) == expected

    def printed_by_the_card(self, capsys):
        """The output of the code in the card of the export, for another text."""
        (code,) = re.findall(r"```python\n(.*?)```", Path("small/README.md").read_text(), re.DOTALL)
        assert '"A first text."' in code
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir("small")
            exec(code.replace('"A first text."', json.dumps(self.text)), {})
        return ast.literal_eval(capsys.readouterr().out)

    def test_a_metric_of_another_kind_is_refused(self, own, run):
        """Both for files and for a dataset."""
        words = "--load_best_model_at_end --metric_for_best_model f1 --eval_strategy epoch"
        datasets.Dataset.from_list([self.row(i) for i in range(24)]).save_to_disk("saved")
        dataset = run(f"--dataset_name saved --validation_share 0.25 {words}", data=None)
        for code, _, _, err in (own(words), dataset):
            assert code == 2, err
            assert err.splitlines()[-1].startswith("error: --metric_for_best_model f1: not a metric of"), err
            assert f"Allowed: loss, {', '.join(self.metrics)}." in err

    def test_resumed_is_bit_identical(self, own, monkeypatch):
        own(CUT, output="whole")
        usual = interrupt.Interrupt.on_step_end

        def stop_there(self, args, state, control, **kwargs):
            if state.global_step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            usual(self, args, state, control, **kwargs)

        monkeypatch.setattr(interrupt.Interrupt, "on_step_end", stop_there)
        assert own(CUT)[0] == 130
        monkeypatch.setattr(interrupt.Interrupt, "on_step_end", usual)
        code, _, _, err = own(f"{CUT} --resume_from_checkpoint")
        assert code == 0 and same(weights("whole"), weights("out")), err

    def test_teachers_reports_and_scores(self, own, capsys):
        """Distillation of logits and states, criteria on losses and outputs, a report with significance."""
        teacher = f"{CUT} --teacher out/full --distill"
        for name, words in {"full": "", "logits": f"{teacher} logits", "layers": f"{teacher} layers"}.items():
            code, record, _, err = own(f"{words} --num_train_epochs 1", output=f"out/{name}")
            assert code == 0 and record["status"] == "success", err
        for strategy in ("loss-drop", "logit-kl", "taylor", "fisher"):
            words = f"--drop_strategy {strategy} --drop_k 2 --score_on out/full --dry_run"
            code, _, out, err = own(words, output=None)
            assert code == 0 and "the checkpoint's classifier" in err and "scores" in out, err
        assert run_command("report", ["out", "--table", "tasks", "significance"]) == 0
        shown = capsys.readouterr().out
        assert "distill-logits" in shown and "none of 1" in shown and self.caption in shown, shown
        own(f"{CUT} --drop_when elastic --elastic_k 2 --num_train_epochs 1", output="out/elastic")
        words = ["--format", "latex", "--all_metrics", "--table", "tasks", "cost", "significance"]
        capsys.readouterr()
        assert run_command("report", ["out", *words]) == 0
        latex = [line.strip() for line in capsys.readouterr().out.splitlines() if not line.startswith("%")]
        assert any(line.startswith("top, elastic") for line in latex) and latex.count(r"\end{tabular}") == 3, latex
        assert not [line for line in latex if re.search(r"(?<!\\)[_%#]|(?<!\\ensuremath\{)[<>]", line)], latex

    @pytest.mark.parametrize(
        "variant",
        [
            "--drop_when elastic --elastic_k 2",
            "--drop_when elastic --elastic_k 1 2 --hold_out 0.25",
            "--drop_when gradual --drop_every_epochs 1",
            "--drop_when finetuned --theseus",
            "--layerdrop_rate 0.2",
        ],
    )
    def test_training_variants(self, own, variant):
        code, record, _, err = own(f"{CUT} {variant} --num_train_epochs 1")
        assert code == 0 and record["kept"] == [0, 1, 2, 3] and tuple(record["metrics"])[1:] == self.metrics, err
        held_out = "hold_out" in variant
        for path in Path("out").rglob("record.json"):  # also of the training and of the other K
            read = json.loads(path.read_text())["data"]
            assert (read["train"]["rows"], read["validation"]["rows"]) == ((18, 6) if held_out else (24, 12))

    def test_search(self, own, bert, capsys, in_process):
        own("--max_steps 1", output="unused")
        words = "--max_k 1 --method optimal --hold_out 0.25 --max_steps 1 --use_cpu --workers 1"
        argv = ["--model_name_or_path", bert, "--train_file", "train.jsonl", "--precision", "fp32", *words.split()]
        code = run_command("search", argv)
        out, err = capsys.readouterr()
        assert code == 0 and self.metrics[0] in out + err, err


class TestSeveralLabels(EveryKind):
    label_type, text, tag = "multi", "w1 w2", "pipeline_tag: text-classification"
    options = "top_k=None"
    metrics = "f1_micro", "f1_macro", "exact_match"
    caption = "A row is correct if all of its labels are."

    def row(self, number):
        return {"text": f"w{number} w{number + 1}", "label": ["a", "b", "c"][: number % 4]}

    def measured(self, labels, predicted):
        names = ["a", "b", "c"]
        y, p = ([[name in json.loads(text) for name in names] for text in of] for of in (labels, predicted))
        scores = {f"f1_{average}": f1_score(y, p, average=average, zero_division=0) for average in ("micro", "macro")}
        return scores | {"exact_match": accuracy_score(y, p)}

    def as_printed(self, prediction):
        return [(name, pytest.approx(score, abs=1e-6)) for name, score in zip(*prediction, strict=True)]

    def test_the_model_is_the_librarys_own(self, own):
        """Its pipeline gives the sigmoid of each label; the record has the threshold."""
        _, record, _, err = own(f"{CUT} --max_steps 3 --learning_rate 1e-3")
        assert record["label_threshold"] == 0.5 and "0.5" in Path("out/README.md").read_text()
        model = AutoModelForSequenceClassification.from_pretrained("out").eval()
        assert model.config.problem_type == "multi_label_classification"
        logits = model(**AutoTokenizer.from_pretrained("out")(self.text, return_tensors="pt")).logits[0]
        scores = {
            row["label"]: row["score"] for row in pipeline("text-classification", "out", top_k=None)([self.text])[0]
        }
        predicted = layerdrop.load("out")(self.text)
        assert predicted.label == tuple(name for name in "abc" if scores[name] > 0.5)
        assert predicted.score == pytest.approx([scores[name] for name in predicted.label], abs=1e-6)
        assert [scores[name] for name in "abc"] == pytest.approx(logits.sigmoid().tolist(), abs=1e-6)
        assert np.mean(list(record["class_f1"]["validation"].values())) == pytest.approx(record["metrics"]["f1_macro"])

    def test_a_head_of_another_task_is_not_evaluated(self, own):
        for name in ("train", "dev"):
            rows = [{"text": f"w{i}", "label": "abc"[i % 3]} for i in range(12)]
            Path(f"{name}.json").write_text(json.dumps(rows))
        assert own("--train_file train.json --validation_file dev.json --max_steps 1", output="classes")[0] == 0
        code, _, _, err = own("--do_eval --label_type multi", model="classes")
        assert code == 2 and "gives single label classification, the task has multi label classification" in err
        code, _, _, err = own("--do_eval", model="classes")
        assert code == 2 and "dev.jsonl:1: label [] of column 'label' is a list" in err
        code, record, _, err = own("--max_steps 1", model="classes", output="trained")
        assert code == 0 and record["label_type"] == "multi", err
        assert "of another size or task" not in err


class TestTokens(EveryKind):
    label_type, text, tag = "token", "w1 w2 w3", "pipeline_tag: token-classification"
    options = 'aggregation_strategy="first"'
    metrics = "entity_f1", "entity_precision", "entity_recall", "accuracy"
    caption = "A row is correct if all of its tags are."

    def row(self, number):
        tags = ["O", "B-a", "I-a", "B-b", "O"]
        return {"tokens": [f"w{number + i}" for i in range(2 + number % 4)], "ner_tags": tags[: 2 + number % 4]}

    def measured(self, labels, predicted):
        y, p = ([text.split(" ") for text in of] for of in (labels, predicted))
        scores = {"f1": seqeval.f1_score, "precision": seqeval.precision_score, "recall": seqeval.recall_score}
        scores = {f"entity_{name}": score(y, p, zero_division=0) for name, score in scores.items()}
        return scores | {"accuracy": seqeval.accuracy_score(y, p)}

    def as_printed(self, prediction):
        return list(zip(self.text.split(), prediction.label, strict=True))

    def test_the_code_of_a_card_reads_the_first_sub_token(self, capsys):
        """Also if it is a blank alone, or contains the blank before the word. A word that is cut off has no tag."""
        spans = [(0, 0), (0, 1), (1, 2), (2, 4), (4, 5), (5, 8), (0, 0)]
        given = {"text": "ab c def gh", "tokens": {"offset_mapping": [spans]}, "logits": np.eye(7)[None], "np": np}
        exec(TokenTags.output_code, given | {"names": dict(enumerate("0123456"))})
        printed = ast.literal_eval(capsys.readouterr().out)
        assert printed == [("ab", "1"), ("c", "3"), ("def", "4"), ("gh", None)]

    def test_the_model_is_the_librarys_own(self, own):
        """The predictions are the largest logits at the first sub-token of each word."""
        own(f"{CUT} --max_steps 3 --learning_rate 1e-3")
        model, tokenizer = (
            AutoModelForTokenClassification.from_pretrained("out").eval(),
            AutoTokenizer.from_pretrained("out"),
        )
        encoded = tokenizer(self.text.split(), is_split_into_words=True, return_tensors="pt")
        ids = encoded.word_ids()
        first = [ids.index(i) for i in range(3)]
        odds = model(**encoded).logits[0, first].softmax(-1)
        predicted = layerdrop.load("out")(self.text)
        assert predicted.label == tuple(model.config.id2label[int(i)] for i in odds.argmax(-1))
        assert predicted.score == pytest.approx(odds.max(-1).values.tolist(), abs=1e-6)
        assert "f1_macro" not in json.loads(Path("out/record.json").read_text())["metrics"]
        assert pipeline("token-classification", "out", aggregation_strategy="first")(self.text) is not None

    def test_conll_files_give_the_same_model(self, own, capsys):
        own(f"{CUT} --max_steps 3", output="json")
        for name in ("train", "dev"):
            rows = [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]
            lines = ["\n".join(map(" ".join, zip(row["tokens"], row["ner_tags"], strict=True))) for row in rows]
            Path(f"{name}.txt").write_text("\n\n".join(lines) + "\n")
        words = f"--train_file train.txt --validation_file dev.txt --task_type token {CUT} --max_steps 3"
        code, record, _, err = own(words)
        assert code == 0 and same(weights("json"), weights("out")), err
        Path("dev.conll").write_text(Path("dev.txt").read_text())
        assert run_command("predict", ["out", "dev.conll"]) == 0
        table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [row[1] for row in table[1:]] == read_predictions("out")[2]
        self.check_kept_columns("dev.conll", rows, table, capsys)

    def test_words_beyond_the_limit_are_outside_of_entities(self, own):
        """A shorter limit changes neither the number of tags of a row nor the labels."""
        own(f"--max_steps 1 {CUT}", output="long")
        code, record, _, err = own(f"--max_steps 1 {CUT} --max_seq_length 4", output="short")
        assert code == 0, err
        (_, labels, _), (_, same_labels, predicted) = read_predictions("long"), read_predictions("short")
        assert labels == same_labels
        assert all(
            len(p.split()) == len(y.split()) and set(p.split()[2:]) <= {"O"}
            for y, p in zip(labels, predicted, strict=True)
        )

    def test_patient_distillation_and_probes_are_refused(self, own, capsys):
        own(f"--max_steps 1 {CUT}")
        code, _, _, err = own("--max_steps 1 --teacher out --distill patient", output="other")
        assert code == 2 and "--distill patient: compares the states of the sentence token" in err
        assert run_command("layers", ["probe", "--models", "out", "--use_cpu"]) == 2
        assert "has labels of tokens" in capsys.readouterr().err


def test_a_task_of_the_demo(run):
    words = "--task_name demo-ner --max_steps 2 --max_train_samples 32 --max_eval_samples 8 --max_predict_samples 4"
    code, record, _, err = run(f"{words} --do_train --do_eval --do_predict", model="demo", data=None)
    assert code == 0 and set(record["metrics"]) == {"loss", *TestTokens.metrics}, err
    assert record["label_type"] == "token" and record["text_columns"] == ["tokens"]
    assert len(Path("out/demo-NER.tsv").read_text().splitlines()) == 5


def test_balanced_class_weights(run):
    """The record has the weights in the model's order of classes; they change the training and nothing else."""
    labels = ["a"] * 9 + ["b"] * 3
    for name in ("train", "dev"):
        rows = [{"text": f"w{i}", "label": label} for i, label in enumerate(labels)]
        Path(f"{name}.json").write_text(json.dumps(rows))
    words = f"--train_file train.json --validation_file dev.json --max_steps 2 {CUT}"
    records = {}
    for more in ("", "--class_weights balanced"):
        code, records[more], _, err = run(f"{words} {more}", data=None, output=more or "out")
        assert code == 0, err
    plain, weighed = records.values()
    assert plain["class_weights"] == {} and weighed["class_weights"] == pytest.approx({"a": 12 / 18, "b": 12 / 6})
    assert plain["id"] != weighed["id"] and plain["train_loss"] != weighed["train_loss"]
    assert plain["parameters_after"] == weighed["parameters_after"]
    code, record, _, err = run("--task_name stsb --max_steps 1 --class_weights balanced", output="values")
    assert code == 0 and "--class_weights has no effect on stsb, whose labels are numbers" in err
    assert record["class_weights"] == {}


@pytest.mark.parametrize("way", ["--drop_when elastic --elastic_k 2", "--teacher auto --distill logits"])
def test_class_weights_in_prerequisite_runs(run, way):
    """The only training of elastic depth, the teacher and the student have the weights, and train with them."""
    for name, n in (("train", 12), ("dev", 6)):
        rows = [{"text": f"w{i}", "label": "ab"[i % 4 == 0]} for i in range(n)]
        Path(f"{name}.json").write_text(json.dumps(rows))
    words = f"--train_file train.json --validation_file dev.json --max_steps 2 {CUT} {way}"
    losses = []
    for more, expected in (("", {}), (" --class_weights balanced", {"a": 12 / 18, "b": 12 / 6})):
        code, _, _, err = run(words + more, data=None, output=f"out{len(losses)}")
        assert code == 0, err
        records = [json.loads(path.read_text()) for path in Path(f"out{len(losses)}").rglob("record.json")]
        trained = [record for record in records if record["steps"]]
        assert len(trained) == (1 if "elastic" in way else 2)
        assert all(record["class_weights"] == pytest.approx(expected) for record in trained)
        losses.append({record["train_loss"] for record in trained})
    assert not losses[0] & losses[1]
