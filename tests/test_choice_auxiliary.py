"""SOKA's auxiliary teacher: similarities of tasks against SciPy, the rules by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from amalgam_tf import choice
from amalgam_tf.errors import UserError


def rsa_features(n=40, d=30, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


class TestDissimilarities:
    @pytest.mark.parametrize("centre", [True, False])
    def test_scipy(self, centre):
        features = rsa_features(9, 12) + np.linspace(0, 5, 12, dtype=np.float32)
        found = choice.dissimilarities(features, centre)
        assert found.dtype == np.float64 and found.shape == (9, 9)
        exact = features.astype(np.float64)
        rows = exact - exact.mean(0) if centre else exact
        for i, j in itertools.product(range(9), repeat=2):
            assert found[i, j] == pytest.approx(0 if i == j else 1 - stats.pearsonr(rows[i], rows[j])[0], abs=1e-12)
        assert np.array_equal(found, found.T)

    def test_centred_unless_told(self):
        features = rsa_features(9, 12) + np.linspace(0, 5, 12, dtype=np.float32)
        assert np.array_equal(choice.dissimilarities(features), choice.dissimilarities(features, True))
        assert np.abs(choice.dissimilarities(features) - choice.dissimilarities(features, False)).max() > 0.1

    def test_maps_are_flattened(self):
        features = rsa_features(6, 24)
        assert np.array_equal(choice.dissimilarities(features.reshape(6, 2, 3, 4)), choice.dissimilarities(features))

    @pytest.mark.parametrize("value", [0.0, 0.1, 7.3])
    def test_a_constant_image_is_unlike_all_others(self, value):
        """Also where the mean of equal numbers rounds to another number."""
        features = rsa_features(5, 999).astype(np.float64)
        features[2] = value
        with pytest.warns(RuntimeWarning, match="1 of 5 images have constant features"):
            found = choice.dissimilarities(features, centre=False)
        assert found[2].tolist() == found[:, 2].tolist() == [1, 1, 0, 1, 1]
        kept = [0, 1, 3, 4]
        np.testing.assert_allclose(found[np.ix_(kept, kept)], choice.dissimilarities(features[kept], False), atol=1e-12)

    def test_images_that_are_all_the_same(self):
        with pytest.warns(RuntimeWarning, match="7 of 7 images"):
            found = choice.dissimilarities(np.tile(rsa_features(1, 7), (7, 1)) / 3)
        assert np.array_equal(found, 1 - np.eye(7))

    def test_unusable_features(self):
        with pytest.raises(UserError, match="at least 3 images, not 2"):
            choice.dissimilarities(rsa_features(2))
        features = rsa_features(4)
        features[1, 2] = np.inf
        with pytest.raises(UserError, match="of 1 of 4 images are not finite"):
            choice.dissimilarities(features)


class TestSimilarity:
    def test_scipy_with_ties(self):
        rng = np.random.default_rng(0)
        for levels in (3, 10, 10**9):
            a, b = (np.tril(rng.integers(0, levels, (8, 8)), -1).astype(float) for _ in range(2))
            below = np.tril_indices(8, -1)
            expected = stats.spearmanr(a[below], b[below]).statistic
            assert choice.similarity(a + a.T, b + b.T) == pytest.approx(expected, abs=1e-12)

    def test_only_what_is_below_the_diagonal_counts(self):
        a, b = (choice.dissimilarities(rsa_features(seed=s)) for s in (0, 1))
        disturbed = a + 100 * np.eye(len(a)) + np.triu(rsa_features(len(a), len(a)), 1)
        assert choice.similarity(disturbed, b) == choice.similarity(a, b)

    def test_identical_and_turned_features_are_alike_and_independent_ones_are_not(self):
        features = rsa_features(60, 30)
        turned = features @ np.linalg.qr(np.random.default_rng(1).normal(size=(30, 30)))[0]
        # A turn keeps distances, and so Pearson's correlations where a vector's own mean is not taken off: of features of mean 0.
        features, turned = (np.concatenate([f, -f], 1) for f in (features, turned))
        one = choice.dissimilarities(features)
        assert choice.similarity(one, one) == pytest.approx(1)
        assert choice.similarity(one, choice.dissimilarities(turned)) == pytest.approx(1, abs=1e-6)
        independent = [choice.similarity(one, choice.dissimilarities(rsa_features(60, 30, seed))) for seed in range(2, 12)]
        assert abs(np.mean(independent)) < 0.03 and max(map(abs, independent)) < 0.15

    def test_opposite_orders(self):
        a = choice.dissimilarities(rsa_features(6))
        assert choice.similarity(a, -a) == pytest.approx(-1)

    def test_no_order_is_like_nothing(self):
        a = choice.dissimilarities(rsa_features(6))
        assert choice.similarity(a, np.ones((6, 6))) == 0

    def test_different_images(self):
        with pytest.raises(UserError, match="of 6 and of 7 images"):
            choice.similarity(np.zeros((6, 6)), np.zeros((7, 7)))


class TestSimilarities:
    FEATURES = {"depth": rsa_features(20, 30, 0), "normal": rsa_features(20, 8, 1), "edge": rsa_features(20, 30, 0) * 2 + 1}

    def test_table(self):
        found = choice.similarities(self.FEATURES)
        assert list(found) == list(found["edge"]) == ["depth", "normal", "edge"]
        for i, j in itertools.product(found, repeat=2):
            a, b = (choice.dissimilarities(self.FEATURES[t]) for t in (i, j))
            assert found[i][j] == (1 if i == j else pytest.approx(choice.similarity(a, b))) and found[i][j] == found[j][i]
        assert found["depth"]["edge"] == pytest.approx(1) and abs(found["depth"]["normal"]) < 0.5

    def test_permuting_tasks_or_images_changes_nothing(self):
        found, order = choice.similarities(self.FEATURES), np.random.default_rng(0).permutation(20)
        for names in itertools.permutations(self.FEATURES):
            other = choice.similarities({t: self.FEATURES[t][order] for t in names})
            assert all(other[i][j] == pytest.approx(found[i][j]) for i in names for j in names)

    def test_centring_is_passed_on(self):
        features = {t: f + np.linspace(0, 5, f.shape[1]) for t, f in self.FEATURES.items()}
        for centre in (True, False):
            a, b = (choice.dissimilarities(features[t], centre) for t in ("depth", "normal"))
            assert choice.similarities(features, centre)["depth"]["normal"] == pytest.approx(choice.similarity(a, b))

    def test_the_task_is_named(self):
        with pytest.raises(UserError, match="task 'edge': the features of 20 of 20 images"):
            choice.similarities({**self.FEATURES, "edge": np.full((20, 3), np.nan)})
        with pytest.raises(UserError, match=r"different numbers of images \(19, 20\)"):
            choice.similarities({**self.FEATURES, "edge": rsa_features(19)})


def table(**pairs):
    """`table(ab=0.3, ac=0.5, ...)`: the symmetric table of one-letter tasks."""
    names = sorted(set("".join(pairs)))
    known = pairs | {k[::-1]: v for k, v in pairs.items()}
    return {i: {j: 1.0 if i == j else known[i + j] for j in names} for i in names}


class TestAuxiliary:
    # targets a, b with S_ab = 0.4; x is near a only, y fairly near both, z far from both
    POOL = table(ab=0.4, ax=0.9, bx=0.1, ay=0.45, by=0.5, az=0.1, bz=0.2, xy=0.5, xz=0.5, yz=0.5)

    @pytest.mark.parametrize(("rule", "chosen"), [("sum", "x"), ("both", "y"), ("first", "x")])
    def test_each_rule_by_hand(self, rule, chosen):
        """x: 1.0 > 0.8, but 0.1 < 0.4. y: 0.95 > 0.8, both above 0.4. z: nothing."""
        assert choice.auxiliary(self.POOL, ["a", "b"], rule, delta=0.5) == chosen

    def test_the_first_target_is_the_first_named(self):
        """From b, x is far: of what is left y."""
        assert choice.auxiliary(self.POOL, ["b", "a"], "first", delta=0.5) == "y"
        for rule in ("sum", "both"):
            assert choice.auxiliary(self.POOL, ["b", "a"], rule, 0.5) == choice.auxiliary(self.POOL, ["a", "b"], rule, 0.5)

    def test_the_sum_must_be_above_and_not_at(self):
        at = table(ab=0.4, ax=0.5, bx=0.3)
        assert choice.auxiliary(at, ["a", "b"], delta=1) is None
        assert choice.auxiliary(table(ab=0.4, ax=0.5, bx=0.31), ["a", "b"], delta=1) == "x"
        assert choice.auxiliary(table(ab=0.4, ax=0.4, bx=0.9), ["a", "b"], "both", delta=1) is None
        assert choice.auxiliary(table(ab=0.4, ax=0.4, bx=0.9), ["a", "b"], "first", delta=1) is None

    def test_gate(self):
        assert choice.auxiliary(self.POOL, ["a", "b"], delta=0.41) == "x"
        assert choice.auxiliary(self.POOL, ["a", "b"], delta=0.4) is None
        # the ten pairs: 0.1 0.1 0.2 0.4 0.45 0.5 0.5 0.5 0.5 0.9, median 0.475
        assert choice.auxiliary(self.POOL, ["a", "b"]) == "x"
        # a, y are below it, as alike as 0.45, though above the mean of all pairs, 0.415
        assert choice.auxiliary(self.POOL, ["a", "y"]) == "x"
        # targets x, y are as alike as 0.5 and need no help, though a is nearer: 0.9 + 0.45 > 1
        assert choice.auxiliary(self.POOL, ["x", "y"]) is None
        assert choice.auxiliary(self.POOL, ["x", "y"], delta=0.51) == "a"

    def test_the_sum_rule_for_two_is_the_papers_condition(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            pool = table(**{i + j: float(rng.uniform(-1, 1)) for i, j in itertools.combinations("abcde", 2)})
            fit = [x for x in "cde" if pool["a"][x] + pool["b"][x] > 2 * pool["a"]["b"]]
            best = max(fit, key=lambda x: pool["a"][x] + pool["b"][x]) if fit else None
            assert choice.auxiliary(pool, ["a", "b"], delta=2) == best

    def test_three_targets(self):
        """Mean of the pairs 0.4; x: 1.3 / 3 above, but 0.3 to c; y: 1.23 / 3 above and everywhere above."""
        pairs = dict(ab=0.2, ac=0.4, bc=0.6, ax=0.5, bx=0.5, cx=0.3, ay=0.41, by=0.41, cy=0.41, xy=0.0)
        for targets in itertools.permutations("abc"):
            assert choice.auxiliary(table(**pairs), targets, "sum", 1) == "x"
            assert choice.auxiliary(table(**pairs), targets, "both", 1) == "y"
            assert choice.auxiliary(table(**pairs), targets, "first", 1) == ("y" if targets[0] == "c" else "x")
            assert choice.auxiliary(table(**pairs), targets, "sum", 0.39) is None

    def test_permuting_tasks_permutes_the_decision(self):
        for names in itertools.permutations("xyz"):
            renamed = dict(zip("abxyz", ["a", "b", *names], strict=True))
            pool = {renamed[i]: {renamed[j]: s for j, s in row.items()} for i, row in self.POOL.items()}
            for rule in choice.AUXILIARY_RULES:
                expected = choice.auxiliary(self.POOL, ["a", "b"], rule, 0.5)
                assert choice.auxiliary(pool, ["a", "b"], rule, 0.5) == renamed[expected]
            assert choice.strongest(pool, ["a", "b"]) == renamed["x"] and choice.weakest(pool, ["a", "b"]) == renamed["z"]

    def test_ties_go_to_the_name_that_sorts_first(self):
        pool = table(ab=0.4, ax=0.7, bx=0.5, ay=0.5, by=0.7, xy=0.0)
        for order in ("abxy", "yxba"):
            shuffled = {i: {j: pool[i][j] for j in order} for i in order}
            assert choice.auxiliary(shuffled, ["a", "b"], delta=1) == "x"
            assert choice.strongest(shuffled, ["a", "b"]) == choice.weakest(shuffled, ["b", "a"]) == "x"

    def test_strongest_and_weakest_know_no_gate(self):
        assert (choice.strongest(self.POOL, ["a", "b"]), choice.weakest(self.POOL, ["a", "b"])) == ("x", "z")
        close = table(ab=0.99, ax=0.1, bx=0.1, ay=0.2, by=0.2, xy=0.0)
        assert choice.auxiliary(close, ["a", "b"]) is None
        assert (choice.strongest(close, ["a", "b"]), choice.weakest(close, ["a", "b"])) == ("y", "x")

    def test_nothing_to_choose_from(self):
        pool = table(ab=0.4)
        assert choice.auxiliary(pool, ["a", "b"], delta=1) is None
        for forced in (choice.strongest, choice.weakest):
            with pytest.raises(UserError, match="no task besides a, b"):
                forced(pool, ["a", "b"])

    @pytest.mark.parametrize("fn", [choice.auxiliary, choice.strongest, choice.weakest])
    def test_targets(self, fn):
        for targets in ([], ["a"], ["a", "a"], ["a", "b", "a"]):
            with pytest.raises(UserError, match="two or more different tasks, not for"):
                fn(self.POOL, targets)
        with pytest.raises(UserError, match="no similarities for task 'q': there are a, b, x, y, z"):
            fn(self.POOL, ["a", "q"])

    def test_another_rule(self):
        with pytest.raises(UserError, match="unknown auxiliary rule 'all': there are sum, both, first"):
            choice.auxiliary(self.POOL, ["a", "b"], "all")
