import pytest

from layerdrop.errors import UserError
from layerdrop.orders import find_order, published_order, read_order_file


def test_published():
    """Peer et al. 2022, layer_files/ of the authors' repository."""
    assert published_order("bert-base-uncased", "rte") == (0, 7, 5, 11, 2, 8)
    assert published_order("roberta-base", "mnli") == (11, 10, 9, 8, 1, 7)
    assert published_order("/some/folder/bert-base-uncased/", "cola") == (11, 10, 9, 4, 0, 5)


def test_nothing_published():
    with pytest.raises(UserError, match="no published order for xlnet-base-cased on rte .*--drop_order_file"):
        published_order("xlnet-base-cased", "rte")
    with pytest.raises(UserError, match="bert-base-uncased on wnli"):
        published_order("bert-base-uncased", "wnli")


def test_layer_file(tmp_path):
    path = tmp_path / "order.txt"
    path.write_text("11\n10\n\n 9 \n")
    assert read_order_file(str(path)) == (11, 10, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [("11\nten\n", r"order.txt:2: 'ten' is not a layer id"), ("-1\n", ":1: '-1'"), ("\n", "is empty")],
)
def test_bad_layer_file(tmp_path, text, message):
    path = tmp_path / "order.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_order_file(str(path))


def test_no_layer_file():
    with pytest.raises(UserError, match="--drop_order_file gone.txt: cannot read it"):
        read_order_file("gone.txt")


def test_order_of_a_strategy(tmp_path):
    path = tmp_path / "order.txt"
    path.write_text("3\n1\n")
    assert find_order(None, None, "x", "rte") == find_order("top", None, "x", "rte") == ()
    assert find_order("top", str(path), "x", "rte") == ()
    assert find_order("greedy", None, "bert-base-uncased", "rte") == (0, 7, 5, 11, 2, 8)
    assert find_order("greedy", str(path), "bert-base-uncased", "rte") == (3, 1)
    assert find_order("optimal", str(path), "bert-base-uncased", "rte") == (3, 1)
    with pytest.raises(UserError, match="--drop_strategy optimal: needs a search's result. Add --drop_order_file"):
        find_order("optimal", None, "bert-base-uncased", "rte")
