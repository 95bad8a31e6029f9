#!/usr/bin/env bash
# All static checks; each is run even if an earlier one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=()
step() { local name=$1; shift; echo "== $name"; "$@" || failed+=("$name"); }
stubs_are_current() {
  local fresh; fresh=$(mktemp -d)
  mkdir -p build
  tools/generate_stubs.sh "$fresh" >/dev/null 2>&1 && diff -r -x '__pycache__' -x '__init__.py' "$fresh/penstock/v1" clients/python/penstock/v1
  local rc=$?
  rm -rf "$fresh"
  return $rc
}
step "ruff format" $bin/ruff format --check --quiet .
step "ruff" $bin/ruff check --quiet .
step "generated stubs are current" stubs_are_current
step "buf lint" $bin/buf lint build/proto-image.binpb --config proto/buf.yaml
step "import layers" env PYTHONPATH=server:kernels:clients/python $bin/lint-imports --no-cache
step "mypy" $bin/mypy
step "pyright" $bin/pyright
step "stubtest" env MYPYPATH=kernels $bin/python -m mypy.stubtest penstock_kernels --ignore-missing-stub
if [ ${#failed[@]} -gt 0 ]; then
  printf 'check failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "all checks passed"
