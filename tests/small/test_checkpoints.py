import http.server
import re
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from layerdrop import checkpoints
from layerdrop.architectures import HubOptions, ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.data.examples import Examples
from layerdrop.data.labels import head_kind
from layerdrop.data.tokens import tokenize
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier
from tests import tiny


@pytest.fixture
def hub(monkeypatch):
    """Set the hub's address; the libraries' offline mode is off at first and put back afterwards."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return lambda address: monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)


def test_a_hub_that_answers(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub(f"http://127.0.0.1:{server.server_port}")
    assert checkpoints.work_offline_unless_reachable() and not huggingface_hub.is_offline_mode()
    server.shutdown()


def test_a_hub_that_refuses(hub):
    hub("http://127.0.0.1:1")
    assert not checkpoints.work_offline_unless_reachable() and huggingface_hub.is_offline_mode()


def test_a_hub_that_never_answers(hub, monkeypatch):
    import socket

    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    monkeypatch.setattr(checkpoints, "HUB_TIMEOUT", 0.2)
    hub(f"http://127.0.0.1:{silent.getsockname()[1]}")
    start = time.perf_counter()
    assert not checkpoints.work_offline_unless_reachable()
    assert time.perf_counter() - start < 2
    silent.close()


def weights_of(name):
    return Checkpoint.open(ModelSpec(name)).weights()


def tokenizer_of(name):
    return Checkpoint(ModelSpec("bert", tokenizer=name), HubOptions(), tiny.config("bert")).tokenizer


def test_what_is_not_there_is_named(bert):
    with pytest.raises(UserError, match="bert-base-uncased: .*hub cannot be reached. Give the folder .*--data_dir"):
        Checkpoint.open("bert-base-uncased")
    with pytest.raises(UserError, match=r"no/such-model: not a folder, not in the local cache \(no tokenizer\)"):
        tokenizer_of("no/such-model")
    with pytest.raises(UserError, match="--score_on no/such-model: .*config.json"):
        Checkpoint.open("no/such-model", flag="--score_on")


def test_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: no usable config.json in this folder"):
        Checkpoint.open(str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}: no usable tokenizer in this folder"):
        tokenizer_of(str(tmp_path))
    tiny.config("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: no usable weights in this folder"):
        weights_of(str(tmp_path))


def test_damaged_weights(tmp_path):
    tiny.config("bert").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(UserError, match="model.safetensors cannot be read .* It is damaged. Get the checkpoint again"):
        weights_of(str(tmp_path))


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    """And not with torch's advice to switch its protection off."""
    tiny.config("bert").save_pretrained(tmp_path)
    torch.save({"x": Path("/")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"safetensors.torch.save_file\(torch.load") as refused:
        weights_of(str(tmp_path))
    assert "likely succeed" not in str(refused.value) and "\n" not in str(refused.value)


def test_remote_code_is_off(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text("raise SystemExit('executed')")
    with pytest.raises(UserError, match="needs custom code. If you trust it, use layerdrop run or cut with --trust"):
        Checkpoint.open(str(tmp_path))


def test_weights_are_read_lazily(bert):
    assert all(hasattr(value, "get_shape") for value in weights_of(bert).values())


def test_folder_without_a_tokenizer(tmp_path):
    """The library would make one up that knows no word."""
    tiny.model("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no usable tokenizer in this folder"):
        Checkpoint.open(str(tmp_path)).tokenizer  # noqa: B018


def test_names_of_nothing(tmp_path):
    with pytest.raises(UserError, match="/nowhere: no such folder"):
        Checkpoint.open("/nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json: is a file. Give the folder"):
        Checkpoint.open(str(tmp_path / "config.json"))


def test_fingerprints_tell_contents_apart(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.save(tmp_path / name, seed=seed)
    a, b, c = (Checkpoint.open(str(tmp_path / name)).fingerprints for name in "abc")
    assert a == b and a["model"] != c["model"] and a["tokenizer"] == c["tokenizer"]
    change(tmp_path / "a" / "config.json", b'"layer_norm_eps": 1e-12', b'"layer_norm_eps": 1e-11')
    change(tmp_path / "b" / "tokenizer.json", b'"w1"', b'"w0"')
    changed_a, changed_b = (Checkpoint.open(str(tmp_path / name)).fingerprints for name in "ab")
    assert changed_a["model"] != a["model"] and changed_a["tokenizer"] == a["tokenizer"]
    assert changed_b["model"] == a["model"] and changed_b["tokenizer"] != a["tokenizer"]
    other = Checkpoint.open(ModelSpec(str(tmp_path / "c"), tokenizer=str(tmp_path / "b"))).fingerprints
    assert other == {"model": c["model"], "tokenizer": changed_b["tokenizer"]}


def change(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_a_fingerprint_covers_the_whole_file(tmp_path):
    """Also what lies beyond the first MiB."""
    (tmp_path / "model.safetensors").write_bytes(bytes(3 * 2**20))
    before = checkpoints._fingerprint(str(tmp_path), checkpoints.WEIGHTS, None)
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert checkpoints._fingerprint(str(tmp_path), checkpoints.WEIGHTS, None) != before


def test_a_file_that_has_not_changed_is_hashed_once(tmp_path, monkeypatch):
    folder = tiny.save(tmp_path / "bert")
    first = Checkpoint.open(folder).fingerprints
    monkeypatch.setattr(checkpoints.hashlib, "sha256", counted := Counted(checkpoints.hashlib.sha256))
    assert Checkpoint.open(folder).fingerprints == first
    assert counted.files == 0
    (Path(folder) / "model.safetensors").touch()
    assert Checkpoint.open(folder).fingerprints == first and counted.files == 1


class Counted:
    """Counts the digests that get more than the line for a file."""

    def __init__(self, make):
        self.make, self.files = make, 0

    def __call__(self):
        counter, digest = self, self.make()

        class Digest:
            def update(self, piece):
                counter.files += len(piece) > 1000
                digest.update(piece)

            hexdigest = digest.hexdigest

        return Digest()


def test_a_reduced_checkpoint_knows_its_original_ids(tmp_path):
    model, _ = load_classifier(tiny.save(tmp_path / "bert"), [1, 4])
    model.save_pretrained(tmp_path / "reduced")
    reduced = Checkpoint.open(str(tmp_path / "reduced"))
    assert (reduced.n_layers, reduced.n_original, reduced.original_ids) == (4, 6, [0, 2, 3, 5])
    full = Checkpoint.open(str(tmp_path / "bert"))
    assert (full.n_layers, full.n_original, full.original_ids) == (6, 6, [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("model_type", "length"),
    [("bert", 64), ("electra", 64), ("distilbert", 64), ("roberta", 63), ("camembert", 63), ("xlm-roberta", 63)]
    + [("mpnet", 62), ("longformer", 63), ("deberta", 64)],
)
def test_longest_input_without_a_tokenizers_limit(model_type, length, tmp_path):
    """As many tokens as the model computes; one more fails (of those whose positions are a table)."""
    pad = {"pad_token_id": 1} if model_type == "mpnet" else {}
    folder = tiny.save(tmp_path / model_type, model_type, **pad)
    change(Path(folder) / "tokenizer_config.json", b'"model_max_length": 64', b'"model_max_length": 1e30')
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.max_length() == length
    model, _ = load_classifier(checkpoint)
    for tokens in (length, length + 1):
        ids = torch.full((1, tokens), 7)
        if tokens > length and model_type != "deberta":
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
        elif tokens == length:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_the_lower_limit_counts(bert, tmp_path):
    assert Checkpoint.open(bert).max_length() == 64
    folder = tiny.save(tmp_path / "short")
    change(Path(folder) / "tokenizer_config.json", b'"model_max_length": 64', b'"model_max_length": 20')
    assert Checkpoint.open(folder).max_length() == 20
    change(Path(folder) / "tokenizer_config.json", b'"model_max_length": 20', b'"model_max_length": 80')
    assert Checkpoint.open(folder).max_length() == 64  # the model has no more positions
    xlnet = tiny.save(tmp_path / "xlnet", "xlnet")
    change(Path(xlnet) / "tokenizer_config.json", b'"model_max_length": 64', b'"model_max_length": 1e30')
    assert Checkpoint.open(xlnet).max_length() >= 10**6


def test_what_a_trained_head_says(tmp_path):
    tiny.model("bert", num_labels=1).save_pretrained(tmp_path / "value")
    tiny.model("bert").save_pretrained(tmp_path / "two")
    tiny.model("bert", id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1}).save_pretrained(tmp_path / "named")
    tiny.model("bert").base_model.save_pretrained(tmp_path / "base")
    said = {name: Checkpoint.open(str(tmp_path / name)) for name in ("value", "two", "named", "base")}
    assert [str(head_kind(c)) for c in said.values()] == ["numbers", "2 classes", "2 classes", "None"]
    assert [c.label_names for c in said.values()] == [[], [], ["yes", "no"], []]


# ---- checkpoints that cannot be used as they are ---------------------------------------------------------------------
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "model.safetensors",
            POINTER,
            "model.safetensors is a pointer of Git LFS, not the file. Fetch it: git lfs pull",
        ),
        ("pytorch_model.bin", POINTER, "pytorch_model.bin is a pointer of Git LFS"),
        ("pytorch_model.bin", b"<!DOCTYPE html><html>", r"pytorch_model.bin cannot be read \(.*\). It is damaged"),
        ("config.json", POINTER, "config.json is a pointer of Git LFS"),
        ("tokenizer.json", POINTER, "tokenizer.json is a pointer of Git LFS"),
        ("vocab.txt", POINTER, "vocab.txt is a pointer of Git LFS"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path, file, content, said):
    folder = Path(tiny.save(tmp_path / "bert"))
    if file.endswith(".bin"):
        (folder / "model.safetensors").unlink()
    if file == "vocab.txt":  # read where there is no tokenizer.json: a vocabulary of three lines
        (folder / "tokenizer.json").unlink()
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=said) as refused:
        checkpoint = Checkpoint.open(str(folder))
        checkpoint.tokenizer, checkpoint.weights()
    assert "\n" not in str(refused.value) and "weights_only=False" not in str(refused.value)


def test_a_pointer_beside_what_is_read_does_not_matter(tmp_path):
    folder = Path(tiny.save(tmp_path / "bert"))
    for name in ("pytorch_model.bin", "vocab.txt"):
        (folder / name).write_bytes(POINTER)
    assert Checkpoint.open(str(folder)).weights() and Checkpoint.open(str(folder)).tokenizer


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float8_e4m3fn"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_quantised_weights_are_refused(tmp_path, dtype, file):
    folder, model = Path(tiny.save(tmp_path / "bert")), tiny.model("bert")
    state, name = model.state_dict(), "bert.encoder.layer.2.output.dense.weight"
    state |= {name: state[name].to(getattr(torch, dtype)), "bert.embeddings.position_ids": torch.arange(64)}
    (folder / "model.safetensors").unlink()
    (save_file if file.endswith("safetensors") else torch.save)(state, folder / file)
    with pytest.raises(UserError, match=f"--teacher .*bert: is quantized \\({name} is .*\\). Give the unquantized"):
        Checkpoint.open(str(folder), flag="--teacher").weights()


def test_a_quantised_configuration_is_refused(tmp_path):
    folder = tiny.save(tmp_path / "bert")
    change(Path(folder) / "config.json", b"{", b'{"quantization_config": {"quant_method": "gptq", "bits": 4},')
    with pytest.raises(UserError, match=r"is quantized \(quantization_config in config.json\)"):
        Checkpoint.open(folder)


def test_masks_of_integers_are_no_quantised_weights(tmp_path):
    """Old GPT-2 checkpoints hold their causal masks."""
    folder, model = Path(tiny.save(tmp_path / "gpt2", "gpt2")), tiny.model("gpt2")
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
    torch.save(
        model.state_dict() | {f"transformer.h.{i}.attn.bias": mask for i in range(6)}, folder / "pytorch_model.bin"
    )
    (folder / "model.safetensors").unlink()
    assert load_classifier(str(folder), [1])[0].config.num_hidden_layers == 5


def test_an_adapter_is_not_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"is an adapter \(adapter_config.json\): merge it into its base model"):
        Checkpoint.open(str(tmp_path))
    tiny.save(tmp_path)
    assert Checkpoint.open(str(tmp_path)).notes == [
        f"{tmp_path}: its adapter (adapter_config.json) is ignored. To use it, merge it first"
    ]


def test_a_folder_whose_checkpoint_is_further_in(tmp_path):
    """A sentence-transformers folder of the older layout; a folder of training checkpoints."""
    tiny.save(tmp_path / "0_Transformer")
    (tmp_path / "config.json").write_text('{"__version__": "0.3.0"}')
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 16}')
    with pytest.raises(UserError, match=f"the checkpoint is in {tmp_path}/0_Transformer. Give that folder"):
        Checkpoint.open(str(tmp_path))
    tiny.save(tmp_path / "runs" / "checkpoint-5")
    tiny.save(tmp_path / "runs" / "checkpoint-9")
    with pytest.raises(UserError, match=f"one of 2 checkpoints is in {tmp_path}/runs/checkpoint-9. Give that folder"):
        Checkpoint.open(str(tmp_path / "runs"))
    tiny.save(tmp_path / "runs" / "checkpoint-50")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "config.json").write_bytes(b'\xff "model_type"')
    with pytest.raises(UserError, match=f"one of 3 checkpoints is in {tmp_path}/runs/checkpoint-50. Give that folder"):
        Checkpoint.open(str(tmp_path / "runs"))


