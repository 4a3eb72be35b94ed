#!/usr/bin/env bash
# From a fresh clone to a student: makes .venv, trains two small teachers on embedded scenes, amalgamates a student for
# some of their labels, evaluates it, exports a SavedModel and writes a report. Optional argument: another task list.
#   bash tools/quickstart.sh [sphere,box,...]
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh requirements.txt
tasks=${1:-sphere,torus,cone,cylinder}
runs=runs/quickstart
student=$runs/student-${tasks//[^A-Za-z0-9]/-}

python -m amalgam_tf.bin.train --config=configs/quickstart.py:student --workdir="$student" --config.tasks="$tasks"
echo
python -m amalgam_tf.bin.export --model="$student"

echo
echo "Done."
echo "  student     $student/student      (Keras model and its card)"
echo "  SavedModel  $student/export       (signatures serve and serve_jpeg)"
echo "  report      $student/report.html  (one page: tables and figures; as text in report.md)"
echo "  TensorBoard tensorboard --logdir $runs"
echo "Another student from the same teachers: bash tools/quickstart.sh sphere,box"
