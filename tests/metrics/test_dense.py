"""Metrics of maps against formulas over flat lists of pixels, numpy.median, scikit-learn; sums against their parts."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, mean_squared_error

from amalgam_tf.errors import UserError
from amalgam_tf.metrics import dense

RNG = np.random.default_rng(0)
SHAPE = (5, 6, 7)


def case(kind: str, seed=0) -> dict:
    """Maps of five images: the third without a valid pixel, the last with one."""
    rng = np.random.default_rng(seed)
    if kind == "depth":
        truth = rng.uniform(0.5, 10, (*SHAPE, 1))
        prediction = truth * np.exp(rng.normal(scale=0.4, size=truth.shape))
    elif kind == "normal":
        truth = rng.normal(size=(*SHAPE, 3))
        prediction = truth + rng.normal(scale=0.7, size=truth.shape)
    else:
        truth, prediction = rng.uniform(size=(2, *SHAPE, 2))
    mask = rng.integers(0, 2, SHAPE).astype(np.uint8)
    mask[2], mask[4] = 0, 0
    mask[4, 3, 3] = 1
    return dict(kind=kind, prediction=prediction.astype(np.float32), truth=truth.astype(np.float32), mask=mask)


def measured(kind, **given) -> dict:
    return dense.report(kind, dense.sums(kind=kind, **given))


def one(value, shape=(1, 1, 2)):
    return np.reshape(np.asarray(value, np.float64), (*shape, -1))


class TestDepth:
    def test_absolute_relative_error_is_a_mean_of_ratios(self):
        """(1, 100) for (2, 100): (1/2 + 0) / 2; the ratio of means would say 0.0098."""
        found = measured("depth", prediction=one([1, 100]), truth=one([2, 100]))
        assert found["absrel"] == pytest.approx(0.25)
        assert found["rmse"] == pytest.approx(math.sqrt(0.5)) and found["l1"] == pytest.approx(0.5)
        assert (found["d1.25"], found["d1.25^2"], found["d1.25^3"]) == (0.5, 0.5, 0.5)

    def test_ratios_go_both_ways_and_are_below_the_limit(self):
        truth = np.full(8, 4.0)
        found = measured("depth", prediction=one([4, 5, 3.2, 4.9, 3.3, 6, 2.5, 7.8], (1, 2, 4)), truth=one(truth, (1, 2, 4)))
        assert found["d1.25"] == 3 / 8  # 5 / 4 is not below 1.25
        assert (found["d1.25^2"], found["d1.25^3"]) == (6 / 8, 1)

    def test_scikit_learn(self):
        given = case("depth")
        found, valid = measured(**given), given["mask"] > 0
        truth, prediction = (given[k].astype(np.float64)[valid][:, 0] for k in ("truth", "prediction"))
        assert found["rmse"] == pytest.approx(mean_squared_error(truth, prediction) ** 0.5)
        assert found["absrel"] == pytest.approx(mean_absolute_percentage_error(truth, prediction))
        assert found["l1"] == pytest.approx(mean_absolute_error(truth, prediction))
        logs = np.abs(np.log(prediction) - np.log(truth))
        for power in (1, 2, 3):
            assert found["d1.25" + (f"^{power}" if power > 1 else "")] == pytest.approx(np.mean(logs < power * math.log(1.25)))

    def test_predictions_and_truths_are_at_least_a_millimetre(self):
        found = measured("depth", prediction=one([-5.0, 0.0]), truth=one([1.001, 0.0]))
        assert found["l1"] == pytest.approx(0.5) and found["absrel"] == pytest.approx(1 / 1.001 / 2) and found["d1.25"] == 0.5

    def test_what_cannot_be_depth(self):
        with pytest.raises(UserError, match="the true depth reaches down to -0.2 m"):
            dense.sums(kind="depth", prediction=one([1, 1]), truth=one([1, -0.2]))
        with pytest.raises(UserError, match="depth maps cannot have 3 channels"):
            dense.sums(kind="depth", prediction=np.ones((1, 2, 2, 3)), truth=np.ones((1, 2, 2, 3)))

    def test_paper_style_is_unmasked_metres(self):
        """One of two pixels without a reading, 128 m, at a prediction of 2 m: invisible to the others."""
        found = measured("depth", prediction=one([1, 2]), truth=one([1.1, 128]), mask=np.array([[[1, 0]]]))
        assert found["rmse"] == pytest.approx(0.1) and found["d1.25"] == 1
        assert found["paper_rmse"] == pytest.approx(math.sqrt((0.1**2 + 126**2) / 2))
        assert found["paper_rel"] == pytest.approx((0.1 / 1.1 + 126 / 128) / 2)
        assert found["paper_d1.25"] == found["paper_d1.25^3"] == 0.5


class TestNormal:
    @staticmethod
    def turned(degrees):
        """Unit vectors so far from (0, 0, 1), as [1, 1, n, 3]."""
        a = np.radians(degrees)
        return np.stack([np.sin(a), 0 * a, np.cos(a)], -1)[None, None]

    def test_by_hand(self):
        angles = np.array([0.0, 10.0, 11.3, 22.4, 29.0, 31.0, 90.0, 180.0])
        truth = np.broadcast_to([0.0, 0.0, 1.0], (1, 1, 8, 3))
        found = measured("normal", prediction=self.turned(angles) * 5, truth=truth * 0.1)  # of any length
        assert found["mean_deg"] == pytest.approx(angles.mean())
        assert found["median_deg"] == pytest.approx(np.median(angles), abs=0.1)
        assert (found["within_11.25"], found["within_22.5"], found["within_30"]) == (2 / 8, 4 / 8, 5 / 8)

    def test_numpy(self):
        given = case("normal")
        found, valid = measured(**given), given["mask"] > 0
        truth, prediction = (given[k].astype(np.float64)[valid] for k in ("truth", "prediction"))
        cosine = (truth * prediction).sum(-1) / np.linalg.norm(truth, axis=-1) / np.linalg.norm(prediction, axis=-1)
        angles = np.degrees(np.arccos(cosine))
        assert found["mean_deg"] == pytest.approx(angles.mean())
        assert found["median_deg"] == pytest.approx(np.median(angles), abs=0.1)
        for limit in (11.25, 22.5, 30):
            assert found[f"within_{limit:g}"] == np.mean(angles < limit)

    @pytest.mark.parametrize("count", [1, 2, 3, 10, 101, 1000])
    def test_median(self, count):
        truth = np.broadcast_to([0.0, 0.0, 1.0], (1, 1, count, 3))
        for seed in range(5):
            angles = np.random.default_rng(seed).choice([1.0, 17.0, 180.0], count) - np.random.default_rng(seed).uniform(0, 1, count)
            found = measured("normal", prediction=self.turned(angles), truth=truth)["median_deg"]
            assert found == pytest.approx(np.median(angles), abs=0.1)  # also the mean of two far apart, if the count is even

    def test_the_median_is_finer_than_its_bins_where_they_are_full(self):
        angles = np.linspace(20.0, 20.1, 10001)[:-1]
        truth = np.broadcast_to([0.0, 0.0, 1.0], (1, 1, len(angles), 3))
        found = measured("normal", prediction=self.turned(angles), truth=truth)["median_deg"]
        assert found == pytest.approx(20.05, abs=0.001)
        assert measured("normal", prediction=self.turned([17.08]), truth=truth[:, :, :1])["median_deg"] == pytest.approx(17.05)

    def test_small_angles_and_the_ends(self):
        truth = np.broadcast_to([0.0, 0.0, 1.0], (1, 1, 1, 3))
        for angle in (0.0, 1e-6, 180 - 1e-6, 180.0):
            assert measured("normal", prediction=self.turned([angle]), truth=truth)["mean_deg"] == pytest.approx(angle, abs=1e-9)

    def test_no_direction_is_ninety_degrees_off(self):
        found = measured("normal", prediction=np.zeros((1, 1, 1, 3)), truth=np.ones((1, 1, 1, 3)))
        assert found["mean_deg"] == pytest.approx(90)

    def test_paper_style_is_8_bits_without_a_mask(self):
        """(0, 0, 1) is (127.5, 127.5, 255), (1, 0, 0) is (255, 127.5, 127.5); with one more on both sides where divided."""
        given = dict(prediction=np.array([[[[0.0, 0.0, 9.0]]]]), truth=np.array([[[[1.0, 0.0, 0.0]]]]), mask=np.zeros((1, 1, 1)))
        found = measured("normal", **given)
        assert found["mean_deg"] is None
        assert found["paper_rmse"] == pytest.approx(math.sqrt(2 * 127.5**2 / 3))
        assert found["paper_rel"] == pytest.approx((127.5 / 256 + 127.5 / 128.5) / 3)
        assert found["paper_d1.25"] == found["paper_d1.25^3"] == pytest.approx(1 / 3)

    def test_two_channels_are_no_normals(self):
        with pytest.raises(UserError, match="normal maps cannot have 2 channels"):
            dense.sums(kind="normal", prediction=np.ones((1, 1, 1, 2)), truth=np.ones((1, 1, 1, 2)))


class TestMap:
    def test_scikit_learn(self):
        given = case("map")
        found, valid = measured(**given), given["mask"] > 0
        truth, prediction = (given[k].astype(np.float64)[valid] for k in ("truth", "prediction"))
        assert found["l1"] == pytest.approx(mean_absolute_error(truth, prediction))
        assert found["rmse"] == pytest.approx(mean_squared_error(truth.ravel(), prediction.ravel()) ** 0.5)

    @pytest.mark.parametrize(("bits", "top"), [(8, 255), (16, 65535 / 256)])
    def test_paper_style(self, bits, top):
        """Zeros count, by one more on both sides: 0 for 0 is a ratio of 1, 1 for 0 one of top + 1."""
        found = measured("map", prediction=one([0, 1, 0.5, 0.8], (1, 2, 2)), truth=one([0, 0, 0.5, 0.5], (1, 2, 2)), bits=bits)
        assert found["paper_rmse"] == pytest.approx(top * math.sqrt((1 + 0.3**2) / 4))
        assert found["paper_rel"] == pytest.approx((top + 0.3 * top / (0.5 * top + 1)) / 4)
        assert (found["paper_d1.25"], found["paper_d1.25^2"], found["paper_d1.25^3"]) == (0.5, 0.5, 0.75)  # 1.594 beside 1.5625
        assert found["rmse"] == pytest.approx(math.sqrt((1 + 0.3**2) / 4))

    def test_below_zero_nothing_divides_by_zero(self):
        found = measured("map", prediction=one([-1 / 255, -7]), truth=one([0, 0]), bits=8)
        assert found["paper_rel"] == 0 and found["paper_d1.25"] == 1


@pytest.mark.parametrize("kind", dense.METRICS)
class TestEveryKind:
    def test_sums_of_parts_are_the_sums_of_the_whole(self, kind):
        given = case(kind)
        whole = dense.sums(**given)
        for cuts in ([2], [1, 3], [0, 5]):
            edges = [0, *cuts, 5]
            rows = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
            parts = [dense.sums(kind=kind, **{k: v[r] for k, v in given.items() if k != "kind"}) for r in rows]
            joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
            assert all(np.array_equal(joined[k], whole[k]) for k in whole) and set(joined) == set(whole)

    def test_every_column_has_a_sum_an_image(self, kind):
        sums = dense.sums(**case(kind))
        assert set(sums) == set(dense.METRICS[kind]) - {"median_deg"} | {"values", "paper_values"} | ({"histogram"} & set(sums))
        assert all(v.shape[0] == 5 for v in sums.values()) and ("histogram" in sums) == (kind == "normal")
        channels = {"depth": 1, "normal": 1, "map": 2}[kind]
        assert np.array_equal(sums["values"], case(kind)["mask"].sum((1, 2)) * channels)
        assert np.array_equal(sums["paper_values"], [6 * 7 * case(kind)["truth"].shape[-1]] * 5)

    def test_a_resample_counts_an_image_as_often_as_it_was_drawn(self, kind):
        given, drawn = case(kind), [0, 3, 3, 4, 3]
        again = {k: v[drawn] for k, v in given.items() if k != "kind"}
        sums = dense.sums(**given)
        resampled = dense.report(kind, {k: v[drawn] for k, v in sums.items()})
        assert resampled == pytest.approx(measured(kind, **again))
        assert resampled != pytest.approx(dense.report(kind, sums))

    def test_pooled_over_pixels_and_no_mean_of_images(self, kind):
        """An image with a single valid pixel counts for a single pixel."""
        given = case(kind)
        column = dense.METRICS[kind][0]
        found = measured(**given)[column]
        each = [measured(kind, **{k: v[i : i + 1] for k, v in given.items() if k != "kind"})[column] for i in (0, 1, 3, 4)]
        power = 2 if column == "rmse" else 1
        counts = given["mask"].sum((1, 2))[[0, 1, 3, 4]]
        assert found**power == pytest.approx(np.average(np.array(each) ** power, weights=counts))
        assert found != pytest.approx(np.mean(each))

    def test_what_is_masked_has_no_say(self, kind):
        given = case(kind)
        other = {**given, "prediction": np.where(given["mask"][..., None] > 0, given["prediction"], 0.5)}
        changed = measured(**other)
        for column, value in measured(**given).items():
            assert column.startswith("paper_") == (changed[column] != value)

    def test_the_mask_is_everything_by_default_and_may_be_boolean(self, kind):
        given = case(kind)
        whole = {k: v for k, v in given.items() if k != "mask"}
        assert measured(**whole) == measured(**whole, mask=np.ones(SHAPE))
        assert measured(**given) == measured(**{**given, "mask": given["mask"] > 0})

    def test_nothing_valid_is_none_and_ready_for_json(self, kind):
        given = {**case(kind), "mask": np.zeros(SHAPE)}
        found = measured(**given)
        assert list(found) == list(dense.METRICS[kind])
        assert all((v is None) == (not k.startswith("paper_")) for k, v in found.items())
        assert json.loads(json.dumps(found)) == found
        nothing = {k: v[:0] for k, v in given.items() if k != "kind"}
        assert set(measured(kind, **nothing).values()) == {None}

    def test_a_perfect_prediction(self, kind):
        given = case(kind)
        for column, value in measured(**{**given, "prediction": given["truth"]}).items():
            assert value == pytest.approx(1 if "d1.25" in column or "within" in column else 0, abs=0.1 if "median" in column else 1e-6)

    def test_order_of_images_does_not_matter(self, kind):
        given, order = case(kind), RNG.permutation(5)
        assert measured(kind, **{k: v[order] for k, v in given.items() if k != "kind"}) == pytest.approx(measured(**given))

    def test_misfits(self, kind):
        given = case(kind)
        for change, sentence in (
            (dict(truth=given["truth"][:4]), "do not fit: pass both"),
            (dict(truth=given["truth"][..., 0], prediction=given["prediction"][..., 0]), "do not fit: pass both"),
            (dict(mask=given["mask"][:, :1]), r"a mask of shape \(5, 1, 7\) does not fit"),
            (
                dict(prediction=np.where(np.arange(5)[:, None, None, None] == 1, np.nan, given["prediction"])),
                "1 of 5 images have predictions",
            ),
            (dict(truth=np.full_like(given["truth"], np.inf)), "5 of 5 images have truth that are not finite"),
        ):
            with pytest.raises(UserError, match=sentence):
                dense.sums(**{**given, **change})


def test_unknown_kind():
    for fn in (lambda: dense.report("normals", {}), lambda: dense.sums(kind="normals", prediction=one([1, 1]), truth=one([1, 1]))):
        with pytest.raises(UserError, match="unknown kind of dense task 'normals': did you mean 'normal'"):
            fn()
