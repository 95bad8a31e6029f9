#!/usr/bin/env bash
# Says in one line which Debian package is missing, before anything else fails in many.
set -euo pipefail
python=${PYTHON:-python3}
fail() { echo "penstock: $1" >&2; exit 1; }
command -v "$python" >/dev/null || fail "Python 3.11 or newer is missing: apt install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old; Penstock needs 3.11 or newer (set PYTHON=/path/to/python3.11)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "Python's venv is missing: apt install python3-venv"
"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
  fail "Python's headers are missing: apt install python3-dev"
command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || fail "a C++ compiler is missing: apt install g++"
