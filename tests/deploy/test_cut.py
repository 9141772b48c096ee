"""Cut checkpoints: the same class, the same bits, every other file as it was."""

import copy
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, set_seed

from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.command import run_command
from layerdrop.criteria.orders import read_layers_file
from layerdrop.criteria.selection import Selection
from layerdrop.data.readers import read_table
from layerdrop.data.to_predict import read_columns
from layerdrop.deploy import cut as writing
from layerdrop.deploy.cut import Source, write_cut
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier
from layerdrop.surgery import drop_layers
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES

DROPPED = [2, 4, 5]
HEADS = (
    "AutoModel",
    "ForMaskedLM",
    "ForCausalLM",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
LONGFORMER = ("LongformerForQuestionAnswering", "LongformerForMultipleChoice")
HEADS += ("ForSequenceClassification",)


def with_head(model_type: str, head: str):
    """A model with random weights and a head; None if the library has no such class."""
    kind = getattr(transformers, head if head == "AutoModel" else f"AutoModel{head}")
    set_seed(0)
    try:
        return kind.from_config(tiny.config(model_type)).eval()
    except ValueError:
        return None


def saved(folder: Path, model, model_type: str = "bert") -> str:
    tiny.save(folder, model_type)  # a tokenizer
    model.save_pretrained(folder)
    return str(folder)


def files_in(folder) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def cut(folder: str, output: str, dropped=DROPPED, dtype=None):
    return write_cut(Source(folder), Checkpoint.open(folder), Selection(list(dropped), "x"), "list", output, dtype)


def outputs(model):
    batch = tiny.batch(left=model.config.model_type == "xlnet")
    if type(model).__name__ in LONGFORMER:
        batch["input_ids"][:, 3:6] = 3  # they need three separators
    if "MultipleChoice" in type(model).__name__:
        batch = {name: value[None] for name, value in batch.items()}
    with torch.no_grad():
        return {k: v for k, v in model(**batch, return_dict=True).items() if torch.is_tensor(v)}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_head_of_every_family_keeps_its_bits(tmp_path, model_type, head):
    model = with_head(model_type, head)
    if model is None:
        pytest.skip("the library has no such class")
    folder = saved(tmp_path / "model", model, model_type)
    result = cut(folder, str(tmp_path / "out"), [1, 3] if model_type == "gpt2" else DROPPED)
    assert result.model_class == type(model).__name__
    loaded, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    expected = outputs(drop_layers(copy.deepcopy(model), [1, 3] if model_type == "gpt2" else DROPPED))
    found = outputs(loaded.eval())
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert result.parameters[0] > result.parameters[1] or model_type == "albert"


def test_the_types_of_the_weights(tmp_path):
    """Unchanged by default, and as asked for with --dtype."""
    folder = saved(tmp_path / "model", with_head("bert", "ForMaskedLM").bfloat16())
    for dtype, expected in ((None, torch.bfloat16), ("fp32", torch.float32), ("fp16", torch.float16)):
        cut(folder, str(tmp_path / "out"), dtype=dtype)
        loaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", dtype="auto")
        assert loaded.dtype == expected and AutoConfig.from_pretrained(tmp_path / "out").dtype == expected


def test_the_outputs_that_a_script_asks_for(tmp_path):
    """Settings that layerdrop itself does not use stay in config.json."""
    folder = saved(tmp_path / "model", with_head("bert", "ForMaskedLM"))
    asked = {"output_hidden_states": True, "output_attentions": True, "return_dict": False}
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | asked))
    cut(folder, str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text()).items() >= asked.items()
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    _, states, attentions = loaded(**tiny.batch())
    assert len(states) == len(attentions) + 1 == loaded.config.num_hidden_layers + 1


