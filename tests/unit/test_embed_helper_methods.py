"""clp, clp-plus, knn, omp and sava against slow float64 oracles, on random small helpers and base tables."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.registry import load_method
from langadapt.embed.clp import Options as ClpOptions
from langadapt.embed.clp import clp
from langadapt.embed.clp_plus import Options as ClpPlusOptions
from langadapt.embed.clp_plus import clp_plus
from langadapt.embed.knn import Options as KnnOptions
from langadapt.embed.knn import knn
from tests.fixtures.helpers import Case
from tests.unit.test_embed_aligned_methods import oracle_sparsemax

METHODS = ["clp", "clp-plus", "knn"]
cases = st.builds(
    Case,
    new=st.integers(1, 20),
    shared=st.integers(1, 60),
    width=st.integers(1, 9),
    helper_width=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)


def rows_of(name: str, case: Case, role: str = "tied", **options: Any) -> np.ndarray:
    method = load_method("embed", name)
    made: np.ndarray = method(case.inputs(role), method.options(**options)).apply(case.table)
    return made


def cosine(new: np.ndarray, shared: np.ndarray) -> np.ndarray:
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in shared] for a in new])


def pieces_mean(case: Case) -> np.ndarray:
    inputs = case.inputs()
    return np.stack([case.table[inputs.base.spell(token.content)].mean(axis=0) for token in inputs.new_tokens])


@settings(max_examples=60, deadline=None)
@given(cases)
def test_clp_is_the_sum_over_all_shared_tokens(case: Case) -> None:
    new, shared, old = case.doubles()
    weights = cosine(new, shared)
    weak = weights.mean(axis=1) < 0.05
    made = clp(case.inputs(), ClpOptions(min_cosine=0.05))
    expected = np.where(weak[:, None], pieces_mean(case), (weights / weights.sum(axis=1, keepdims=True)) @ old)
    np.testing.assert_allclose(made.apply(case.table), expected, rtol=1e-5, atol=2e-5)
    assert made.reasons().get("cosines with all shared tokens", 0) == int((~weak).sum())


def test_clp_of_a_helper_without_directions_is_the_mean_of_the_shared_tokens() -> None:
    case = Case(3, 20)
    case.helper.table[:] = 1
    np.testing.assert_allclose(rows_of("clp", case), np.tile(case.table[case.old].mean(axis=0), (3, 1)), atol=1e-5)


def test_clp_does_not_divide_by_sums_that_cancel() -> None:
    """A helper around zero: the sums of cosines have either sign, and may be as good as zero."""
    case = Case(4, 2, helper_width=2)
    case.helper.table[:] = [[1, 0], [0, 1], [-1, 0], [1, 1], [1, 0], [1, 0]]
    made = clp(case.inputs(), ClpOptions())
    assert made.reasons() == {
        "cosines with all shared tokens": 2,
        "cosines with shared tokens cancel: mean of its pieces": 2,
    }
    np.testing.assert_allclose(made.apply(case.table)[1:3], pieces_mean(case)[1:3], rtol=1e-5)
    assert made.measured["distance_from_mean"] == 0


@settings(max_examples=40, deadline=None)
@given(cases)
def test_clp_plus_is_the_sparsemax_of_the_cosines(case: Case) -> None:
    case.helper.table[-1] = case.helper.table[case.new]  # a tie, if there are two shared tokens
    new, shared, old = case.doubles()
    expected = np.stack([oracle_sparsemax(row) for row in cosine(new, shared)]) @ old
    made = clp_plus(case.inputs(), ClpPlusOptions())
    assert made.is_convex()
    np.testing.assert_allclose(made.apply(case.table), expected, rtol=1e-5, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(1, 12), st.sampled_from([0.02, 0.1, 3.0]))
def test_knn_is_the_softmax_over_the_nearest(case: Case, k: int, temperature: float) -> None:
    case.helper.table[-1] = case.helper.table[case.new]
    new, shared, old = case.doubles()
    # in one dimension all cosines are 1 or -1: the oracle must not see differences that are rounding
    similar = np.round(cosine(new, shared), 7)
    made = knn(case.inputs(), KnnOptions(neighbors=k, temperature=temperature)).apply(case.table)
    for row, values in zip(made, similar, strict=True):
        order = sorted(range(len(values)), key=lambda n: (-values[n], n))
        edge = values[order[min(k, len(order)) - 1]]
        if np.sum(np.abs(values - edge) < 1e-6) > 1 and case.helper_width > 1 and case.shared > k:
            continue  # which of two equal ones counts is for the test below
        weights = np.exp((values[order[:k]] - values[order[0]]) / temperature)
        np.testing.assert_allclose(row, weights / weights.sum() @ old[order[:k]], rtol=1e-4, atol=5e-5)


def test_of_two_equally_near_tokens_the_lower_id_counts() -> None:
    case = Case(1, 6, helper_width=2)
    case.helper.table[:] = [[1, 0], [0, 1], [3, 0], [2, 2], [9, 0], [1, 0], [1, 1]]
    made = knn(case.inputs(), KnnOptions(neighbors=2))
    np.testing.assert_allclose(made.apply(case.table)[0], case.table[case.old[[1, 3]]].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_no_row_no_direction_and_no_overlap(name: str) -> None:
    """What the helper lacks, or has as zeros, gets the mean of its pieces; zero rows are no anchors either."""
    case = Case(4, 8)
    case.helper.row_of[1] = -1
    case.helper.table[2] = 0
    case.helper.row_of[case.new + 1] = -1
    case.helper.table[case.new + 2] = 0
    method = load_method("embed", name)
    made = method(case.inputs(), method.options())
    assert [note["why"] for note in made.provenance][1:3] == ["the helper lacks it: mean of its pieces"] * 2
    np.testing.assert_allclose(made.apply(case.table)[1:3], pieces_mean(case)[1:3], rtol=1e-5)
    without = Case(4, 6)
    places = [0, 3, 4, 5, 6, 7]
    without.helper.table = np.concatenate([case.helper.table[:4], case.helper.table[4:][places]])
    without.table = case.table[[*(2 * n + m for n in places for m in (0, 1)), 16, 17, 18]]
    expected = method(without.inputs(), method.options()).apply(without.table)
    np.testing.assert_allclose(made.apply(case.table)[[0, 3]], expected[[0, 3]], rtol=1e-5, atol=1e-6)
    alone = method(case.inputs(kept={}), method.options())
    assert set(alone.reasons()) == {"no shared tokens: mean of its pieces"}
    np.testing.assert_allclose(alone.apply(case.table), pieces_mean(case), rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_rows_of_a_head_are_made_with_the_helpers_head(name: str) -> None:
    case = Case(5, 12, seed=4)
    swapped = Case(5, 12, seed=4)
    swapped.helper.table = case.helper.head
    np.testing.assert_array_equal(rows_of(name, case, "head"), rows_of(name, swapped, "input"))
    assert not np.allclose(rows_of(name, case, "head"), rows_of(name, case, "input"))


@pytest.mark.parametrize("name", METHODS)
def test_special_tokens_are_no_anchors(name: str) -> None:
    """The special token's id has no row in this helper: looking at it would be an error."""
    case = Case(3, 5)
    assert len(case.inputs().kept) == 6 and len(case.inputs().anchors()[0]) == 5
    rows = load_method("embed", name)(case.inputs(), load_method("embed", name).options())
    if name != "clp":
        assert set(rows.indices.tolist()) <= set(case.old.tolist())
