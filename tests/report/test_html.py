"""The report as one page: what it holds, and what a browser makes of it."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from layerdrop.cli.command import run_command
from layerdrop.report.frame import frame
from layerdrop.report.html import page
from layerdrop.report.records import StoredRuns
from layerdrop.report.table import render
from layerdrop.report.tables.cost import cost_tables
from layerdrop.report.tables.scores import task_tables
from tests.report.test_report import elastic_runs, record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()
QUIET += ["--disable-component-update", "--disable-sync", "--enable-logging=stderr"]


def runs():
    found = [record(seed=s, accuracy=a) for s, a in ((1, 0.60), (2, 0.66), (3, 0.62))]
    found += [record(k=k, seed=1, accuracy=a, train=t) for k, a, t in ((2, 0.55, 8.0), (4, 0.58, 5.0))]
    found += [
        record("cola", accuracy={"matthews_correlation": 0.5}),
        record("stsb", accuracy={"pearson": float("nan")}),
    ]
    found[0].notes = ["a note with </script><b>markup</b>"]
    found[0].epochs = [{"epoch": 1.0, "train_loss": 0.7}, {"epoch": 2.0, "train_loss": 0.5, "loss": 0.6}]
    return found


def made(refresh=None):
    failed = record(k=6)
    failed.status, failed.error = "failed", "training diverged"
    return page(StoredRuns(runs(), [failed]), frame(runs()), ["some <note>"], refresh)


def data(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_what_it_holds():
    text = made()
    found = data(text)
    full, two, four = found["rows"]
    assert (full["strategy"], full["k"]) == ("full", 0) and len(full["runs"]) == 5
    assert full["cells"]["RTE acc"] == {"score": 62.0, "words": "62.0", "more": "[60.0, 66.0]"}
    assert full["cells"]["STS-B Pearson"] == {"score": None, "words": "constant", "more": "n=1"}
    assert [row["mark"] for row in found["rows"]] == [None, 0, 0]  # top's
    assert two["cells"]["RTE acc"]["more"] == "n=1 -5.0" and four["k"] == 4
    assert two["speed_up"] is None and two["speed_up_words"] == "missing"  # not every task was run
    assert "--drop_strategy top --drop_k 2" in two["runs"][0]["command"]
    assert found["failed"][0]["error"] == "training diverged" and found["notes"] == ["some <note>"]
    assert len(text) < 2_000_000 and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("</script>") == 2 and "refresh" not in text and 'content="7"' in made(7)


def test_times_are_written_as_in_the_cost_table():
    found = [record(), record(k=6, train=8.0, inference=0.22)]
    (table,), rows = cost_tables(frame(found)), data(page(StoredRuns(found), frame(found), []))["rows"]
    assert table.header[-2:] == ["fine-tuning speed-up", "inference time"] and table.rows[1][-2:] == ["1.25", "-78%"]
    assert [[row["speed_up_words"], row["inference_words"]] for row in rows] == [row[-2:] for row in table.rows]


@pytest.mark.parametrize("accuracy", [0.7125, 0.7135, 0.71249999, 0.5, 0.48375])
def test_a_number_is_rounded_as_in_the_other_tables(accuracy):
    """71.25 is 71.2 in Markdown, LaTeX and on the page, and so is the mean, which the page's script computes."""
    found = [record(accuracy=accuracy), record(k=2, accuracy=accuracy + 0.0004)]
    text = page(StoredRuns(found), frame(found), [])
    (table,) = task_tables(frame(found))
    rows = data(text)["rows"]
    assert [" ".join(filter(None, [row["cells"]["RTE acc"][name] for name in ("words", "more")])) for row in rows] == [
        row[2] for row in table.rows
    ]
    assert f"& {table.rows[0][2]} &" in " ".join(render([table], "latex").split())
    if NODE:
        script = text[text.index("const formats") : text.index("function make(")]
        shown = f"{script}; console.log(shown({rows[0]['cells']['RTE acc']['score']!r}))"
        assert subprocess.run([NODE, "-e", shown], capture_output=True, text=True).stdout.strip() == table.rows[0][3]


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in runs():
        run.folder = f"store/{run.id}"
        run.write()
    assert run_command("report", ["store", "--html", "new/report.html"]) == 0
    assert "new/report.html" in capsys.readouterr().err and len(data(Path("new/report.html").read_text())["rows"]) == 3
    assert run_command("report", ["store", "--watch"]) == 2 and "needs --html" in capsys.readouterr().err

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("layerdrop.report.contents.time.sleep", stop)
    assert run_command("report", ["store", "--html", "live.html", "--watch"]) == 130
    assert 'http-equiv="refresh"' in Path("live.html").read_text()
    Path("empty").mkdir()
    assert run_command("report", ["empty", "--html", "none.html", "--watch"]) == 130 and not Path("none.html").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(tmp_path):
    """Rows, sorting, filters, details; nothing is said on the console."""
    script = """<script>
      const found = [], strategies = () => [...document.querySelectorAll("tr.row")].map(row => row.innerText);
      const all = where => [...document.querySelectorAll(where + " button")];
      const press = (where, words) => all(where).find(button => button.innerText === words).click();
      found.push(strategies().length);
      press("th", "RTE acc"); found.push(strategies()[0].includes("full"));
      press("th", "RTE acc"); found.push(strategies()[0].includes("55.0"));
      found.push(strategies()[0].trimEnd().endsWith("missing\\tmissing"));
      press("#filters", "4"); found.push(strategies().length);
      document.querySelector("tr.row").click(); found.push(document.querySelectorAll("tr.open pre").length);
      press("#filters", "RTE acc");
      found.push(document.querySelectorAll("#by-k circle").length, document.querySelectorAll("b").length);
      document.title = "found " + JSON.stringify(found);
    </script></body>"""
    assert browsed(made(), script, tmp_path) == "[3,true,true,true,2,1,2,0]"


