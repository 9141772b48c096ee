"""Files that begin with a byte-order mark, as some tools of Windows write them."""

import json
import shutil
from pathlib import Path

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.orders import read_layers_file, read_order_file, read_sets_file
from layerdrop.data.glue import read_glue_tsv
from layerdrop.data.readers import read_table
from layerdrop.data.tasks import TASKS
from layerdrop.errors import UserError
from layerdrop.system.settings import read_settings

MARK = "\ufeff"


USER_FILES = pytest.mark.parametrize(
    ("name", "text", "read", "value"),
    [
        ("order.txt", "5\n4\n", read_order_file, (5, 4)),
        ("sets.txt", "5\n4-5\n", read_sets_file, [(5,), (4, 5)]),
        ("layers.json", '{"dropped": [5, 4]}', read_layers_file, (4, 5)),
        ("flags.json", '{"seed": 3}', read_settings, {"seed": 3}),
        ("flags.yaml", "seed: 3\n", read_settings, {"seed": 3}),
    ],
)


@USER_FILES
def test_a_users_file_is_read(tmp_path, name, text, read, value):
    for mark in ("", MARK):
        (tmp_path / name).write_text(mark + text, encoding="utf-8")
        assert read(str(tmp_path / name)) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "{0}{0}text,label\nw w,a\n{0}v v,b\n"),
        ("x.tsv", "{0}text\tlabel\nw w\ta\n{0}v v\tb\n"),
        ("x.jsonl", '{0}{{"text": "w w", "label": "a"}}\n{0}{{"text": "v v", "label": "b"}}\n'),
        ("x.json", '{0}{0}[{{"text": "w w", "label": "a"}}, {{"text": "v v", "label": "b"}}]\n'),
    ],
)
def test_marks_of_joined_files_are_no_part_of_the_rows(tmp_path, name, text):
    (tmp_path / name).write_text(text.format(MARK), encoding="utf-8")
    table = read_table("--train_file", str(tmp_path / name))
    assert list(table.rows.values()) == [{"text": "w w", "label": "a"}, {"text": "v v", "label": "b"}]


def test_marks_of_joined_files_of_glue(tmp_path):
    (tmp_path / "dev.tsv").write_text(f"{MARK}sentence\tlabel\nw w\t0\n{MARK}v v\t1\n", encoding="utf-8")
    assert read_glue_tsv(tmp_path / "dev.tsv", TASKS["sst2"], labeled=True).texts == (["w w", "v v"],)


@USER_FILES
def test_a_pointer_of_git_lfs_is_named(tmp_path, name, text, read, value):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=f"{name} is a pointer of Git LFS, not the file. Fetch it: git lfs pull$"):
        read(str(tmp_path / name))


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors.index.json"]
)
def test_a_file_of_a_checkpoint_is_named(bert, tmp_path, file):
    """The library reads these."""
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    path = folder / file
    if "index" in file:
        (folder / "model.safetensors").rename(folder / "x.safetensors")
        path.write_text(json.dumps({"metadata": {}, "weight_map": {"w": "x.safetensors"}}))
    path.write_text(MARK + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"{file} begins with a byte-order mark \(BOM\)\. Save it as UTF-8 without a BOM"
    ):
        checkpoint = Checkpoint.open(ModelSpec(str(folder)))
        print(checkpoint.tokenizer, checkpoint.weights())
