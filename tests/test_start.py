"""A run that goes on from the trained model of another one."""

import json
from dataclasses import replace

import pytest
from transformers import AutoModelForSequenceClassification

import run_glue
from layerdrop.arguments import parse
from layerdrop.errors import UserError
from layerdrop.runs.record import read_record
from layerdrop.spec import DropSpec, RunSpec
from layerdrop.surgery import drop_layers
from tests.running import QUICK, same, weights


@pytest.fixture
def first(bert, glue, tmp_path, monkeypatch):
    """The spec and options of a run in full depth that is done in the folder `first`."""
    monkeypatch.chdir(tmp_path)
    words = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--output_dir", "first"]
    spec, options = parse([*words, "--max_steps", "2", "--learning_rate", "1e-2"]).to_spec()
    assert run_glue.run(spec, options).status == "success"
    return spec, options


def without(ids, start: RunSpec, **train) -> RunSpec:
    """The spec of a run that goes on from `start` without some layers; train: {} evaluates alone."""
    train = replace(start.train, **train) if train else None
    return replace(start, drop=DropSpec("list", layers=tuple(ids)), train=train, start=start)


def test_layers_go_from_the_trained_model(first):
    """Also from one that has lost layers already; ids are always those of the checkpoint."""
    spec, options = first
    one = without([3], spec, learning_rate=0.0)
    two = without([1, 3], one, learning_rate=0.0)
    a = run_glue.run(one, replace(options, folder="one", start="first"))
    b = run_glue.run(two, replace(options, folder="two", start="one"))
    assert (a.dropped, b.dropped, b.kept, b.status) == ([3], [1, 3], [0, 2, 4, 5], "success")
    assert a.parameters_before == b.parameters_before and a.folder == "one"
    model = AutoModelForSequenceClassification.from_pretrained("first")
    drop_layers(model, [1, 3]).save_pretrained("expected")
    assert same(weights("two"), weights("expected"))
    config = AutoModelForSequenceClassification.from_pretrained("two").config
    assert config.layer_dropping == {"n_layers": 6, "kept": [0, 2, 4, 5]}

    # evaluated alone it gives the same, without a training
    alone = run_glue.run(without([1, 3], spec), replace(options, folder="alone", start="first", save_model=False))
    assert alone.metrics == b.metrics


def test_another_start_is_another_run(first):
    spec, _ = first
    assert without([3], spec).id != replace(without([3], spec), start=None).id
    assert without([3], spec).id != without([3], replace(spec, seed=7)).id
    deep = without([1, 3], without([3], spec))
    assert RunSpec.from_dict(json.loads(json.dumps(deep.to_dict()))) == deep
    assert deep.name.endswith("_rte_list_1-3_warm_seed42_eval") and RunSpec.from_dict(spec.to_dict()).start is None


def test_what_it_goes_on_from_is_recorded_and_looked_at(first):
    spec, options = first
    there = replace(options, folder="on", start="first")
    run_glue.run(without([3], spec), there)
    assert read_record("on").fingerprints["start"] not in ("", read_record("on").fingerprints["model"])
    drop_layers(AutoModelForSequenceClassification.from_pretrained("first"), []).half().save_pretrained("first")
    with pytest.raises(UserError, match="other contents of the start"):
        run_glue.run(without([3], spec), there)


def test_a_start_that_cannot_be(first):
    spec, options = first
    on = replace(options, folder="on", start="first")
    with pytest.raises(UserError, match="nowhere: there is no trained model of the run .*full_k0_seed42. Do that run"):
        run_glue.run(without([3], spec), replace(on, start="nowhere"))
    with pytest.raises(UserError, match="first: there is no trained model of the run .*_seed7"):
        run_glue.run(without([3], replace(spec, seed=7)), on)
    one = without([3], spec, learning_rate=0.0)
    run_glue.run(one, replace(on, folder="one"))
    with pytest.raises(UserError, match="one: lacks layer 3, which this run keeps"):
        run_glue.run(without([1], one), replace(on, start="one"))
    run_glue.run(without([4], spec, max_steps=1), replace(on, folder="light", save_model=False))
    with pytest.raises(UserError, match="light: there is no trained model"):
        run_glue.run(without([4, 5], without([4], spec, max_steps=1)), replace(on, start="light"))
