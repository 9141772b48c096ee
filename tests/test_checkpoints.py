import http.server
import threading
import time

import huggingface_hub
import pytest

from layerdrop import checkpoints
from layerdrop.errors import UserError
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


def test_what_is_not_there_is_named():
    with pytest.raises(UserError, match="bert-base-uncased: .*hub cannot be reached. Without a hub: .*--data_dir"):
        checkpoints.load_config("bert-base-uncased")
    with pytest.raises(UserError, match="tokenizer"):
        checkpoints.load_tokenizer("no/such-model")
    with pytest.raises(UserError, match="weights"):
        checkpoints.open_weights("no/such-model")


def test_folder_without_a_checkpoint(tmp_path):
    for look in (checkpoints.load_config, checkpoints.load_tokenizer, checkpoints.open_weights):
        with pytest.raises(UserError, match=f"{tmp_path}: no .* in this folder"):
            look(str(tmp_path))


def test_damaged_weights(tmp_path):
    tiny.config("bert").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(UserError, match="model.safetensors cannot be read safely"):
        checkpoints.open_weights(str(tmp_path))


def test_remote_code_is_off(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text("raise SystemExit('executed')")
    with pytest.raises(UserError, match="runs code of its own. If you trust it, add --trust_remote_code"):
        checkpoints.load_config(str(tmp_path))


def test_weights_are_read_lazily(bert):
    weights = checkpoints.open_weights(bert)
    assert all(hasattr(value, "get_shape") for value in weights.values())


def test_folder_without_a_tokenizer(tmp_path):
    """The library would make one up that knows no word."""
    tiny.model("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no tokenizer in this folder"):
        checkpoints.load_tokenizer(str(tmp_path))


def test_names_of_nothing(tmp_path):
    with pytest.raises(UserError, match="/nowhere: no such folder"):
        checkpoints.load_config("/nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json: is a file. Give the folder"):
        checkpoints.load_config(str(tmp_path / "config.json"))


def test_fingerprint_tells_weights_apart(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.model("bert", seed=seed).save_pretrained(tmp_path / name)
    marks = [checkpoints.fingerprint(str(tmp_path / name), None) for name in "abc"]
    assert marks[0] == marks[1] != marks[2]
