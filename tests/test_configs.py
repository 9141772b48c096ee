from pathlib import Path

import pytest

from layerdrop.arguments import parse

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("recipes/*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_a_valid_configuration(path):
    arguments = parse([str(path), "--drop_strategy", "top", "--drop_k", "2", "--use_cpu"])
    assert arguments.train.do_train and arguments.drop.drop_k == 2


def test_the_papers_recipe_is_the_default():
    recipe = ["--use_cpu"]
    assert (
        parse([str(ROOT / "configs/recipes/sajjad2023.yaml"), *recipe]).spec("mrpc").id == parse(recipe).spec("mrpc").id
    )
