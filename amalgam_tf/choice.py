"""Decisions as pure functions of recorded numbers: no networks, no files."""

from collections.abc import Mapping

from amalgam_tf.errors import UserError


def branch_points(losses: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Where each stream leaves the trunk: the block of its smallest loss (AFK eq. 9; the printed argmin_n is over k).

    Args:
        losses: block -> stream -> held-out loss, blocks in network order.

    Returns:
        stream -> block. A tie goes to the earliest block.
    """
    streams = next(iter(losses.values()))
    return {stream: min(losses, key=lambda block: losses[block][stream]) for stream in streams}


def best_streams(streams: Mapping[str, str], losses: Mapping[str, float]) -> dict[str, str]:
    """One stream for every task that several teachers know: the one of the smallest loss.

    Args:
        streams: stream -> task.
        losses: stream -> its loss at its branch point.

    Returns:
        task -> stream, tasks in order of appearance. A tie goes to the teacher whose name sorts first, so the order in
        which teachers are listed decides nothing.

    Raises:
        UserError: a stream without a loss.
    """
    if missing := [s for s in streams if s not in losses]:
        raise UserError(f"no held-out loss was recorded for {', '.join(missing)}: start again in a new --workdir")
    chosen: dict[str, str] = {}
    for stream in sorted(streams, key=lambda s: (losses[s], s)):
        chosen.setdefault(streams[stream], stream)
    return {task: chosen[task] for task in dict.fromkeys(streams.values())}
