import pytest

from layerdrop.criteria.orders import (
    find_layers,
    order_text,
    published_note,
    published_sets,
    read_order_file,
    read_sets_file,
    sets_text,
)
from layerdrop.errors import UserError


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "found.txt"
        path.write_text(text)
        return str(path)

    return write


# ---- published
def test_published():
    """Peer et al. 2022, layer_files/ and layer_files_dev_set/ of the authors' repository."""
    orders = [published_sets("greedy", *of)[-1] for of in (("bert-base-uncased", "rte"), ("roberta-base", "mnli"))]
    assert orders == [(0, 7, 5, 11, 2, 8), (11, 10, 9, 8, 1, 7)]
    assert published_sets("greedy", "/some/folder/bert-base-uncased/", "cola")[1] == (11, 10)
    assert published_sets("optimal", "bert-base-uncased", "mnli") == [(2,), (2, 8)]
    assert published_sets("optimal", "roberta-base", "rte") == [(11,), (8, 10)]


@pytest.mark.parametrize("strategy", ["greedy", "optimal"])
def test_nothing_published(strategy):
    with pytest.raises(
        UserError, match=f"{strategy}: nothing is published for xlnet-base-cased on rte .*layerdrop search"
    ):
        published_sets(strategy, "xlnet-base-cased", "rte")


def test_reservations():
    assert "mismatched" in published_note("greedy", None, "mnli") and published_note("greedy", None, "rte") is None
    assert (
        "validation set" in published_note("optimal", None, "rte") and published_note("optimal", "a.txt", "rte") is None
    )


# ---- files
def test_an_order(written):
    assert read_order_file(written("11\n10\n\n 9 \n")) == (11, 10, 9)
    assert read_order_file(written(order_text([3, 1, 2]))) == (3, 1, 2)


def test_sets(written):
    assert read_sets_file(written("10\n\n10-11\n")) == [(10,), (10, 11)]
    assert read_sets_file(written(sets_text([[3], [4, 0], [5, 3, 1]]))) == [(3,), (0, 4), (1, 3, 5)]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_order_file, "11\nten\n", r"found.txt:2: 'ten' is not a layer id"),
        (read_order_file, "-1\n", ":1: '-1' is not a layer id"),
        (read_order_file, "\n", "is empty"),
        (read_order_file, "3\n\n3\n", ":3: layer 3 occurs twice"),
        (read_order_file, "10\n10-11\n", ":2: '10-11' is a set. .*--drop_strategy optimal"),
        (read_sets_file, "10\n11\n", ":2: '11' is not a set of 2 layers.*--drop_strategy greedy"),
        (read_sets_file, "10-11\n", ":1: '10-11' is not a set of 1 layers"),
        (read_sets_file, "10\n10-10\n", ":2: '10-10' is not a set of 2 layers"),
        (read_sets_file, "10\n10-1-1\n", ":2: '10-1-1' is not a set of 2 layers"),
        (read_sets_file, "10\n10-x\n", ":2: '10-x' is not a layer id"),
        (read_sets_file, "", "is empty. The best set of k layers is expected on line k"),
    ],
)
def test_bad_files(written, read, text, message):
    with pytest.raises(UserError, match=message):
        read(written(text))


def test_no_file():
    with pytest.raises(UserError, match="--drop_order_file gone.txt: cannot read it"):
        read_order_file("gone.txt")


# ---- what a strategy drops
def test_layers_of_a_strategy(written):
    assert find_layers(None, None, None, "x", "rte") == find_layers("top", 2, None, "x", "rte") == ()
    assert find_layers("greedy", 3, None, "bert-base-uncased", "rte") == (0, 7, 5)
    assert find_layers("optimal", 2, None, "bert-base-uncased", "rte") == (5, 8)
    assert find_layers("shortlist", 2, None, "x", "rte", (9, 2, 11)) == (9, 2)
    with pytest.raises(UserError, match="--drop_strategy shortlist: needs .* Run: layerdrop search --method shortlist"):
        find_layers("shortlist", 2, None, "bert-base-uncased", "rte")
    with pytest.raises(UserError, match="--drop_k 3: --drop_order 3,1 goes up to K = 2"):
        find_layers("greedy", 3, None, "x", "rte", (3, 1))
    assert find_layers("greedy", 2, written("3\n1\n0\n"), "x", "rte") == (3, 1)
    assert find_layers("optimal", 2, written("3\n0-1\n"), "x", "rte") == (0, 1)  # no prefix


@pytest.mark.parametrize(
    ("strategy", "k", "text", "message"),
    [
        ("greedy", 4, "3\n1\n0\n", "--drop_k 4: --drop_order_file .*found.txt goes up to K = 3. Choose 1 to 3"),
        ("optimal", 3, "3\n0-1\n", "goes up to K = 2"),
        ("optimal", 3, None, "--drop_k 3: the published search for rte goes up to K = 2"),
    ],
)
def test_a_k_beyond_the_search(written, strategy, k, text, message):
    with pytest.raises(UserError, match=message):
        find_layers(strategy, k, text and written(text), "bert-base-uncased", "rte")
