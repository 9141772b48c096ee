from pathlib import Path

import pytest

from layerdrop.arguments import parse
from layerdrop.study import read_study

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("recipes/*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_a_valid_configuration(path):
    arguments = parse([str(path), "--drop_strategy", "top", "--drop_k", "2", "--use_cpu"])
    assert arguments.train.do_train and arguments.drop.drop_k == 2


def test_every_study_is_a_valid_grid(monkeypatch):
    """Nothing is run; without a hub no depth is known, so that K is checked for the miniature alone."""
    monkeypatch.chdir(ROOT)
    runs = {}
    for path in sorted((ROOT / "configs").glob("studies/*.yaml")):
        if path.stem == "sweep":  # its axes come from the command line
            continue
        study = read_study(str(path), "store", flags=("--use_cpu",))
        assert not study.impossible
        runs[path.stem] = len(study.jobs)
    assert runs == {
        "demo": 2 * 3 * 7,
        "miniature": 5 * 5 * (2 + 7 * 3),
        "sajjad2023_table2": 4 * 7 * 4 * 5,
        "sajjad2023_figure2": 3 * 7 * (1 + 5 * 3 + 3) * 5,
        "sajjad2023_table5": 5 * 4 * 5,
        "sajjad2023_table6": 5 * 5 * (2 + 4),
        "peer2022_table1": 8 * 5 * (2 * 7 + 3),
    }


def test_the_papers_recipe_is_the_default():
    recipe = ["--use_cpu"]
    assert (
        parse([str(ROOT / "configs/recipes/sajjad2023.yaml"), *recipe]).spec("mrpc").id == parse(recipe).spec("mrpc").id
    )
