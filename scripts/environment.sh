# Sourced by other scripts: a virtual environment with this checkout installed, and Pythons to try.

checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

die() {
    echo "$(basename -- "$0"): $*" >&2
    exit 1
}

# ensure_environment NAME PYTHON [EXTRA]: make $checkout/NAME where it is missing, incomplete, older
# than pyproject.toml, or of a checkout that has since moved. Costs nothing otherwise.
ensure_environment() {
    venv=$checkout/$1
    stamp=$venv/installed${3:+-$3}
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$checkout" ] &&
        [ ! "$checkout/pyproject.toml" -nt "$stamp" ]; then
        return
    fi
    "$2" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "Python 3.11 or newer is needed as $2: on Debian, apt install python3 python3-venv."
    "$2" -c 'import ensurepip, venv' 2>/dev/null ||
        die "This $2 cannot make virtual environments: on Debian, apt install python3-venv."
    echo "Installing into $1 (once) ..." >&2
    if [ ! -x "$venv/bin/python" ] || ! grep -qsxF "$checkout" "$venv"/installed*; then
        "$2" -m venv --clear "$venv"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$checkout${3:+[$3]}" ||
        die "Installing failed; the lines above say why. Nothing else was changed: try again."
    echo "$checkout" >"$stamp"
}

# python_of VERSION: the interpreter of this version that works, or nothing. What pyenv has
# installed counts, also where it is not the chosen one.
python_of() {
    for candidate in "python$1" "$(pyenv whence --path "python$1" 2>/dev/null | tail -n 1)"; do
        if [ -n "$candidate" ] && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
