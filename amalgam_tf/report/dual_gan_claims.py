"""What Dual-GAN says is better than what, over seeds: differences in mAP with seed ranges and paired intervals over the test images.

The paper's ordering (table 1): teacher and KA, ours, similar images, DAFL, different images and noise; and its table 4: both inputs of a
block are better than either. The rule of `verdict`:

* no claim: fewer than three seeds that both sides have, or no interval;
* `better` holds if the interval of the mean difference lies above 0 and every seed of the left side lies above every one of the right;
  it does not hold if both lie the other way round;
* `on par` holds if interval and every seed's difference lie above -0.02; it does not hold if all lie below;
* no claim: everything else.

An ablation is compared with the row of Dual-GAN whose settings it shares: what it does not share is then what is compared.
"""

from collections.abc import Mapping
import statistics
from typing import Any, NamedTuple

from amalgam_tf.report import resampling
from amalgam_tf.report.dual_gan import DAFL, DIFFERENT, KA, LITERAL, LITERAL_DAFL, METHOD, NOISE, OFF, OURS, SIMILAR
from amalgam_tf.report.resampling import Side
from amalgam_tf.report.runs import STUDENT, TEACHERS, FinishedRun, Group, network

BETTER, PAR = "better", "on par"
HOLDS, FAILS, NONE = "holds", "does not hold", "no claim"
MARGIN = 0.02  # of mAP that one may lose and still be on par
SEEDS = 3  # at least, for any claim

Values = Mapping[int, float]  # by seed


class Claim(NamedTuple):
    """`left` compared with `right`: names of rows."""

    said: str
    kind: str
    left: str
    right: str


def claims(found: Mapping[str, Group]) -> list[Claim]:
    """Every comparison that the rows allow: the paper's ordering from neighbour to neighbour, then what stands beside it."""
    every = [Claim("unlabelled images keep the teachers' level", PAR, KA, TEACHERS)]
    for mine, theirs in ((OURS, DAFL), (LITERAL, LITERAL_DAFL)):  # like with like
        every += [
            Claim("the teachers' own images are better than none", BETTER, KA, mine),
            Claim("no images are better than similar ones", BETTER, mine, SIMILAR),
            Claim("similar images are better than DAFL", BETTER, SIMILAR, theirs),
            Claim("DAFL is better than different images", BETTER, theirs, DIFFERENT),
            Claim("DAFL is better than noise", BETTER, theirs, NOISE),
            Claim("Dual-GAN is better than DAFL", BETTER, mine, theirs),
        ]
    every += [*_of_inputs(found), *_of_ablations(found)]
    return [c for c in every if {c.left, c.right} <= {TEACHERS, *found}]


def _of_inputs(found: Mapping[str, Group]) -> list[Claim]:
    """Table 4."""
    said = {"lambda10": "both inputs are better than the student's own alone", "lambda01": "both are better than the generator's alone"}
    return [Claim(text, BETTER, base_of(found, row), row) for row, text in said.items() if row in found and base_of(found, row)]


def _of_ablations(found: Mapping[str, Group]) -> list[Claim]:
    """Choices the paper leaves open, and our `ours` beside its literal reading: no claims of the paper."""
    rows = [r for r, g in found.items() if g.first.method == METHOD and r not in (OURS, LITERAL, "lambda10", "lambda01")]
    pairs = [(base, row) for row in rows if (base := base_of(found, row))]
    pairs += [(OURS, LITERAL)] if {OURS, LITERAL} <= set(found) else []
    return [Claim(f"(not the paper's) better than {row}", BETTER, base, row) for base, row in pairs]


def base_of(found: Mapping[str, Group], row: str) -> str:
    """Of `ours` and `literal` the one whose config differs from an ablation's in fewer leaves; "" if there is neither.

    Without config.json it is `ours`.
    """
    own = [r for r in (OURS, LITERAL) if r in found]
    return min(own, key=lambda r: _differing(found[r].first, found[row].first), default="")


def _differing(a: FinishedRun, b: FinishedRun) -> int:
    mine, theirs = (_leaves(run.config or {}) for run in (a, b))
    return sum(mine.get(k) != theirs.get(k) for k in mine.keys() | theirs.keys())


