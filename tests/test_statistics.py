"""Statistics for comparing learners, against SciPy and against what is known."""

import numpy as np
import pytest
import scipy.stats

from agents.reporting.statistics import interval, iqm, mean
from dsfp_env import InputError


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_iqm_by_hand():
    """Of eight scores the middle four; of six the middle four, as a quarter of six is rounded down to one."""
    assert iqm([0, 1, 2, 3, 4, 5, 6, 700]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm([[700, 1, 2], [3, 4, -500]]) == pytest.approx((1 + 2 + 3 + 4) / 4)


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 6, 7, 8, 10, 11])
def test_iqm_is_scipys_trimmed_mean(runs):
    scores = draw(runs, 3)
    assert iqm(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None), rel=1e-12)
    assert iqm(scores[:, 0]) == pytest.approx(scipy.stats.trim_mean(scores[:, 0], 0.25), rel=1e-12)


@pytest.mark.parametrize("statistic", [iqm, mean])
def test_stacks_are_taken_matrix_by_matrix(statistic):
    stack = draw(4, 5, 3)
    assert statistic(stack) == pytest.approx([statistic(one) for one in stack])


def scipys(data, statistic, **kwargs):
    result = scipy.stats.bootstrap(
        data, statistic, method="percentile", n_resamples=500, rng=np.random.default_rng(3), **kwargs
    )
    return pytest.approx(tuple(result.confidence_interval), rel=1e-9)


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_one_stratum_agrees_with_scipys_bootstrap(level):
    """The same generator draws the same resamples, so the intervals are the same."""
    scores = draw(17)
    ours = interval(scores, level=level, resamples=500, rng=np.random.default_rng(3))
    theirs = scipys(
        (scores,),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        confidence_level=level,
    )
    assert ours.value == pytest.approx(scipy.stats.trim_mean(scores, 0.25))
    assert (ours.low, ours.high) == theirs


def test_two_learners_agree_with_scipys_bootstrap():
    x, y = draw(9), draw(12, seed=1) - 0.5

    def difference(x, y, axis):
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    ours = interval(x, y, statistic=lambda x, y: mean(x) - mean(y), resamples=500, rng=np.random.default_rng(3))
    assert ours.value == pytest.approx(difference(x, y, 0))
    assert (ours.low, ours.high) == scipys((x, y), difference, vectorized=True)


def test_every_task_is_resampled_by_itself():
    """Tasks a million apart whose runs do not differ: an interval of no width. Pooled runs would be very wide."""
    scores = np.array([[0.0, 1e6]] * 5)
    assert interval(scores, statistic=mean, rng=np.random.default_rng(0)) == (5e5, 5e5, 5e5)


def test_tasks_are_resampled_independently():
    """Two tasks whose runs cancel: drawing whole rows would always give 0."""
    scores = np.array([[1.0, -1], [-1, 1], [1, -1], [-1, 1]])
    _, low, high = interval(scores, statistic=mean, rng=np.random.default_rng(0))
    assert low < -0.2 < 0.2 < high


def test_a_95_percent_interval_covers_about_95_percent():
    """Of 400 experiments of 20 runs on 5 tasks whose true interquartile mean is 0."""
    rng = np.random.default_rng(0)
    intervals = [interval(rng.normal(size=(20, 5)), resamples=400, rng=rng) for _ in range(400)]
    covered = np.mean([one.low <= 0 <= one.high for one in intervals])
    assert 0.92 <= covered <= 0.98
    halves = [interval(rng.normal(size=(20, 5)), level=0.5, resamples=400, rng=rng) for _ in range(400)]
    assert 0.44 <= np.mean([one.low <= 0 <= one.high for one in halves]) <= 0.56


def test_pairs_say_more_where_seeds_matter():
    """The seeds' own differences are a hundred times the learners', and drop out of the pairs."""
    seeds = 10 * draw(10, 1)
    x, y = seeds + 0.1 + 0.01 * draw(10, 1, seed=1), seeds + 0.01 * draw(10, 1, seed=2)
    paired = interval(x - y, statistic=mean, rng=np.random.default_rng(0))
    apart = interval(x, y, statistic=lambda x, y: mean(x) - mean(y), rng=np.random.default_rng(0))
    assert 0.08 < paired.low < paired.value < paired.high < 0.12
    assert apart.low < -1 < 1 < apart.high
    assert apart.value == pytest.approx(paired.value)


def test_equal_seeds_agree():
    scores = draw(5, 2)
    one, same, other = (interval(scores, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one == same
    assert one.value == other.value
    assert one != other


def test_bad_scores_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="two runs or more"):
        interval([[1.0, 2.0]], rng=rng)
    with pytest.raises(InputError, match="finite"):
        interval([1.0, np.nan], rng=rng)
    with pytest.raises(InputError, match="such as 0.95"):
        interval([1.0, 2.0], level=95, rng=rng)
    with pytest.raises(InputError, match="last two axes"):
        interval(draw(4, 3), statistic=np.median, rng=rng)