def test_a_folder_of_the_hubs_cache(tmp_path):
    tiny.save(tmp_path / "models--x--y" / "snapshots" / "abc")
    with pytest.raises(UserError, match="the checkpoint is in .*/models--x--y/snapshots/abc. Give that folder"):
        Checkpoint.open(str(tmp_path / "models--x--y"))
    with pytest.raises(UserError, match=f"{tmp_path}: no usable config.json .*no such file"):
        Checkpoint.open(str(tmp_path))


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "mpnet", "longformer"])
def test_positions_that_count_from_no_padding(tmp_path, model_type):
    tiny.config(model_type, pad_token_id=None).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="config.json has no pad_token_id, but this model counts positions from it"):
        Checkpoint.open(str(tmp_path))


# ---- tokens that the model has no embedding of -----------------------------------------------------------------------
PAIRS = Examples((["w1 w2", "w3"], ["w4", "w5"]), None, ["0", "1"])


def tokens_of(folder, examples=PAIRS):
    checkpoint = Checkpoint.open(str(folder))
    return tokenize(examples, checkpoint.tokenizer, 32, sizes=checkpoint.embeddings)


def test_tokens_beyond_the_embeddings(tmp_path):
    """Only those count that occur: the library's tokenizers add some that no text has."""
    folder, words = tiny.save(tmp_path / "bert"), tiny.tokenizer()
    words.add_tokens(["dog", "cat"])
    words.save_pretrained(folder)
    assert len(tokens_of(folder)) == 2
    with pytest.raises(UserError, match="bert: gives ids up to 66, the model has 65 embeddings"):
        tokens_of(folder, Examples((["a cat", "w1"],), None, ["0", "1"]))
    words.add_special_tokens({"pad_token": "<pad>"})
    words.save_pretrained(folder)
    with pytest.raises(UserError, match="the tokenizer pads with id 67, the model has 65 embeddings"):
        tokens_of(folder)


