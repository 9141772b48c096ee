"""Features in pairs: training variant x protocol x store x report, on records that are made up.

Two runs that differ in one of them are two runs everywhere: other ids, other folders, never done for one another, never
candidates for one another, never seeds of one row of a report.
"""

import json
from dataclasses import replace
from itertools import combinations

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.spec import DistilSpec, TheseusSpec, TrainSpec, WhenSpec
from layerdrop.report.frame import frame
from layerdrop.runs.record import Cut, RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import INPUTS as INPUT_WORDS
from layerdrop.runs.status import Needs, status_of
from layerdrop.runs.store import Store
from layerdrop.search.candidates import Candidates
from tests.made_up import MadeUp, write_run

N = 6
FULL = RunSpec(ModelSpec("m"), DataSpec("rte", "glue"), seed=1)
TOP = replace(FULL, drop=DropSpec("top", 2))

VARIANTS = {
    "plain": lambda spec: spec,
    "frozen": lambda spec: replace(spec, when=WhenSpec(frozen=True)),
    "gradual": lambda spec: replace(spec, when=WhenSpec(step=1, every_epochs=2)),
    "finetuned": lambda spec: replace(spec, start=full(spec)),
    "freeze_dropped": lambda spec: replace(spec, start=replace(full(spec), drop=spec.drop, when=WhenSpec(frozen=True))),
    "elastic": lambda spec: replace(spec, start=elastic(spec), train=None),
    "finetune_again": lambda spec: replace(spec, start=elastic(spec)),
    "other_elastic_k": lambda spec: replace(spec, start=elastic(spec, (1, 2)), train=None),
    "after": lambda spec: replace(spec, start=full(spec), train=None),
    "layerdrop": lambda spec: replace(spec, train=TrainSpec(layerdrop_rate=0.2)),
    "theseus": lambda spec: replace(spec, start=full(spec), theseus=TheseusSpec(0.5, 0.5, "linear")),
    "distilled": lambda spec: replace(spec, distil=DistilSpec("logits"), teacher=full(spec)),
    "teacher": lambda spec: replace(spec, distil=DistilSpec("logits", teacher="t")),
}
PROTOCOLS = {
    "validation": lambda spec: spec,
    "hold_out": lambda spec: replace(spec, data=replace(spec.data, hold_out=0.15)),
    "part": lambda spec: replace(spec, data=replace(spec.data, max_eval_samples=10)),
    "scored": lambda spec: replace(spec, drop=DropSpec("contribution", 2, score_on="s", score_split="train")),
}
CASES = [(variant, protocol) for variant in VARIANTS for protocol in PROTOCOLS]
INPUTS = {
    "model": lambda spec: True,
    "tokenizer": lambda spec: True,
    "train": lambda spec: True,
    "validation": lambda spec: True,
    "start": lambda spec: spec.start,
    "teacher": lambda spec: spec.distil,
    "score_on": lambda spec: spec.drop.score_on,
}
"""Input -> whether a run has it."""


def full(spec: RunSpec) -> RunSpec:
    return replace(spec, drop=DropSpec(), when=WhenSpec())


def elastic(spec: RunSpec, ks=(2, 3)) -> RunSpec:
    return replace(full(spec), when=WhenSpec(elastic_k=ks))


def spec_of(variant: str, protocol: str) -> RunSpec:
    """The prerequisite runs follow the protocol too."""
    return VARIANTS[variant](PROTOCOLS[protocol](TOP))


def inputs_of(spec: RunSpec, **other: str) -> dict[str, str]:
    return {name: other.get(name, "a") for name, has in INPUTS.items() if has(spec)}


