"""Sweeps on a real Ray cluster of two nodes on this machine."""

import pickle
from pathlib import Path

import pytest

from layerdrop.errors import UserError
from layerdrop.sweeps.engines.ray import RayEngine, _work_on_node
from layerdrop.sweeps.execute import execute
from tests.made_up import state_of
from tests.sweeping import jobs, pretend

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")


@pytest.fixture
def cluster():
    """Two nodes of one core each: (cluster, the second node)."""
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = made.add_node(num_cpus=1)
    yield made, node
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_node_that_dies_takes_no_run_along(cluster, tmp_path, monkeypatch):
    """The store is relative to a directory in which the cluster was not started."""
    cluster, node = cluster
    monkeypatch.chdir(tmp_path)
    study = jobs("store", 13, 14, *range(20, 40))
    engine = RayEngine(pretend, cluster.address)
    assert engine.slots == 2
    results = []

    def tell(progress, result):
        if result:
            results.append(result)
        if len(results) == 6 and node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)

    try:
        progress = execute(study, engine, tell)
    finally:
        engine.close()
    assert sorted(record.spec.seed for record in progress.done) == list(range(20, 40))
    errors = {job.spec.seed: error for job, error in progress.failed}
    assert set(errors) == {13, 14} and errors[14] == "unusable"
    assert {job.spec.seed for job in study if state_of(job) == "failed"} == {13, 14}
    ledger = (tmp_path / "store" / "ledger.txt").read_text().split("\n")
    assert len([line for line in ledger if line.startswith("end")]) == 20


@pytest.mark.parametrize(("directory", "store"), [("sweep", "store"), ("missing", "absolute"), ("file", "absolute")])
def test_relative_paths_count_from_the_directory_of_the_sweep(tmp_path, monkeypatch, directory, store):
    """A worker starts in the directory of `ray start`. A node without the sweep's needs an absolute store."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "ray").mkdir()
    monkeypatch.chdir(tmp_path / "ray")
    Path("store").mkdir()
    Path("../sweep/store").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "absolute").mkdir()
    (job,) = jobs(store if directory == "sweep" else str(tmp_path / store), 20)
    assert _work_on_node(pickle.dumps(pretend), job, 1, str(tmp_path / directory)).metrics == {"accuracy": 20.0}
    (record,) = tmp_path.rglob("record.json")
    assert store in record.relative_to(tmp_path).parts and "ray" not in record.relative_to(tmp_path).parts


def test_a_relative_store_needs_the_directory_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (job,) = jobs("store", 20)
    with pytest.raises(UserError, match="a node of the cluster cannot read the directory of the sweep .No such file"):
        _work_on_node(pickle.dumps(pretend), job, 1, str(tmp_path / "missing"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto"])
def test_no_cluster(address):
    with pytest.raises(UserError, match="no Ray cluster there"):
        RayEngine(pretend, address)