def _leaves(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value."""
    found = {}
    for key, value in section.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def verdict(kind: str, left: Values, right: Values, low: float | None, high: float | None) -> str:
    """The rule on top of this module.

    Args:
        kind: `better` or `on par`.
        left: mean average precision of every seed.
        right: of the same seeds.
        low: end of the 95 % interval of the mean difference; None without scores.
        high: its other end.
    """
    if low is None or high is None or len(left) < SEEDS:
        return NONE
    if kind == PAR:
        each = [left[s] - right[s] for s in left]
        return HOLDS if min(low, *each) > -MARGIN else FAILS if max(high, *each) < -MARGIN else NONE
    above, below = min(left.values()) > max(right.values()), max(left.values()) < min(right.values())
    return HOLDS if low > 0 and above else FAILS if high < 0 and below else NONE


def overlap(left: Values, right: Values) -> bool:
    """Whether the ranges over seeds have a value in common."""
    return min(left.values()) <= max(right.values()) and min(right.values()) <= max(left.values())


def differences(found: Mapping[str, Group], ap: str, n: int) -> list[dict[str, Any]]:
    """Every claim that some seeds allow.

    Args:
        found: as `dual_gan.rows` returns them.
        ap: which average precision.
        n: number of resamples.

    Returns:
        Rows `{"claim", "left", "right", "seeds": count, "left_value", "right_value": medians over the seeds that both have, "difference"
        of these medians, "overlap": of the seed ranges, "mean": of the seeds' differences, "low", "high": its 95 % interval over the
        test images, "smallest", "largest": of the seeds' differences, "resamples", "verdict"}`, in [-1, 1]; no interval (None) unless
        all these seeds have scores.

    Raises:
        UserError: scores that do not belong together, or damaged ones.
    """
    made = claims(found)
    sides = {id(c): tuple(_side(found, c, who) for who in (c.left, c.right)) for c in made}
    intervals: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in resampling.compare(list(sides.values()), n):
        intervals.setdefault((row["a"], row["b"]), []).append(row)
    rows = []
    for claim in made:
        left, right = (_values(side, ap) for side in sides[id(claim)])
        both = sorted(left.keys() & right.keys())
        if not both:
            continue
        left, right = ({s: of[s] for s in both} for of in (left, right))
        measured = intervals.get((claim.left, claim.right), [])
        whole = next((r for r in measured if r["seeds"] == len(both)), None)
        low, high, drawn = (whole[k] if whole else None for k in ("low", "high", "resamples"))
        each = [left[s] - right[s] for s in both]
        middle = {f"{k}_value": statistics.median(of.values()) for k, of in (("left", left), ("right", right))}
        rows.append(
            {
                **{"claim": claim.said, "left": claim.left, "right": claim.right, "seeds": len(both), **middle},
                **{"difference": middle["left_value"] - middle["right_value"], "overlap": overlap(left, right)},
                **{"mean": sum(each) / len(each), "low": low, "high": high, "smallest": min(each), "largest": max(each)},
                **{"resamples": drawn or 0, "verdict": verdict(claim.kind, left, right, low, high)},
            }
        )
    return rows


def _side(found: Mapping[str, Group], claim: Claim, who: str) -> Side:
    group = found[claim.left if who == TEACHERS else who]
    return Side(who, TEACHERS if who == TEACHERS else STUDENT, {r.seed: r for r in group.runs})


def _values(side: Side, ap: str) -> Values:
    measured = {s: network(run.results, side.network).mean(ap) for s, run in side.runs.items()}
    return {s: v for s, v in measured.items() if v is not None}


# -- figure 5 ---------------------------------------------------------------------------------------------------------
def with_and_without(found: Mapping[str, Group]) -> tuple[str, str]:
    """The row with the discrete loss that `off` is the ablation of, and `off`; "" for what there is not."""
    if OFF in found:
        return base_of(found, OFF), OFF
    return next((r for r in (OURS, LITERAL) if r in found), ""), ""
