# Sourced by the other scripts. Creates or updates the environment .venv in the repository, with the command
# `layerdrop`, and activates it. Needs Python 3.10 or newer, and installs Python on Debian and Ubuntu if it is missing.
# LAYERDROP_PYTHON selects another Python.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

debian_install() {
    command -v apt-get >/dev/null || { echo "error: $1 is missing. Install it and retry." >&2; exit 2; }
    echo "installing $1 ..." >&2
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
}

find_python() {
    for python in ${LAYERDROP_PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if usable "$python"; then return 0; fi
    done
    return 1
}

find_python || { debian_install python3; find_python; } || {
    echo "error: no Python 3.10 or newer found. Install Python, or set LAYERDROP_PYTHON=/path/to/python3" >&2
    exit 2
}
if [ ! -x "$root/.venv/bin/pip" ]; then
    "$python" -c 'import ensurepip' 2>/dev/null ||
        debian_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    "$python" -m venv "$root/.venv"
fi
. "$root/.venv/bin/activate"
required=$(cat "$root/requirements.txt" "$root/constraints.txt" "$root/pyproject.toml" | sha256sum)
if [ "$(cat "$root/.venv/wanted" 2>/dev/null)" != "$required" ]; then
    echo "installing layerdrop and its requirements into .venv (a few minutes the first time) ..." >&2
    pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" -e "$root" \
        hypothesis import-linter mypy pytest pytest-timeout pytest-xdist ruff
    echo "$required" >"$root/.venv/wanted"
fi