def browsed(text: str, script: str, folder) -> str:
    """The title that a script gives a page; nothing may be said on the console."""
    file = folder / "report.html"
    file.write_text(text.replace("</body>", script))
    words = [CHROMIUM, *QUIET, f"--user-data-dir={folder}/browser", "--dump-dom", f"file://{file}"]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    return re.search(r"<title>found (.*?)</title>", shown.stdout)[1]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_task_with_a_setting_of_its_own(tmp_path):
    """Means are over the tasks of each setting, and nothing is missing that belongs to another."""
    found = [record(task, k=k, max_train_samples=n) for task, n in (("rte", None), ("sst2", 64)) for k in (0, 2)]
    script = """<script>
      document.title = "found " + [document.querySelectorAll("#by-k circle").length,
        document.getElementById("table").innerText.includes("missing")];
    </script></body>"""
    assert browsed(page(StoredRuns(found, []), frame(found), []), script, tmp_path) == "4,false"


def sets_of_five(n: int) -> list:
    """The full model, and n sets of five layers with growing accuracy."""
    layers = list(itertools.combinations(range(12), 5))[:n]
    return [record(), *(record(k=None, strategy="list", layers=ids, accuracy=i / 1000) for i, ids in enumerate(layers))]


def test_without_a_plain_full_model():
    """Rows name the full model of their differences. A speed-up is relative to the plain full model alone."""
    found = elastic_runs()
    rows = data(page(StoredRuns(found), frame(found), []))["rows"]
    assert {row["model"] for row in rows} == {"bert-base-uncased, compared with full, elastic"}
    assert {row["speed_up"] for row in rows} == {None} and rows[0]["inference"] == 1.0
    rows = data(page(StoredRuns(found), frame([record(), *found]), []))["rows"]
    assert [row["speed_up"] for row in rows] == [1.0] * 4 and rows[0]["model"] == "bert-base-uncased"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_line_starts_at_k_0_of_its_training(tmp_path):
    """As in the figures: `top, elastic` at `full, elastic`, which has no line of its own."""
    found = [record(accuracy=0.9), record(k=2, accuracy=0.8), *elastic_runs()]
    text = page(StoredRuns(found), frame(found), [])
    starts = {" ".join((row["strategy"], str(row["k"]))): row["start"][0] for row in data(text)["rows"]}
    assert starts["top 2"] == "full" and starts["top, elastic 2"] == starts["top, elastic 4"] == "full, elastic"
    script = """<script>
      document.title = "found " + JSON.stringify(["by-k", "by-speed"].map(id => [
        document.querySelectorAll(`#${id} circle`).length, document.querySelectorAll(`#${id} path`).length]));
    </script></body>"""
    assert browsed(text, script, tmp_path) == "[[5,2],[5,2]]"


def test_a_difference_without_a_common_seed_is_marked():
    found = [record(accuracy=0.6), record(k=2, seed=2, accuracy=0.5)]
    text = page(StoredRuns(found), frame(found), [])
    assert data(text)["rows"][1]["cells"]["RTE acc"]["more"] == "-10.0 (other seeds)"
    assert "difference to the full model over the seeds of both" in " ".join(text.split())


def test_sets_of_layers_are_one_series():
    found = sets_of_five(2)
    assert [row["legend"] for row in data(page(StoredRuns(found), frame(found), []))["rows"]] == [
        "full",
        "list",
        "list",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_many_rows_in_a_browser(tmp_path):
    """The table shows the first 500 rows in its order, and the others on demand. Sets of equal size have no line."""
    script = """<script>
      const found = [], all = where => [...document.querySelectorAll(where)];
      const press = words => all("button").find(button => button.innerText === words).click();
      press("RTE acc"); found.push(all("tr.row").length, all("tr.row")[0].innerText.includes("59.9"));
      press("Show all 601 rows"); found.push(all("tr.row").length, document.querySelectorAll("#more button").length);
      found.push(document.querySelectorAll("#by-k circle").length, document.querySelectorAll("#by-k path").length);
      document.title = "found " + JSON.stringify(found);
    </script></body>"""
    found = sets_of_five(600)
    assert browsed(page(StoredRuns(found), frame(found), []), script, tmp_path) == "[500,true,601,0,600,0]"
