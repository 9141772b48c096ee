import pytest

from layerdrop.criteria.table import CRITERIA, STRATEGIES, get_strategy
from layerdrop.errors import UserError
from layerdrop.strategies import Strategy, above_threshold, by_score, select

# Sajjad et al. 2023, Section 3, in the paper's numbers (from 1).
PAPER = [
    (12, "top", 2, [11, 12]),
    (12, "bottom", 2, [1, 2]),
    (12, "even-alternate", 2, [10, 12]),
    (12, "odd-alternate", 2, [9, 11]),
    (12, "symmetric", 2, [6, 7]),
    (12, "odd-alternate", 4, [5, 7, 9, 11]),
    (12, "even-alternate", 4, [6, 8, 10, 12]),
    (12, "symmetric", 6, [4, 5, 6, 7, 8, 9]),
]


@pytest.mark.parametrize(("n_layers", "strategy", "k", "numbers"), PAPER)
def test_the_papers_cases(n_layers, strategy, k, numbers):
    assert select(strategy, n_layers, k=k) == [number - 1 for number in numbers]


# By hand, in ids (from 0): k = 0, 1, the most; even and odd depths.
BY_HAND = [
    (6, "top", 1, [5]),
    (6, "top", 5, [1, 2, 3, 4, 5]),
    (6, "bottom", 1, [0]),
    (6, "bottom", 5, [0, 1, 2, 3, 4]),
    (6, "odd-alternate", 1, [4]),
    (6, "odd-alternate", 3, [0, 2, 4]),
    (6, "even-alternate", 3, [1, 3, 5]),
    (7, "odd-alternate", 4, [0, 2, 4, 6]),
    (7, "even-alternate", 3, [1, 3, 5]),
    (7, "symmetric", 1, [3]),
    (7, "symmetric", 5, [1, 2, 3, 4, 5]),
    (6, "symmetric", 4, [1, 2, 3, 4]),
    (12, "every-other", 6, [1, 3, 5, 7, 9, 11]),
    (12, "every-other", 4, [2, 5, 8, 11]),
    (12, "every-other", 1, [11]),
    (12, "every-other", 5, [1, 3, 6, 8, 11]),
    (7, "every-other", 6, [0, 1, 2, 3, 4, 6]),
]


@pytest.mark.parametrize(("n_layers", "strategy", "k", "ids"), BY_HAND)
def test_by_hand(n_layers, strategy, k, ids):
    assert select(strategy, n_layers, k=k) == ids


@pytest.mark.parametrize("n_layers", [1, 6, 7, 12])
@pytest.mark.parametrize("strategy", [name for name, row in STRATEGIES.items() if row.positions])
def test_dropping_nothing_is_always_possible(strategy, n_layers):
    assert select(strategy, n_layers, k=0) == []


@pytest.mark.parametrize("strategy", [name for name, row in STRATEGIES.items() if row.positions])
@pytest.mark.parametrize("k", [-1, 6, 7])
def test_one_layer_must_stay(strategy, k):
    with pytest.raises(UserError, match=rf"--drop_k {k}: .* Choose 0 to 5"):
        select(strategy, 6, k=k)


def test_symmetric_names_the_nearest():
    with pytest.raises(UserError, match="--drop_k 3: .*must be even.* Nearest: K = 2 or 4"):
        select("symmetric", 12, k=3)
    with pytest.raises(UserError, match=r"Nearest: K = 10\."):
        select("symmetric", 12, k=11)


@pytest.mark.parametrize(
    ("strategy", "n_layers", "k", "most"), [("odd-alternate", 6, 4, 3), ("even-alternate", 7, 4, 3)]
)
def test_alternate_says_how_many_it_can_drop(strategy, n_layers, k, most):
    with pytest.raises(UserError, match=f"{strategy} can drop at most {most} of {n_layers} layers"):
        select(strategy, n_layers, k=k)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="'tpo'. Did you mean 'top'.* Allowed: top, bottom"):
        select("tpo", 6, k=1)
    with pytest.raises(UserError, match="'flsher'. Did you mean 'fisher'.* Allowed: top, .*list"):
        get_strategy("flsher")


