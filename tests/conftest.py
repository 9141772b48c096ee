import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("LAYERDROP_TEST_GPU", "")

import pytest
import torch

from tests import tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    """A BERT of 6 layers, as a checkpoint folder."""
    return tiny.save(tmp_path_factory.mktemp("models") / "tinybert")


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """A folder with every GLUE task, artificial."""
    folder = tmp_path_factory.mktemp("glue")
    for name in tiny.HEADERS:
        tiny.glue(folder, name)
    return str(folder)
