import numpy as np
import pytest
import scipy.linalg

from blurdiff.evaluation.frechet import (
    CHUNK_ROWS,
    accumulate,
    frechet_distance,
    merge,
    moments,
    remove,
)


def random_covariance(rng, d, rank=None):
    factor = rng.normal(size=(rank or 2 * d, d))
    return factor.T @ factor / len(factor)


def random_rotation(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def test_one_dimension():
    distance = frechet_distance([1.0], [[4.0]], [-2.0], [[0.25]])
    assert distance == pytest.approx(3**2 + (2 - 0.5) ** 2, rel=1e-14)


def test_scaled_identities():
    d = 7
    zero = np.zeros(d)
    assert frechet_distance(zero, 9 * np.eye(d), zero, 4 * np.eye(d)) == pytest.approx(d * (3 - 2) ** 2, rel=1e-13)


@pytest.mark.parametrize("rotated", [False, True])
def test_commuting_covariances(rotated):
    rng = np.random.default_rng(0)
    d = 30
    a, b = rng.uniform(0, 3, (2, d))
    a[:5] = 0
    b[3:9] = 0
    basis = random_rotation(rng, d) if rotated else np.eye(d)
    mu1, mu2 = rng.normal(size=(2, d))
    expected = ((mu1 - mu2) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    distance = frechet_distance(mu1, (basis * a) @ basis.T, mu2, (basis * b) @ basis.T)
    # Null directions cost the square root of the rounding error.
    assert distance == pytest.approx(expected, rel=1e-6 if rotated else 1e-13)


def test_equals_scipy_sqrtm_and_is_symmetric():
    rng = np.random.default_rng(1)
    d = 60
    one, two = random_covariance(rng, d), 3 * random_covariance(rng, d)
    mu1, mu2 = rng.normal(size=(2, d))
    root = scipy.linalg.sqrtm(one @ two)
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(one + two - 2 * root.real)
    assert frechet_distance(mu1, one, mu2, two) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(mu2, two, mu1, one) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("rows1", "rows2"), [(20, 35), (20, 400), (300, 25)])
def test_rank_deficient_equals_nuclear_norm(rows1, rows2):
    # With Σ1 = AᵀA and Σ2 = BᵀB, tr (Σ1 Σ2)^½ is the nuclear norm of A Bᵀ: no covariance, no matrix root.
    rng = np.random.default_rng(2)
    d = 100
    x, y = rng.normal(size=(rows1, d)), rng.normal(1, 2, size=(rows2, d))
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")
    one, two = moments(x), moments(y)
    distance = frechet_distance(one.mu, one.sigma, two.mu, two.sigma)
    assert isinstance(distance, float)
    assert distance == pytest.approx(expected, rel=1e-7)


def test_distance_to_itself_is_zero_at_low_rank():
    m = moments(np.random.default_rng(3).normal(size=(10, 40)))
    assert abs(frechet_distance(m.mu, m.sigma, m.mu, m.sigma)) < 1e-5 * np.trace(m.sigma)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="different shapes"):
        frechet_distance(np.zeros(2), np.eye(3), np.zeros(2), np.eye(3))


def test_moments_equal_numpy():
    x = np.random.default_rng(4).normal(5, 2, size=(50, 8)).astype(np.float32)
    m = moments(x)
    assert m.n == 50
    np.testing.assert_allclose(m.mu, x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(m.sigma, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-13)


def test_accumulate_equals_numpy_far_from_zero():
    # Sums of squares would lose all digits here: mean 1e7, deviation 1.
    n = 2 * CHUNK_ROWS + 77
    x = np.random.default_rng(5).normal(1e7, 1, size=(n, 3))
    cuts = [0, 1, 2, 600, 601, CHUNK_ROWS - 3, CHUNK_ROWS + 5, 2 * CHUNK_ROWS, n]
    m = accumulate(x[a:b] for a, b in zip(cuts, cuts[1:], strict=False))
    assert m.n == n
    np.testing.assert_allclose(m.mu, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(m.sigma, np.cov(x, rowvar=False), rtol=1e-7, atol=1e-8)


def test_accumulate_refuses_nothing():
    with pytest.raises(ValueError, match="no features"):
        accumulate([])


def test_merge_is_pooling_and_remove_undoes_it():
    rng = np.random.default_rng(6)
    x, y = rng.normal(2, 1, size=(30, 5)), rng.normal(-1, 3, size=(200, 5))
    whole, direct = merge(moments(x), moments(y)), moments(np.concatenate([x, y]))
    assert whole.n == direct.n == 230
    np.testing.assert_allclose(whole.mu, direct.mu, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(whole.scatter, direct.scatter, rtol=1e-12)
    rest = remove(whole, moments(x))
    assert rest.n == 200
    np.testing.assert_allclose(rest.mu, y.mean(0), rtol=1e-12)
    np.testing.assert_allclose(rest.sigma, np.cov(y, rowvar=False), rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match="leave none"):
        remove(moments(x), moments(x))
