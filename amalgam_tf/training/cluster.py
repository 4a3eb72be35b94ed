"""Which worker of `--strategy=multi_worker` this process is. Imports no TensorFlow: a wrong TF_CONFIG is told at once."""

from dataclasses import dataclass
import json
import os

from amalgam_tf.errors import UserError

VARIABLE = "TF_CONFIG"
_JOBS = ("chief", "worker")  # in the order of their ranks
_EXAMPLE = '\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}\''


@dataclass(frozen=True)
class Place:
    """Rank of this process among all workers (0: the chief, which alone writes files), and their addresses by rank."""

    rank: int
    addresses: tuple[str, ...]

    def __str__(self):
        return f"worker {self.rank} of {len(self.addresses)} at {self.addresses[self.rank]}"


def place() -> Place:
    """This process's place by the environment variable TF_CONFIG.

    Raises:
        UserError: the variable is missing, or does not describe workers and one of them.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        raise UserError(f"--strategy=multi_worker needs {VARIABLE} in the environment of every worker: set it, for example, to {_EXAMPLE}")
    try:
        found = json.loads(text)
        jobs, task = found["cluster"], found["task"]
        addresses = {job: [str(a) for a in jobs[job]] for job in _JOBS if job in jobs}
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong(f"is not JSON with a cluster and a task ({type(error).__name__}: {error})") from error
    if kind not in addresses:
        raise _wrong(f"gives this process the task {kind!r}, but its cluster has the jobs {', '.join(jobs) or 'none'}")
    if not 0 <= index < len(addresses[kind]):
        raise _wrong(f"gives this process the index {index}, but its cluster has {len(addresses[kind])} of {kind}")
    ranked = tuple(a for job in addresses.values() for a in job)
    if bad := [a for a in ranked if not a.rpartition(":")[0] or not a.rpartition(":")[2].isdigit()]:
        raise _wrong(f"has the address {bad[0]!r}, which is not host:port")
    if len(set(ranked)) != len(ranked):
        raise _wrong("names one address twice")
    return Place(index + (len(addresses.get("chief", ())) if kind == "worker" else 0), ranked)


def _wrong(what: str) -> UserError:
    return UserError(f"{VARIABLE} {what}: set it, for example, to {_EXAMPLE}")
