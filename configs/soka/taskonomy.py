"""SOKA: a student of two pixel-to-pixel teachers, tables 1 to 5 and figures 4 and 5.

Command: python -m amalgam_tf.bin.train --config=configs/soka/taskonomy.py:depth-edge2d --workdir=runs/soka_taskonomy/depth-edge2d
    --config.data.root=taskonomy
Data: Taskonomy, building wiconisco of its val split (S13: 3,000 random images test); data.root is the folder that holds it. `scenes` needs
    none. `rgbd`: what tools/prepare_7scenes.py makes of 7-Scenes frames.
Hardware and expected time: 600,000 steps are weeks on one GPU; `scenes` and `rgbd`: 2 CPU cores, ten minutes, or about an hour with the
    teachers (five, three) that train_missing_teachers trains on the way.
Published row: soka_table1 to soka_table5.
Expected: see results/soka_scenes and results/soka_rgbd.

Argument: a pair of tasks (default depth-edge2d; edge2d: edge_texture, edge3d: edge_occlusion), a variant, and `scenes` or `rgbd`. Variants:
`no_auxiliary`, `strong` and `weak` (auxiliary teachers: none, and those of the highest and the lowest similarity), `kd` (soft losses alone,
jointly), `kd_mia` (with L_A), `equal` (no GradNorm), `weighted` (S6), `fast_weights` (rate of the task weights 1e-3), `printed_mia`
(features aggregated as printed, S2), `dmtl` and `gradnorm` (from the true maps).
"""

from configs import common, common_dense

FILE = "configs/soka/taskonomy.py"
VARIANTS = ("ours", *common_dense.VARIANTS)
ARGUMENTS = (
    *common_dense.PAIRS,
    *(f"depth-edge2d,{v}" for v in common_dense.VARIANTS),
    *(f"{p},scenes" for p in common_dense.PAIRS),
    *(f"depth-edge2d,{v},scenes" for v in common_dense.VARIANTS),
    *("depth-normal,rgbd", "depth-normal,kd,rgbd"),
)
TABLE_1 = {"depth": "depth", "edge2d": "edge2d", "normal": "sfnorm", "edge3d": "edge3d"}  # names in its rows
ROWS = {  # of depth + edge2d
    "ours": "soka_table3/Ours,soka_table5/KD+MIA+ACCT",
    "no_auxiliary": "soka_table4/w/o auxiliary",
    "strong": "soka_table4/keypoint3d",
    "weak": "soka_table4/vanishing point",
    "kd": "soka_table5/KD",
    "kd_mia": "soka_table5/KD+MIA",
    "dmtl": "soka_table3/dMTL",
    "gradnorm": "soka_table3/GradNorm",
}


def get_config(argument: str = ""):
    words = common.words(argument, *common_dense.SCALES, *common_dense.PAIRS, *VARIANTS)
    scale, pair, variant = (common.one(words, known) for known in (common_dense.SCALES, common_dense.PAIRS, VARIANTS))
    tasks = [common_dense.SHORT[name] for name in pair.split("-")]
    needed = common_dense.VARIANTS.get(variant, {}).get("auxiliary.choose", "") != "none"
    pool = common_dense.POOLS[scale] if needed else tasks
    suffix = "" if scale == "taskonomy" else scale
    entries = {
        t: {"path": f"{{workdir}}/../teachers/{t}", "config": f"configs/teachers/taskonomy.py:{common.joined(t, suffix)}"} for t in pool
    }
    own = "" if variant == "ours" else variant
    command = (
        f"python -m amalgam_tf.bin.train --config={FILE}:{common.joined(pair, own, suffix)} "
        f"--workdir=runs/soka_{scale}/{pair}{own and '_' + own}{common_dense.root_flag(scale)}"
    )
    config = common_dense.soka(command, entries, ",".join(tasks))
    config.data = common_dense.data_of(scale)
    config.update_from_flattened_dict({**common_dense.STEPS[scale], **common_dense.VARIANTS.get(variant, {})})
    config.published_row = _row(pair, variant)
    return common_dense.smoke(config) if "smoke" in words else config


def _row(pair: str, variant: str) -> str:
    first, second = (TABLE_1[name] for name in pair.split("-"))
    table_1 = f"soka_table1/{first}-{second},soka_table1/{second}-{first}" if variant == "ours" else ""
    return common.joined(table_1, ROWS.get(variant, "") if pair == "depth-edge2d" else "")