def test_token_types_beyond_the_embeddings(tmp_path):
    folder = tiny.save(tmp_path / "roberta", "roberta", type_vocab_size=1)
    tiny.tokenizer().save_pretrained(folder)
    with pytest.raises(UserError, match="roberta: gives token types up to 1, the model has 1 embedding. Give"):
        tokens_of(folder)
    assert len(tokens_of(folder, Examples(PAIRS.texts[:1], None, PAIRS.index))) == 2


@pytest.mark.parametrize(
    "words", ["--do_train --do_predict", "--do_train --teacher {big}", "--dry_run --score_on {big}"]
)
def test_they_are_found_before_anything_is_trained(run, bert, tmp_path, words, monkeypatch):
    """Also those of the test set, and of another model's tokenizer."""
    big = tiny.save(tmp_path / "big", id2label={0: "entailment", 1: "not_entailment"})
    tokens = tiny.tokenizer()
    tokens.add_tokens(["dog"])
    tokens.save_pretrained(big)
    glue = tiny.glue(tmp_path / "glue", "rte")
    path = glue / "RTE" / ("test.tsv" if "predict" in words else "train.tsv")
    path.write_text(path.read_text().replace("w1", "dog").replace("w2", "dog"))
    model = bert if "{big}" in words else big
    monkeypatch.setattr("run_glue.FineTuner", None)
    words = f"--task_name rte --drop_strategy block-influence --drop_k 1 {words.format(big=big)}"
    if "dry_run" in words:
        words += f" --tokenizer_name {big}"
    code, _, _, err = run(words, model=model, data=str(glue), output=None if "dry_run" in words else "out")
    assert code == 2 and "gives ids up to 65, the model has 65 embeddings" in err.splitlines()[-1], err


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ('{"spec": {}}', "this run did not keep its model. Repeat it with --save_model and --overwrite_output_dir"),
        ("{}", "no usable config.json in this folder"),
        (None, "no usable config.json in this folder"),
    ],
)
def test_a_run_without_its_model(tmp_path, record, said):
    (tmp_path / "other.txt").touch()
    if record:
        (tmp_path / "record.json").write_text(record)
    with pytest.raises(UserError, match=f"^MODEL {re.escape(f'{tmp_path}: {said}')}"):
        Checkpoint.open(str(tmp_path), flag="MODEL")