def sentence_encoder(folder: Path, transformer: str) -> str:
    """A sentence encoder in the layout of sentence-transformers."""
    saved(folder / transformer, with_head("bert", "AutoModel"))
    modules = [transformer, "1_Pooling", "2_Dense", "3_Normalize"]
    (folder / "modules.json").write_text(
        json.dumps([{"idx": i, "name": str(i), "path": path, "type": "x"} for i, path in enumerate(modules)])
    )
    (folder / modules[3]).mkdir()  # Normalize has no files
    for name in modules[1:3]:
        (folder / name / "cache").mkdir(parents=True)  # no file in it
        (folder / name / "config.json").write_text(f'{{"of": "{name}"}}')
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"weights of the dense module")
    (folder / transformer / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    (folder / "config_sentence_transformers.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    return str(folder)


@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
def test_a_sentence_encoder_keeps_its_modules(tmp_path, transformer):
    folder = sentence_encoder(tmp_path / "model", transformer)
    words = [folder, "--drop_strategy", "top", "--drop_k", "4", "--output_dir", str(tmp_path / "out")]
    assert run_command("cut", words) == 0
    before, after = files_in(folder), files_in(tmp_path / "out")
    same = ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    same += ["config_sentence_transformers.json", str(Path(transformer, "sentence_bert_config.json"))]
    same += [str(Path(transformer, "tokenizer.json"))]
    assert all(after[name] == before[name] for name in same) and "notes.txt" not in after
    assert run_command("cut", words) == 0 and files_in(tmp_path / "out") == after  # replaces its own folder
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "out" / transformer)
    assert loaded.config.num_hidden_layers == 2 and len(loaded.encoder.layer) == 2
    assert "library_name: sentence-transformers" in (tmp_path / "out" / "README.md").read_text()


def test_kept_layers_of_a_sentence_encoder_in_a_subfolder(tmp_path):
    folder = sentence_encoder(tmp_path / "model", "0_Transformer")
    assert run_command("cut", [folder, "--keep_layers", "0,2", "--output_dir", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "layers.json").read_text())["kept"] == [0, 2]


def test_a_refused_model_is_named_as_the_argument_of_the_command(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "t5"}))
    words = [str(tmp_path / "model"), "--keep_layers", "0,2", "--output_dir", str(tmp_path / "out")]
    assert run_command("cut", words) == 2
    assert f"error: MODEL {tmp_path / 'model'}: model type 't5' cannot be reduced" in capsys.readouterr().err


def test_command(tmp_path, monkeypatch, capsys):
    """It cuts a cut checkpoint again, replaces its own folder, and keeps everything else."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model", with_head("bert", "ForMaskedLM"))
    capsys.readouterr()
    words = ["model", "--drop_strategy", "symmetric", "--drop_k", "2", "--output_dir", "out"]
    assert run_command("cut", words) == 0
    out = capsys.readouterr().out
    assert out.startswith("out: BertForMaskedLM with layers 0, 1, 4, 5 of 6; ") and "parameters (-" in out
    facts = json.loads(Path("out/layers.json").read_text())
    assert facts["kept"] == [0, 1, 4, 5] and facts["dropped"] == [2, 3] and facts["base_model"] == "model"
    assert AutoTokenizer.from_pretrained("out").vocab_size == AutoTokenizer.from_pretrained("model").vocab_size
    assert run_command("cut", ["out", "--drop_layers", "1", "--output_dir", "again"]) == 0
    assert json.loads(Path("again/layers.json").read_text())["kept"] == [0, 4, 5]
    assert read_layers_file("out/layers.json") == (2, 3)  # for a run with --drop_strategy list
    assert Checkpoint.open("again").original_ids == [0, 4, 5]  # a run of it counts in the original model
    assert run_command("cut", words) == 0  # its own folder
    Path("out/notes.txt").write_text("mine")
    assert run_command("cut", words) == 2 and "holds notes.txt. This command did not write it" in (
        capsys.readouterr().err
    )
    assert Path("out/notes.txt").read_text() == "mine" and not list(tmp_path.glob(".*"))
    Path("out/notes.txt").unlink()
    Path("out/plans/later").mkdir(parents=True)  # a folder without files is the user's, too
    assert run_command("cut", words) == 2 and "holds plans. This command did not write it" in capsys.readouterr().err
    assert Path("out/plans/later").is_dir()


def test_a_folder_that_is_filled_while_the_model_is_written(tmp_path, monkeypatch):
    """A file of the user that appears after the first check is kept."""
    folder = saved(tmp_path / "model", with_head("bert", "AutoModel"))
    cut(folder, str(tmp_path / "out"))
    before = files_in(tmp_path / "out")
    usual = writing.save_torch_state_dict

    def save(*arguments, **more):
        usual(*arguments, **more)
        (tmp_path / "out" / "notes.txt").write_text("mine")

    monkeypatch.setattr(writing, "save_torch_state_dict", save)
    with pytest.raises(UserError, match="holds notes.txt"):
        cut(folder, str(tmp_path / "out"), [0])
    assert files_in(tmp_path / "out") == before | {"notes.txt": b"mine"} and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("strategy", ["contribution", "block-influence", "logit-kl", "loss-drop", "variance"])
def test_scores_read_texts(tmp_path, monkeypatch, capsys, strategy):
    """The same layers as a run selects from the same texts; criteria with a head use the masked-LM head."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model", with_head("bert", "ForMaskedLM"))
    Path("texts.txt").write_text("".join(f"w{i} w{i + 1} w{i + 2}\n" for i in range(20)))
    Path("texts.csv").write_text("text,id\n" + "".join(f"w{i} w{i + 1} w{i + 2},{i}\n" for i in range(20)))
    Path("texts.conll").write_text("\n".join(f"w{i} B\nw{i + 1} I\nw{i + 2} O\n" for i in range(20)))
    words = ["model", "--drop_strategy", strategy, "--drop_k", "2", "--output_dir", "out"]
    if strategy != "variance":
        assert run_command("cut", words) == 2 and "reads texts. Add --texts FILE" in capsys.readouterr().err
    kept = []
    for name in ("texts.txt", "texts.csv", "texts.conll"):
        assert run_command("cut", [*words, *(["--texts", name] if strategy != "variance" else [])]) == 0
        kept.append(json.loads(Path("out/layers.json").read_text())["kept"])
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) == 4


