"""Results that cannot be written are said before anything is computed; what is a user's own is never replaced."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from layerdrop.cli.command import run_command
from layerdrop.errors import UserError
from layerdrop.system import files
from layerdrop.system.files import (
    foreign_file,
    hashes_in,
    make_folder,
    make_folder_of,
    replace_folder,
    temporary_folder_for,
    write_atomically,
)

MARK = rb"\Amade by a test"


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_file_of_a_killed_process_is_used_again(tmp_path):
    (tmp_path / f"{files.TEMPORARY}a.txt").write_text("the content of a killed process, which is longer")
    write_atomically(tmp_path / "a.txt", "new")
    assert content(tmp_path) == {"a.txt": "new"}


def test_two_processes_write_one_file(tmp_path, monkeypatch):
    """The second does not use the temporary file of the first, whenever it begins."""
    path, replace, truncate, begun = tmp_path / "a.txt", os.replace, os.truncate, []

    def other_first(call):
        def called(*args):
            if not begun:
                begun.append(1)
                write_atomically(path, "the other, which is longer")
            call(*args)

        return called

    for name, call in (("replace", replace), ("truncate", truncate)):
        begun.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, other_first(call))
            write_atomically(path, "ours")
        assert begun and content(tmp_path) == {"a.txt": "ours"}
    flock = fcntl.flock
    with monkeypatch.context() as patch:  # the other renames the temporary file between its opening and its lock
        patch.setattr(fcntl, "flock", lambda *args: (replace(temporary, path), flock(*args)))
        temporary = tmp_path / f"{files.TEMPORARY}a.txt"
        temporary.write_text("the other")
        write_atomically(tmp_path / "a.txt", "ours")
    assert content(tmp_path) == {"a.txt": "ours"}


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


def test_folders_are_made(tmp_path):
    make_folder("--store", tmp_path / "a" / "b")
    make_folder_of("--html", tmp_path / "c" / "page.html", MARK)
    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "c").iterdir())
    with pytest.raises(UserError, match=r"--html .*a: is a folder\. Give a file"):
        make_folder_of("--html", tmp_path / "a", MARK)


def test_a_file_of_the_users_own_is_refused(tmp_path):
    """One's own result and an empty file (mktemp's) are replaced; a pipe or a device is not renamed over."""
    path = tmp_path / "a.txt"
    for content in ("", "made by a test: 1"):
        path.write_text(content)
        make_folder_of("--html", path, MARK)
    path.write_text("mine")
    with pytest.raises(UserError, match=r"--html .*a\.txt: exists and is not an earlier result\. Move it away"):
        make_folder_of("--html", path, MARK)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(UserError, match="is not a regular file"):
            make_folder_of("--html", special, MARK)


# ---- folders ---------------------------------------------------------------------------------------------------------
def write_folder(target: Path, text: str) -> None:
    with temporary_folder_for("--output", target) as made:
        for name in ("a", "sub/b"):
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(text)
        replace_folder(made, target)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def killed_before(event: int, work) -> bool:
    """Do the work in a child that dies before its n-th change of the disk. Whether it died."""
    child = os.fork()
    if child == 0:
        left = event

        def count(name, args):
            nonlocal left
            writes = name == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            left -= bool(writes or name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "ctypes.dlopen"))
            if left == 0:
                os._exit(9)

        sys.addaudithook(count)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("in_one_step", [True, False])
@pytest.mark.parametrize("before", ["nothing", "an empty folder", "an old folder"])
def test_a_kill_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch, before, in_one_step):
    """Wherever it happens; the same command then succeeds, and nothing else is left."""
    if not in_one_step:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    new, event, died = {"a": "new", "b": "new"}, 0, True
    old = {"a": "old", "b": "old"} if before == "an old folder" else {}
    while died:
        event += 1
        target = tmp_path / str(event) / "export"
        target.parent.mkdir()
        if before == "an empty folder":
            target.mkdir()
        elif old:
            write_folder(target, "old")
        died = killed_before(event, lambda target=target: write_folder(target, "new"))
        if not in_one_step and not target.exists():  # put back by the next command, even by one that fails
            with pytest.raises(ZeroDivisionError), temporary_folder_for("--output", target):
                raise ZeroDivisionError
        assert content(target) in (old, new)
        write_folder(target, "new")
        assert content(target) == new and [path.name for path in target.parent.iterdir()] == ["export"]
    assert event > 10


def test_a_failure_changes_nothing(tmp_path):
    write_folder(tmp_path / "export", "old")
    with pytest.raises(ZeroDivisionError), temporary_folder_for("--output", tmp_path / "export") as made:
        (made / "a").write_text("half")
        raise ZeroDivisionError
    assert set(content(tmp_path / "export").values()) == {"old"} and len(list(tmp_path.iterdir())) == 1


def test_one_process_at_a_time(tmp_path):
    """Other files in the folder beside the target stay."""
    (tmp_path / ".export.new").mkdir()
    (tmp_path / ".export.new" / "mine").write_text("mine")
    with temporary_folder_for("--output", tmp_path / "export"):
        child = os.fork()
        if child == 0:
            try:
                write_folder(tmp_path / "export", "other")
            except UserError as error:
                os._exit(3 if "another process writes it" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert [path.name for path in (tmp_path / ".export.new").iterdir()] == ["mine"]


def test_foreign_files(tmp_path):
    """Another name, another content, a link, a file in a folder below."""
    write_folder(tmp_path / "export", "x")
    listed = hashes_in(tmp_path / "export")
    assert sorted(listed) == ["a", "sub/b"] and foreign_file(tmp_path / "export", listed) is None
    (tmp_path / "export" / "sub" / "c").write_text("mine")
    assert foreign_file(tmp_path / "export", listed) == "sub/c"
    (tmp_path / "export" / "sub" / "c").unlink()
    (tmp_path / "export" / "a").write_text("changed")
    assert foreign_file(tmp_path / "export", listed) == "a"
    (tmp_path / "export" / "a").unlink()
    (tmp_path / "export" / "a").symlink_to(tmp_path)
    assert foreign_file(tmp_path / "export", listed) == "a"


# ---- scripts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "words", "flag"),
    [
        ("sweep", "s.yaml --workers 1", "--store"),
        ("search", "--model_name_or_path demo --task_name demo-rte --max_k 1 --workers 1", "--store"),
        ("choose-k", "--model_name_or_path demo --tasks demo-rte --k 1 --workers 1", "--store"),
        ("choose-k", "--model_name_or_path demo --tasks demo-rte --k 1 --workers 1", "--figures"),
        ("layers", "profile --models demo --tasks demo-rte", "--store"),
        ("layers", "profile --models demo --tasks demo-rte", "--figures"),
        ("cost", "demo --k 0", "--store"),
    ],
)
def test_commands_refuse_it_at_once(tmp_path, monkeypatch, capsys, command, words, flag):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("settings: {model_name_or_path: demo, task_name: demo-rte}\ngrid: {k: 0}\n")
    Path("file").write_text("mine")
    assert run_command(command, [*words.split(), flag, "file/x"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == f"error: {flag} file/x: cannot write there (Not a directory). Choose another folder."
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize("flag", ["--figures", "--html", "--runs"])
def test_a_report_says_it_before_its_tables(tmp_path, monkeypatch, capsys, run, flag):
    assert run("--task_name rte --max_steps 1 --save_model no")[0] == 0
    Path("file").write_text("mine")
    assert run_command("report", ["out", flag, "file/x"]) == 2
    out, err = capsys.readouterr()
    assert not out and f"{flag} file" in err and "cannot write there" in err.splitlines()[-1]


def test_results_replace_no_file_of_the_users_own(tmp_path, monkeypatch, capsys, run):
    """Twice the same command, then with a file of that name in the way: refused, and the file stays."""
    assert run("--task_name rte --drop_strategy top --drop_k 2")[0] == 0
    Path("texts.txt").write_text("a\tb\n")
    names = ("page.html", "runs.csv", "figures/tinybert_strategies.png", "figures/tinybert_strategies.pdf", "out.tsv")
    page, table, *_, predictions = names
    commands = (
        ("report", ["out", "--html", page, "--runs", table, "--figures", "figures"]),
        ("predict", ["out", "texts.txt", "--output", predictions]),
    )
    for _ in range(2):
        assert [run_command(command, words) for command, words in commands] == [0, 0]
        assert all(Path(name).stat().st_size for name in names)
    for name in names:
        before = Path(name).read_bytes()
        Path(name).write_text("prediction of mine")
        capsys.readouterr()
        assert 2 in [run_command(command, words) for command, words in commands]
        assert f"{name}: exists and is not an earlier result. Move it away" in capsys.readouterr().err
        assert Path(name).read_text() == "prediction of mine"
        Path(name).write_bytes(before)
    assert (
        run_command("predict", ["out", "texts.txt", "--output", "texts.txt"]) == 2
        and Path("texts.txt").read_text() == "a\tb\n"
    )


def test_a_picture_in_the_way_is_said_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loss_by_k.pdf").write_text("mine")
    words = "--model_name_or_path demo --tasks demo-rte --k 1 --workers 1 --figures ."
    assert run_command("choose-k", words.split()) == 2 and not list(Path("runs/choose_k").iterdir())
    assert "--figures loss_by_k.pdf: exists and is not an earlier result" in capsys.readouterr().err
