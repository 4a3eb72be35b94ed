"""What component nets follow and how often they say yes: nine images by hand, and the selection against logits."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import choice
from amalgam_tf.errors import UserError
from amalgam_tf.report import customize, customize_rates, customize_seeds, runs
from amalgam_tf.report.customize_rates import AT_RATE, FOLLOWED, SOURCES, TRUTH, YES
from tests.report import fakes

TASK, OTHER = "Black_Hair", "Blond_Hair"
#                the last image is of unknown truth
TRUTHS = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, -1], np.int8)
FIRST = np.float32([0.9, 0.6, 0.4, 0.3, 0.1, 0.2, 0.7, 0.1, 0.1, 0.9])
SECOND = np.float32([0.6, 0.2, 0.8, 0.1, 0.4, 0.1, 0.4, 0.3, 0.2, 0.9])
SUREST = np.float32([0.9, 0.2, 0.8, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.9])
MINE = np.float32([0.45, 0.4, 0.3, 0.2, 0.1, 0.35, 0.05, 0.15, 0.1, 0.99])
MEASURED = {
    SOURCES: {"ap_all": (5 / 6 + 17 / 21) / 2, YES: 2.5 / 9, "accuracy": 7.5 / 9, "balanced_accuracy": 19 / 24},
    FOLLOWED: {"ap_all": 11 / 12, YES: 3 / 9, "accuracy": 7 / 9, "balanced_accuracy": 3 / 4, AT_RATE: 3 / 4},
    # never yes; the threshold of 2.5 in 9 lies at 0.339, above it the images 0, 1 and 5
    "student": {"ap_all": 11 / 12, YES: 0.0, "accuracy": 6 / 9, "balanced_accuracy": 1 / 2, AT_RATE: 3 / 4},
    TRUTH: {YES: 3 / 9},
}


def saved(folder, *, task=TASK, mine=MINE, truth=TRUTHS, seed=0, taught=None, order=None, **more):
    """A run of a component net with scores, as read back."""
    taught = taught or dict(zip(fakes.HAIR[task], (FIRST, SECOND), strict=True))
    results = fakes.customize(0.8, [task], taught={n: [task] for n in taught}, seed=seed, images=len(truth), **more)
    fakes.save(folder, results)
    networks = {"student": {task: mine}, **{n: {task: p} for n, p in taught.items()}}
    fakes.save_scores(folder, {task: truth}, networks, order)
    return runs.read([str(folder)])[0][0]


def approx(values):
    return {who: pytest.approx(of) for who, of in values.items()}


class TestFollowed:
    def test_by_hand(self):
        assert customize_rates.followed([FIRST, SECOND]) == pytest.approx(SUREST)

    def test_a_tie_goes_to_the_first(self):
        low, high = np.float32([0.25, 0.5, 0.0]), np.float32([0.75, 0.5, 1.0])  # 1 - p without rounding
        assert customize_rates.followed([low, high]).tolist() == low.tolist()
        assert customize_rates.followed([high, low]).tolist() == high.tolist()

    def test_certainty_is_surest_on_both_sides(self):
        sure, unsure = np.float32([1.0, 0.0]), np.float32([0.999, 0.001])
        for taught in ([unsure, sure], [sure, unsure]):
            assert customize_rates.followed(taught).tolist() == [1.0, 0.0]

    @pytest.mark.parametrize("head", ["sigmoid", "softmax2", "softmax"])
    def test_chooses_from_probabilities_as_training_from_logits(self, head):
        width = {"sigmoid": 1, "softmax2": 2, "softmax": 5}[head]
        logits = np.random.default_rng(2).normal(0, 3, (3, 400, width)).astype(np.float32)
        probabilities = tf.sigmoid(logits)[..., 0] if head == "sigmoid" else tf.nn.softmax(logits)
        probabilities = (probabilities[..., 1] if head == "softmax2" else probabilities).numpy()
        places = choice.select_teacher([choice.entropy(of, head) for of in logits]).numpy()
        assert set(places.tolist()) == {0, 1, 2}
        assert np.array_equal(customize_rates.followed(list(probabilities)), probabilities[places, np.arange(400)])

    def test_categories_of_probability_0(self):
        sure, unsure = np.float32([[1, 0, 0], [0.5, 0.5, 0]]), np.float32([[0.2, 0.6, 0.2], [0.1, 0.9, 0]])
        assert customize_rates.followed([unsure, sure]).tolist() == [sure[0].tolist(), unsure[1].tolist()]


class TestAtRate:
    @pytest.mark.parametrize(("rate", "yes"), [(0, 0), (0.3, 3), (0.25, 3), (0.8, 8)])
    def test_share_of_yes(self, rate, yes):
        scores = np.random.default_rng(0).permutation(10) / 10
        answers = customize_rates.at_rate(scores, rate)
        assert answers.sum() == yes and set(scores[answers == 1]) == set(np.sort(scores)[10 - yes :])

    def test_ties_are_a_no(self):
        assert customize_rates.at_rate(np.array([0.2, 0.7, 0.7, 0.7]), 0.5).tolist() == [0, 0, 0, 0]


class TestOneRun:
    def test_by_hand(self, tmp_path):
        assert customize_rates.of_run(saved(tmp_path / "a"), TASK) == approx(MEASURED)

    def test_the_rate_is_that_of_the_source_nets(self, tmp_path):
        """3 of 9 on average, where 6 of 9 are followed."""
        first, second = np.float32([0.9] * 6 + [0.4] * 3 + [0]), np.float32([0.4] * 9 + [0])
        run = saved(tmp_path / "a", mine=np.linspace(1, 0.6, 10), taught=dict(S1=first, S2=second))
        found = customize_rates.of_run(run, TASK)
        assert (found[SOURCES][YES], found[FOLLOWED][YES]) == pytest.approx((3 / 9, 6 / 9))
        assert found["student"][AT_RATE] == 1 and found["student"]["balanced_accuracy"] == 0.5

    def test_order_of_images_decides_nothing(self, tmp_path):
        assert customize_rates.of_run(saved(tmp_path / "a", order=np.arange(10)[::-1]), TASK) == approx(MEASURED)

    def test_average_precision_is_that_of_the_test_part(self, tmp_path):
        found = customize_rates.of_run(saved(tmp_path / "a", data="voc2007/test"), TASK)
        assert "ap_all" not in found[SOURCES] and found["student"]["ap_11pt"] == pytest.approx((7 + 4 * 0.75) / 11)

    def test_categories(self, tmp_path):
        truth = np.array([0, 1, 2, 1, -1])
        first = np.float32([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.1, 0.9, 0], [1, 0, 0]])
        second = np.float32([[0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3], [1, 0, 0]])
        run = saved(tmp_path / "a", task="X1", truth=truth, mine=first[[0, 0, 0, 0, 0]], taught={"S1": first, "S2": second})
        found = customize_rates.of_run(run, "X1")
        assert found == approx({SOURCES: {"accuracy": 5 / 8}, FOLLOWED: {"accuracy": 1.0}, "student": {"accuracy": 1 / 4}})

    def test_what_is_not_defined_is_left_out(self, tmp_path):
        none = customize_rates.of_run(saved(tmp_path / "a", truth=np.where(TRUTHS == 1, 0, TRUTHS)), TASK)
        assert "ap_all" not in none[FOLLOWED] and none[FOLLOWED]["accuracy"] == pytest.approx(6 / 9) and none[TRUTH] == {YES: 0.0}
        assert customize_rates.of_run(saved(tmp_path / "b", truth=np.full_like(TRUTHS, -1)), TASK) == {}

    def test_bad_scores_are_named(self, tmp_path):
        missing = saved(tmp_path / "a")
        more = {**missing.results, "teachers": {**missing.results["teachers"], "S3": [TASK]}}
        with pytest.raises(UserError, match=r"a/scores.npz has no 'S3/Black_Hair': it is of another run"):
            customize_rates.of_run(replace(missing, results=more), TASK)
        with pytest.raises(UserError, match=r"b/scores.npz, task 'Black_Hair': 1 of 9 scores are not finite"):
            customize_rates.of_run(saved(tmp_path / "b", mine=np.where(MINE == MINE[0], np.nan, MINE)), TASK)


def components(*found):
    return {g.first.results["tasks"][0]: g for g in customize.groups(found)[0]}


class TestOverSeeds:
    @pytest.fixture
    def found(self, tmp_path):
        """Two tasks; the second has no seed 1, and its student is the first source net."""
        return [
            saved(tmp_path / "a0"),
            saved(tmp_path / "a1", seed=1, mine=SUREST),
            saved(tmp_path / "b0", task=OTHER, mine=FIRST),
        ]

    def test_rows(self, found):
        made = {(r.task, r.name): r.values for r in customize_rates.rows(components(*found))}
        names = [SOURCES, FOLLOWED, "component of 2 source nets", TRUTH]
        means = [SOURCES, FOLLOWED, "component", TRUTH]
        assert list(made) == [*((t, n) for t in (TASK, OTHER) for n in names), *(("mean of 2", n) for n in means)]
        assert made[TASK, names[2]][YES] == pytest.approx((0, 100 / 3)) and made[TASK, names[2]]["accuracy"] == pytest.approx(
            (200 / 3, 700 / 9)
        )
        assert made[OTHER, names[2]]["balanced_accuracy"] == pytest.approx((75,))
        assert made["mean of 2", "component"]["accuracy"] == pytest.approx((100 * (6 / 9 + 7 / 9) / 2,))  # seed 0 only
        assert made["mean of 2", TRUTH] == {YES: pytest.approx((100 / 3,))}

    def test_nothing_to_choose_or_no_scores(self, found, tmp_path):
        one = saved(tmp_path / "one", taught={"S1": FIRST})
        assert customize_rates.rows(components(one)) == [] == customize_rates.said([])
        rows = customize_rates.rows(components(replace(found[0], scores=None), *found[1:]))
        assert {r.task: len(r.values[YES]) for r in rows} == {TASK: 1, OTHER: 1}  # no seed that both have, so no mean

    def test_a_mean_needs_every_task(self, tmp_path):
        none = saved(tmp_path / "b", task=OTHER, truth=np.where(TRUTHS == 1, 0, TRUTHS))
        last = customize_rates.rows(components(saved(tmp_path / "a"), none))[-2]
        assert (last.task, last.name) == ("mean of 2", "component") and "ap_all" not in last.values and last.values[YES] == (0.0,)


def table(lines):
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_section_of_binary_tasks(tmp_path):
    rows = customize_rates.rows(components(saved(tmp_path / "a0"), saved(tmp_path / "a1", seed=1, mine=SUREST)))
    lines = customize_rates.said(rows)
    assert lines[0] == "### Where the operating point comes from" and "an analysis, not a result" in lines[2]
    head, _, *cells = table(lines)
    assert head[3:] == ["AP %", "called positive %", "accuracy %", "balanced %", "balanced % at the sources' rate"]
    assert cells == [
        [TASK, "mean of its source nets", "2", "82.1", "27.8", "83.3", "79.2", "-"],
        [TASK, "what is followed", "2", "91.7", "33.3", "77.8", "75.0", "75.0"],
        [TASK, "component of 2 source nets", "2", "91.7", "16.7 [0.0..33.3]", "72.2 [66.7..77.8]", "62.5 [50.0..75.0]", "75.0"],
        [TASK, "truth", "2", "-", "33.3", "-", "-", "-"],
    ]


def test_section_of_categories_speaks_of_accuracy_only(tmp_path):
    scores = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    run = saved(tmp_path / "a", task="X1", truth=np.array([0, 1, 2, 1]), mine=scores, taught={"S1": scores, "S2": scores})
    lines = customize_rates.said(customize_rates.rows(components(run)))
    assert table(lines)[0] == ["task", "network", "seeds", "accuracy %"] and "threshold" not in lines[2]
    assert [r[1:] for r in table(lines)[2:]] == [[n, "1", "75.0"] for n in (SOURCES, FOLLOWED, "component of 2 source nets")]


def test_in_the_summary(tmp_path):
    found = [
        saved(tmp_path / "a0"),
        saved(tmp_path / "kd", select="all", argument="hair,kd", mine=FIRST),
        saved(tmp_path / "b", task=OTHER),
    ]
    markdown, _ = customize_seeds.write("x", found, [], tmp_path, 5)
    sections = markdown.split("### Where the operating point comes from")
    assert len(sections) == 3 and "KD" not in sections[1].partition("\n### ")[0]  # two families; the whole component net only
    with open(tmp_path / "x.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["family"] == TASK]
    keys = [(r["task"], r["network"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys)
    values = {k: float(r["median"]) for k, r in zip(keys, rows, strict=True)}
    assert values[TASK, FOLLOWED, YES] == pytest.approx(100 / 3, rel=1e-5) and values[TASK, TRUTH, YES] == values[TASK, FOLLOWED, YES]
    assert values[TASK, "component of 2 source nets", AT_RATE] == 75 and values[TASK, SOURCES, "accuracy"] == pytest.approx(
        250 / 3, rel=1e-5
    )