def test_words_of_conll_are_joined(tmp_path, monkeypatch):
    """As the words of a list; the same vocabulary remains as for the lines."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model", with_head("bert", "ForTokenClassification"))
    Path("x.txt").write_text("w1 w2\nw3\n")
    Path("x.conll").write_text("-DOCSTART- O\n\nw1 B-a\nw2 O\n\nw3 O\n")
    Path("x.jsonl").write_text('{"words": ["w1", "w2"], "tags": [1, 0]}\n{"words": ["w3"], "tags": [0]}\n')
    for name in ("x.conll", "x.jsonl"):
        assert read_columns(read_table("--texts", name), ()).texts == [("w1 w2",), ("w3",)]
    for name in ("x.txt", "x.conll", "x.jsonl"):
        assert run_command("cut", ["model", "--trim_vocabulary", name, "--output_dir", name[2:]]) == 0
    vocabulary = set(AutoTokenizer.from_pretrained("txt").get_vocab())
    assert {"w1", "w2", "w3"} <= vocabulary and not {"w4", "B-a", "O"} & vocabulary
    assert files_in("txt") == files_in("conll") == files_in("jsonl")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--drop_strategy", "top", "--drop_k", "2"], "MODEL nowhere: no such folder"),
        (
            ["--drop_startegy", "top"],
            "--drop_startegy: no such flag. Did you mean --drop_strategy?",
        ),
        (["--texs", "t"], "--texs: no such flag. Did you mean --texts?"),
        (["model", "--k", "2"], "--k: no such flag. Did you mean --drop_k?"),
        (
            ["model", "--drop_strategy", "taylor", "--drop_k", "1", "--texts", __file__],
            "model: has no head for taylor. Needed: a masked-LM head. Choose another criterion",
        ),
        (["model", "--drop_layers", "4", "5"], "'5' is not the value of a flag. Write layer ids without spaces"),
        (["model", "x"], "unexpected argument 'x'. See layerdrop cut --help."),
        (
            ["model", "--drop_strategy", "top", "--drop_k", "2", "--texts", "t"],
            "--texts t: --drop_strategy top reads no texts",
        ),
        (["model"], "no layer to drop. Add --drop_strategy"),
        (
            ["model", "--drop_strategy", "greedy", "--drop_k", "2"],
            "needs the result of a search. Add --drop_order_file",
        ),
        (["model", "--drop_k", "x"], "--drop_k: not a whole number: 'x'. See layerdrop cut --help."),
        (["model", "--drop_k", "2"], "--drop_k: needs a strategy"),
        (["model", "--drop_strategy", "top", "--drop_k", "6"], "must keep at least one"),
        (["model", "--drop_strategy", "top", "--drop_k", "2", "--learning_rate", "1"], "--learning_rate: no such flag"),
        (["model", "--drop_strategy", "greedy", "--drop_k", "2"], "greedy"),
    ],
)
def test_what_cannot_be_cut(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model", with_head("bert", "AutoModel"))
    capsys.readouterr()
    assert run_command("cut", [*words, "--output_dir", "out"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == err.count("error: ") and not Path("out").exists()


def test_weights_under_other_names_are_refused(tmp_path, capsys):
    folder = saved(tmp_path / "model", with_head("bert", "AutoModel"))
    weights = load_file(f"{folder}/model.safetensors")
    other = {name.replace("encoder.layer.3", "encoder.block.3"): value for name, value in weights.items()}
    save_file(other, f"{folder}/model.safetensors", metadata={"format": "pt"})
    words = [folder, "--drop_strategy", "top", "--drop_k", "2", "--output_dir", str(tmp_path / "out")]
    assert run_command("cut", words) == 2 and "have no weight encoder.layer.3" in capsys.readouterr().err


def test_a_run_of_the_cut_starts_as_a_run_that_drops_these_layers(tmp_path):
    """The same weights, new head included."""
    folder = saved(tmp_path / "model", with_head("bert", "ForMaskedLM"))
    cut(folder, str(tmp_path / "out"))
    models = []
    for arguments in ((str(tmp_path / "out"),), (folder, DROPPED)):
        set_seed(1)
        models.append(load_classifier(*arguments)[0].state_dict())
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_modules_outside_the_folder_are_refused(tmp_path, capsys):
    folder = sentence_encoder(tmp_path / "model", "")
    (tmp_path / "secret").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "secret")
    for path in ("../secret", str(tmp_path / "secret"), "link"):
        modules = [{"idx": 0, "path": ""}, {"idx": 1, "path": path}]
        (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
        words = [folder, "--drop_strategy", "top", "--drop_k", "4", "--output_dir", str(tmp_path / "out")]
        assert run_command("cut", words) == 2 and "is outside the folder of the checkpoint" in capsys.readouterr().err


def test_the_models_own_folder_is_no_output(tmp_path, capsys, monkeypatch):
    """Also if it is an earlier cut, and also a folder in it."""
    monkeypatch.chdir(tmp_path)
    cut(saved(tmp_path / "model", with_head("bert", "AutoModel")), "once")
    for output in ("once", "once/deeper"):
        assert run_command("cut", ["once", "--drop_layers", "0", "--output_dir", output]) == 2
        assert "is the folder of MODEL, or in it" in capsys.readouterr().err
    assert json.loads(Path("once/layers.json").read_text())["kept"] == [0, 1, 3]


@pytest.mark.parametrize("model_type", ["roberta", "gpt2", "bert"])
def test_tied_weights_of_a_bin_file_keep_their_names(tmp_path, model_type):
    head = "ForCausalLM" if model_type == "gpt2" else "ForMaskedLM"
    model = with_head(model_type, head)
    folder = saved(tmp_path / "model", model, model_type)
    Path(folder, "model.safetensors").unlink()
    torch.save(model.state_dict(), f"{folder}/pytorch_model.bin")
    cut(folder, str(tmp_path / "out"), [5])
    _, info = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not [name for name in info["missing_keys"] if "pooler" not in name]
    expected, loaded = drop_layers(copy.deepcopy(model), [5]), type(model).from_pretrained(tmp_path / "out").eval()
    assert torch.equal(outputs(loaded)["logits"], outputs(expected)["logits"])


def test_an_incomplete_layer_and_an_overflow_are_refused(tmp_path, capsys):
    folder = saved(tmp_path / "model", with_head("bert", "AutoModel"))
    weights = load_file(f"{folder}/model.safetensors")
    words = [folder, "--drop_layers", "5", "--output_dir", str(tmp_path / "out")]
    weights["embeddings.word_embeddings.weight"][0, 0] = 1e5
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    assert run_command("cut", [*words, "--dtype", "fp16"]) == 2
    assert "--dtype fp16: embeddings.word_embeddings.weight has values" in capsys.readouterr().err
    del weights["encoder.layer.1.attention.self.query.weight"]
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    assert run_command("cut", words) == 2
    assert "no weight encoder.layer.1.attention.self.query.weight" in capsys.readouterr().err


def test_a_configuration_without_a_class(tmp_path):
    folder = saved(tmp_path / "model", with_head("bert", "AutoModel"))
    config = json.loads(Path(folder, "config.json").read_text())
    del config["architectures"]
    Path(folder, "config.json").write_text(json.dumps(config))
    assert cut(folder, str(tmp_path / "out")).model_class == "BertModel"
