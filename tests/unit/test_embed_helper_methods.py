"""clp, clp-plus, knn, omp and sava against slow float64 oracles, on random small helpers and base tables."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.registry import load_method
from langadapt.embed import fitting, pursuit
from langadapt.embed.clp import Options as ClpOptions
from langadapt.embed.clp import clp
from langadapt.embed.clp_plus import Options as ClpPlusOptions
from langadapt.embed.clp_plus import clp_plus
from langadapt.embed.fitting import fit, held_out_cosine
from langadapt.embed.knn import Options as KnnOptions
from langadapt.embed.knn import knn
from langadapt.embed.omp import Options as OmpOptions
from langadapt.embed.omp import omp
from langadapt.embed.pursuit import pursue
from langadapt.embed.sava import Options as SavaOptions
from langadapt.embed.sava import sava
from tests.fixtures.helpers import Case
from tests.unit.test_embed_aligned_methods import oracle_sparsemax

METHODS = ["clp", "clp-plus", "knn", "omp", "sava"]
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


# omp


def oracle_pursuit(goal: np.ndarray, atoms: np.ndarray, k: int, unit_atoms: bool) -> dict[int, float]:
    """One target: choose, least squares on all chosen, again; by the stopping rules that the docs give."""
    scaled = atoms / np.linalg.norm(atoms, axis=1, keepdims=True) if unit_atoms else atoms
    chosen: list[int] = []
    left, found = goal, np.zeros(0)
    while len(chosen) < min(k, len(atoms)):
        strength = np.abs(scaled @ left)
        strength[chosen] = -1
        pick = int(np.flatnonzero(strength >= strength.max() * (1 - 1e-9))[0])
        if chosen:
            basis, _ = np.linalg.qr(atoms[chosen].T)
            rest = atoms[pick] - basis @ (basis.T @ atoms[pick])
            if rest @ rest <= 1e-5 * atoms[pick] @ atoms[pick]:
                break
        chosen.append(pick)
        found = np.linalg.lstsq(atoms[chosen].T, goal, rcond=None)[0]
        left = goal - found @ atoms[chosen]
        if np.linalg.norm(left) <= 1e-3 * np.linalg.norm(goal):
            break
    return dict(zip(chosen, found.tolist(), strict=True))


def sums(found: Any, row: int) -> dict[int, float]:
    part = slice(found.indptr[row], found.indptr[row + 1])
    return dict(zip(found.columns[part].tolist(), found.weights[part].tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(1, 12), st.booleans(), st.booleans())
def test_pursuit_finds_what_the_oracle_finds(case: Case, k: int, unit_atoms: bool, with_gram: bool) -> None:
    """With the Gram matrix and without it; with an atom that stands there twice."""
    case.helper.table[-1] = case.helper.table[case.new]
    new, shared, _ = case.doubles()
    before = pursuit._WIDE
    pursuit._WIDE = 0 if with_gram else before
    try:
        found = pursue(new.astype(np.float32), shared.astype(np.float32), k, unit_atoms=unit_atoms)
    finally:
        pursuit._WIDE = before
    for row, goal in enumerate(new):
        expected, mine = oracle_pursuit(goal, shared, k, unit_atoms), sums(found, row)
        sum_of = [sum(c * shared[n] for n, c in side.items()) for side in (expected, mine)]
        if case.helper_width > 2:
            assert mine.keys() == expected.keys()
            assert [mine[n] for n in expected] == pytest.approx(list(expected.values()), rel=1e-4, abs=1e-4)
        np.testing.assert_allclose(sum_of[1], sum_of[0], atol=2e-3 * np.linalg.norm(goal) + 1e-5)


def test_pursuit_recovers_a_planted_sum_and_leaves_a_rest_across_its_atoms() -> None:
    random = np.random.Generator(np.random.Philox(key=5))
    atoms = random.standard_normal((400, 200), dtype=np.float32)
    planted = random.permutation(400)[:8]
    goal = (np.arange(8) + 2) @ atoms[planted]
    other = random.standard_normal(200)
    found = pursue(np.stack([goal, other]).astype(np.float32), atoms, 12, unit_atoms=True)
    assert sums(found, 0) == pytest.approx(dict(zip(planted.tolist(), range(2, 10), strict=True)), rel=1e-4)
    mine = sums(found, 1)
    rest = other - sum(c * atoms[n] for n, c in mine.items())
    assert len(mine) == 12 and np.abs(atoms[list(mine)] @ rest).max() < 1e-4 * np.linalg.norm(other) * 15
    assert found.unexplained[1] == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(other), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(cases, st.integers(1, 5))
def test_omp_rows_are_the_same_sums_of_base_rows(case: Case, k: int) -> None:
    if case.helper_width == 1:
        return  # all tokens are equally near
    new, shared, old = case.doubles()
    made = omp(case.inputs(), OmpOptions(k=k, norm_cap=None)).apply(case.table)
    for row, goal in zip(made, new, strict=True):
        parts = oracle_pursuit(goal, shared, k, True)
        rest = goal - sum(c * shared[n] for n, c in parts.items())
        if np.linalg.norm(rest) > 0.999 * np.linalg.norm(goal):
            continue  # unlike all shared tokens: spelled by its old tokens, a test of its own
        expected = sum(c * old[n] for n, c in parts.items())
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4 * (1 + np.abs(expected).max()))


def test_a_token_that_is_a_shared_one_is_a_copy_and_long_rows_are_capped() -> None:
    case = Case(3, 20, seed=3)
    case.helper.table[1] = 2 * case.helper.table[case.new + 4]
    made = omp(case.inputs(), OmpOptions(norm_cap=None)).apply(case.table)
    np.testing.assert_allclose(made[1], 2 * case.table[case.old[4]], rtol=1e-4)
    limit = 0.5 * np.quantile(np.linalg.norm(case.table[case.old], axis=1), 0.99)
    rows = omp(case.inputs(), OmpOptions(norm_cap=0.5))
    lengths = np.linalg.norm(rows.apply(case.table), axis=1)
    assert (lengths <= limit * 1.0001).all() and lengths[1] == pytest.approx(limit, rel=1e-4)
    assert rows.measured["capped"] >= 1


def test_a_token_unlike_all_shared_ones_is_not_a_zero_row() -> None:
    case = Case(2, 3, helper_width=3)
    case.helper.table[:] = [[0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 2, 0]]
    rows = omp(case.inputs(), OmpOptions())
    assert rows.provenance[0]["why"] == "unlike all shared tokens: mean of its pieces"
    np.testing.assert_allclose(rows.apply(case.table)[0], pieces_mean(case)[0], rtol=1e-5)


# sava


def oracle_ridge(case: Case, penalty: float) -> np.ndarray:
    new, shared, old = case.doubles()
    spread = shared.std(axis=0, ddof=1) if len(shared) > 1 else np.ones(shared.shape[1])
    x, y = (shared - shared.mean(axis=0)) / spread, old - old.mean(axis=0)
    weight = penalty * (x * x).sum() / x.shape[1]
    matrix = np.linalg.pinv(x.T @ x + weight * np.eye(x.shape[1])) @ x.T @ y
    return np.asarray((new - shared.mean(axis=0)) / spread @ matrix + old.mean(axis=0))


@settings(max_examples=40, deadline=None)
@given(cases, st.sampled_from([1e-3, 0.1, 10.0]))
def test_ridge_rows_equal_the_normal_equations(case: Case, penalty: float) -> None:
    made = sava(case.inputs(), SavaOptions(penalty=penalty)).apply(case.table)
    np.testing.assert_allclose(made, oracle_ridge(case, penalty), rtol=1e-4, atol=1e-4)


def test_no_penalty_is_least_squares() -> None:
    case = Case(5, 40)
    new, shared, old = case.doubles()
    ones = [np.column_stack([part, np.ones(len(part))]) for part in (shared, new)]
    expected = ones[1] @ np.linalg.lstsq(ones[0], old, rcond=None)[0]
    np.testing.assert_allclose(sava(case.inputs(), SavaOptions(penalty=0)).apply(case.table), expected, atol=1e-5)


def test_the_penalty_has_the_smallest_leave_one_out_error() -> None:
    """Against fits without the one anchor, done one by one: centre and scale are those of all anchors."""
    case = Case(1, 25, width=4, helper_width=8)
    case.table[case.old] += (case.doubles()[1] @ np.random.Generator(np.random.Philox(key=9)).random((8, 4))).astype(
        "f"
    )
    _, shared, old = case.doubles()
    x = (shared - shared.mean(axis=0)) / shared.std(axis=0, ddof=1)
    unit = (x * x).sum() / x.shape[1]
    errors = []
    for penalty in fitting._PENALTIES:
        total = 0.0
        for out in range(len(x)):
            rest = np.arange(len(x)) != out
            # the intercept is not penalised
            design = np.column_stack([x[rest], np.ones(rest.sum())])
            weight = penalty * unit * np.diag([1.0] * 8 + [0.0])
            found = np.linalg.solve(design.T @ design + weight, design.T @ old[rest])
            total += ((old[out] - np.append(x[out], 1) @ found) ** 2).sum()
        errors.append(total)
    rows = sava(case.inputs(), SavaOptions())
    assert rows.measured["penalty"] == pytest.approx(fitting._PENALTIES[int(np.argmin(errors))], rel=1e-2)
    assert 0 < int(np.argmin(errors)) < len(errors) - 1


@pytest.mark.parametrize(("helper_width", "width"), [(6, 6), (4, 7), (7, 4)])
def test_a_rotation_is_found_whatever_the_widths(helper_width: int, width: int) -> None:
    """`ortho` and `sgd` undo a rotation of the standardised, row-normalised helper."""
    random = np.random.Generator(np.random.Philox(key=helper_width))
    x = random.standard_normal((300, helper_width))
    wide = max(helper_width, width)
    turn, _ = np.linalg.qr(random.standard_normal((wide, wide)))
    y = ((x / np.linalg.norm(x, axis=1, keepdims=True)) @ turn[:helper_width, :width]).astype(np.float32)
    made = fit(x[:250].astype(np.float32), y[:250], "ortho", random)(x[250:].astype(np.float32))
    assert cosine_of(made, y[250:]).mean() > 0.97
    slow = fit(x[:250].astype(np.float32), y[:250], "sgd", random, steps=250, rate=0.03)(x[250:].astype(np.float32))
    assert cosine_of(slow, y[250:]).mean() > 0.97


def cosine_of(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.asarray((made * true).sum(axis=1) / np.linalg.norm(made, axis=1) / np.linalg.norm(true, axis=1))


def test_ortho_equals_the_oracle() -> None:
    case = Case(6, 30, width=5, helper_width=3)
    new, shared, old = case.doubles()
    mx, sx, my, sy = shared.mean(0), shared.std(0, ddof=1), old.mean(0), old.std(0, ddof=1)
    lengths = np.linalg.norm((old - my) / sy, axis=1)
    x = np.stack([row / np.linalg.norm(row) for row in (shared - mx) / sx])
    y = ((old - my) / sy) / lengths[:, None]
    left, _, right = np.linalg.svd(np.pad(x, ((0, 0), (0, 2))).T @ y)
    goal = np.stack([row / np.linalg.norm(row) for row in (new - mx) / sx])
    expected = (np.pad(goal, ((0, 0), (0, 2))) @ (left @ right)) * lengths.mean() * sy + my
    made = sava(case.inputs(), SavaOptions(align="ortho")).apply(case.table)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def test_descent_comes_close_to_least_squares_and_the_same_seed_gives_the_same_bits() -> None:
    case = Case(4, 60, width=5, helper_width=3)
    options = SavaOptions(align="sgd", steps=250, learning_rate=0.05, folds=0)
    first, second = (sava(case.inputs(), options).apply(case.table) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    other = sava(case.inputs(seed=2), options).apply(case.table)
    np.testing.assert_allclose(first, other, atol=0.05)
    assert first.tobytes() != other.tobytes()


def test_held_out_cosine_is_high_for_a_map_and_low_for_none() -> None:
    random = np.random.Generator(np.random.Philox(key=1))
    x = random.standard_normal((200, 6), dtype=np.float32)
    y = (x @ random.standard_normal((6, 9))).astype(np.float32) + 5
    noise = random.standard_normal((200, 9), dtype=np.float32) + 5
    seen: list[int] = []

    def fitted(target: np.ndarray) -> Any:
        def of(some: np.ndarray) -> Any:
            seen.append(int((~some).sum()))
            return fit(x[some], target[some], "ridge", random)

        return of

    assert held_out_cosine(fitted(y), x, y, 5) > 0.999 and seen == [40] * 5
    assert abs(held_out_cosine(fitted(noise), x, noise, 5)) < 0.15


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
    if name not in ("clp", "sava"):
        assert set(rows.indices.tolist()) <= set(case.old.tolist())