SCORES = [0.2, 0.9, 0.5, 0.9, 0.1]


def test_scores_direction_and_ties():
    assert by_score(SCORES, 1, "highest") == [3]  # of the tied 1 and 3 the higher id
    assert sorted(by_score(SCORES, 3, "highest")) == [1, 2, 3]
    assert by_score(SCORES, 2, "lowest") == [4, 0]
    assert by_score([1.0, 1.0, 1.0], 2, "lowest") == [2, 1]
    assert select(CRITERIA["contribution"], 5, k=1, scores=SCORES) == [3]
    assert (
        select(CRITERIA["variance"], 5, k=1, scores=SCORES)
        == select(CRITERIA["aggregation"], 5, k=1, scores=SCORES)
        == [4]
    )


def test_scores_that_are_not_numbers():
    with pytest.raises(UserError, match="score of layer 1 is not a finite number"):
        by_score([0.1, float("nan"), 0.2], 1, "highest")


def test_scores_of_another_depth():
    with pytest.raises(UserError, match="5 scores for a model of 6 layers"):
        select(CRITERIA["contribution"], 6, k=1, scores=SCORES)


def test_no_scores():
    with pytest.raises(UserError, match="--drop_threshold 0.5: top drops K layers"):
        select("top", 5, threshold=0.5)
    with pytest.raises(UserError, match="angular-block: is given no scores. Give a score for each block"):
        select(CRITERIA["angular-block"], 5, k=2)
    assert select(CRITERIA["angular-block"], 5, k=0) == []


def test_threshold():
    assert above_threshold(SCORES, 0.5) == [3, 1]  # above, not at
    assert above_threshold(SCORES, 0.95) == []
    assert select(CRITERIA["contribution"], 5, threshold=0.4, scores=SCORES) == [1, 2, 3]
    with pytest.raises(UserError, match=r"all 5 layers score above it \(lowest: 0.1000\)"):
        above_threshold(SCORES, 0.05)


def test_what_a_search_found():
    assert select("greedy", 12, k=2, found=(8, 1)) == [1, 8]
    assert select("optimal", 12, k=0, found=()) == []
    with pytest.raises(UserError, match="--drop_k 4: the search found 3 layers to drop"):
        select("greedy", 12, k=4, found=(8, 1, 11))
    with pytest.raises(UserError, match="--drop_strategy optimal, search result: no layer 11 in a model of 6"):
        select("optimal", 6, k=1, found=(11,))


def test_list():
    assert select("list", 12, layers=(11, 9, 10)) == [9, 10, 11]
    for layers, message in [
        ((9, 9), "layer 9 is given more than once"),
        ((12,), "no layer 12 in a model of 12 layers. Ids count from 0 .* to 11"),
        ((-1,), "no layer -1"),
    ]:
        with pytest.raises(UserError, match=message):
            select("list", 12, layers=layers)
    with pytest.raises(UserError, match="must keep at least one"):
        select("list", 2, layers=(0, 1))


def test_an_own_strategy_returns_k_layers():
    """Also with a function that can drop only some layers, or that raises UserError for an impossible K."""
    upper = Strategy("upper", "every other layer of the upper half", "here", positions=lambda n, k: [7, 9, 11][-k:])
    assert select(upper, 12, k=2) == [9, 11]
    with pytest.raises(UserError, match="--drop_k 6: the function of upper returns 3 layers. It must return K."):
        select(upper, 12, k=6)

    def positions(n_layers, k):
        raise UserError("drops at most 3 layers. Choose 1 to 3.")

    with pytest.raises(UserError, match="^--drop_k 6: drops at most 3 layers. Choose 1 to 3.$"):
        select(Strategy("own", "", "", positions=positions), 12, k=6)
