# Sourced by the scripts beside it: makes .venv once, installs the named requirements when they changed, and activates it.
# AMALGAM_PYTHON chooses another interpreter (3.11 or newer).
requirements=$1
python=${AMALGAM_PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $python is older: set AMALGAM_PYTHON" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=.venv/.installed-$(cat requirements.txt "$requirements" pyproject.toml | cksum | cut -d' ' -f1)
if [ ! -e "$stamp" ]; then
  echo "installing $requirements into .venv ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
  touch "$stamp"
fi
source .venv/bin/activate