def record_of(spec: RunSpec, folder: str, **other: str) -> RunRecord:
    inputs = inputs_of(spec, **other)
    data = {split: {"rows": 1, "fingerprint": inputs.pop(split)} for split in ("train", "validation")}
    cuts = [Cut(0, [4, 5], [0, 1, 2, 3], "top, K = 2")]
    return RunRecord(
        spec, folder, "success", n_layers=N, cuts=cuts, metrics={"accuracy": 0.5}, data=data, fingerprints=inputs,
        seconds={"total": 1.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Every case, done, in one store."""
    store = Store(str(tmp_path_factory.mktemp("store")))
    for case in CASES:
        folder = store.folder(spec_of(*case))
        write_run(record_of(spec_of(*case), folder), Options(folder, save_model=False))
    return store


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_run_is_done_for_itself_alone(store, case):
    spec = spec_of(*case)
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    status = status_of(store.folder(spec), spec, record_of(spec, "").inputs, Needs())
    assert status.word == "done" and status.record.spec == spec
    for other in CASES:
        if other != case:
            assert status_of(store.folder(spec), spec_of(*other), {}, Needs()).word == "other"
    for name in inputs_of(spec):
        changed = status_of(store.folder(spec), spec, record_of(spec, "", **{name: "b"}).inputs, Needs())
        assert changed.word == "changed" and changed.changed[0] == INPUT_WORDS.get(name, f"the rows of {name}")
    assert status_of(store.folder(spec), spec, record_of(spec, "").inputs, Needs(predict=True)).missing == ("RTE.tsv",)
    assert status_of(store.folder(spec), spec, {}, Needs()).word == "done", (
        "an input that cannot be read here counts as unchanged"
    )
    now = record_of(spec, "").inputs | {"other": "of a later version"}
    assert status_of(store.folder(spec), spec, now, Needs()).word == "done", (
        "an input that the record does not know counts as unchanged"
    )


@pytest.mark.parametrize("case", [case for case in CASES if case[1] != "scored"], ids="-".join)
def test_a_search_takes_the_runs_of_its_own_variant_and_protocol(store, case):
    """The top layers, asked for as a set: only the run that drops them in the same way is the same training."""
    spec = spec_of(*case)
    base = record_of(replace(spec, drop=DropSpec()), "")
    trials = Candidates(base, Options("unused"), store, MadeUp(lambda job: "was trained"), seeds=[1], total=1)
    assert trials([frozenset({4, 5})]) == [(0.5,)]
    (record,) = trials.records.values()
    assert record.spec == spec


def test_no_two_runs_share_an_id_a_folder_or_a_place_in_a_report(store):
    specs = [spec_of(*case) for case in CASES]
    assert len({spec.id for spec in specs}) == len({store.folder(spec) for spec in specs}) == len(CASES)
    rows = frame(list(store.done()))
    places = rows[["model", "setting", "row", "column"]].map(str).agg(" | ".join, axis=1)
    for i, j in combinations(range(len(rows)), 2):
        assert places[i] != places[j], (rows.at[i, "record"].spec.name, rows.at[j, "record"].spec.name)


def test_elastic_trainings_of_other_k_are_rows_of_one_table():
    rows = frame(
        [
            record_of(spec_of(variant, "validation"), "")
            for variant in ("plain", "elastic", "other_elastic_k", "finetune_again")
        ]
    )
    assert set(rows["setting"]) == {""}
    plain, elastic, other, again = map(str, rows["row"])
    assert "elastic_k" not in plain and "elastic_k 2,3" in elastic and "elastic_k 1,2" in other
    assert "elastic-finetuned" in again


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_runs_on_other_inputs_are_no_seeds_of_one_row(case):
    """The median over seeds is one over the same data and weights. (Each seed has its own start, and its own teacher
    where that is trained: there the same run from two of them.)"""
    spec = spec_of(*case)
    for name in inputs_of(spec):
        each_seed_has_its_own = name == "start" or (name == "teacher" and spec.teacher)
        other = spec if each_seed_has_its_own else replace(spec, seed=2)
        runs = [record_of(spec, "a"), record_of(other, "b", **{name: "b"})]
        rows = frame(runs)
        places = rows[["model", "setting", "row", "column"]].map(str).agg(" | ".join, axis=1)
        assert places[0] != places[1], name
