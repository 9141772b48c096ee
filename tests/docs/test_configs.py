import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import layerdrop
from layerdrop.architectures import ModelSpec
from layerdrop.cli.parsing import parse, parse_settings
from layerdrop.criteria.spec import DropSpec
from layerdrop.strategies import select

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / "configs").glob("recipes/*.yaml"), ROOT / "configs/demo.yaml"]), ids=lambda path: path.name
)
def test_every_recipe_is_a_valid_configuration(path):
    run, how = parse([str(path), "--drop_strategy", "top", "--drop_k", "2", "--use_cpu"]).to_spec()
    assert run.train and how.evaluate and run.drop == DropSpec("top", 2)


def test_every_study_is_a_valid_grid(monkeypatch):
    """Nothing is run; without a hub no depth is known, so that K is checked for the miniature alone."""
    from layerdrop.sweeps.study import read_study

    monkeypatch.chdir(ROOT)
    runs = {}
    for path in sorted((ROOT / "configs").glob("studies/*.yaml")):
        if path.stem == "sweep":  # its axes come from the command line
            continue
        study = read_study(str(path), "store", parse_settings, flags=["--use_cpu"])
        assert not study.impossible
        runs[path.stem] = len(study.jobs)
    assert runs == {
        "demo": 2 * 3 * 7,
        "equal_speed": 4 * 3 * 3,
        "sst2_full": 2,
        "miniature": 5 * 5 * (2 + 7 * 3),
        "sajjad2023_table2": 4 * 7 * 4 * 5,
        "sajjad2023_table4": 3 * 5 * 12 * 5,
        "sajjad2023_figure2": 3 * 7 * (1 + 5 * 3 + 3) * 5,
        "sajjad2023_table5": 5 * 4 * 5,
        "sajjad2023_table6": 5 * 5 * (2 + 4 + 3),
        "sajjad2023_table7": 2 * 5 * 5 * 3,
        "encoder6": 3 * 3 * (1 + 3),
        "encoder12": 4 * (3 * (1 + 3) + 2 * 5) + 2 * 2 * 3,
        "elastic": 5 * 3 * 2 * 5,
        "elastic6": 4 * 3 * 2 * 4,
        "elastic12": 4 * 3 * 2 * 6,
        "labels6": 3 * 4 * 3,
        "labels12": 2 * 3 * 3,
        "layerdrop": 2 * 3 * 3 * (1 + 2 * 3),
        "variants_encoder6": 2 * 3 * (1 + 2 * (3 + 1 + 1 + 2 + 1 + 3 + 1 + 2) + 2 + 2 * (5 + 3 + 1)),
        "variants_encoder6_seeds": 5 * (2 * (3 + 1 + 1) + 1 + 2 + 1 + 3 + 1),
        "variants_encoder12": 6,
        "variants": 5 * 3 * (1 + 3 + 1 + 1 + 4 + 1 + 3 + 1 + 2),
        "peer2022_table1": 8 * 5 * (2 * 7 + 3),
    }


def test_the_papers_recipe_is_the_default():
    path = str(ROOT / "configs/recipes/sajjad2023.yaml")
    assert parse([path, "--use_cpu"]).to_spec()[0] == parse(["--use_cpu"]).to_spec()[0]


def test_other_recipes_say_their_differences():
    def run(name):
        return parse([str(ROOT / f"configs/recipes/{name}.yaml"), "--use_cpu"]).to_spec()[0]

    default = parse(["--use_cpu"]).to_spec()[0]
    assert run("peer2022") == replace(default, seed=40)
    mobile = ModelSpec("google/mobilebert-uncased")
    assert run("peer2022_mobilebert") == replace(
        default, seed=40, model=mobile, train=replace(default.train, learning_rate=7e-5)
    )


def test_recipes_of_teachers_say_their_sources():
    def run(name, *words):
        return parse([str(ROOT / f"configs/recipes/{name}.yaml"), "--drop_k", "6", "--use_cpu", *words]).to_spec()[0]

    pkd, xtc, theseus, tinybert = map(run, ("pkd", "xtc", "theseus", "tinybert_stage2"))
    assert pkd.variants == ("distill-patient",) and pkd.start is None and pkd.train.num_train_epochs == 4
    assert pkd.teacher.train.num_train_epochs == 3 and pkd.teacher.drop == DropSpec()
    assert xtc.variants == ("finetuned", "distill-layers") and xtc.start == xtc.teacher
    assert (xtc.distil.distill_weight, xtc.distil.distill_attention, xtc.train.num_train_epochs) == (1, True, 36)
    assert xtc.start.train.learning_rate == 2e-5 != xtc.train.learning_rate
    assert theseus.variants == ("finetuned", "theseus") and theseus.theseus.replacing_schedule == "linear"
    assert (tinybert.distil.distill_weight, tinybert.distil.distill_temperature) == (1, 1)
    assert select(xtc.drop.strategy, 12, k=6) == [0, 2, 4, 6, 8, 10]  # they keep 1, 3, 5, 7, 9, 11


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (citation["version"], str(citation["date-released"])) == (layerdrop.__version__, newest[2])
    assert newest[1] == layerdrop.__version__
