#!/usr/bin/env bash
# Generates clients/python/penstock/v1 from proto/, with a pinned old toolchain in a venv of its own:
# generated code refuses older runtimes at import, so a newer one would push up every client's grpcio and protobuf.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${PENSTOCK_STUBS_VENV:-$root/build/stubs-venv}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q grpcio-tools==1.71.2 mypy-protobuf==3.6.0 googleapis-common-protos==1.70.0 'setuptools<81'
fi
out=${1:-$root/clients/python}
imports=$("$venv/bin/python" -c 'import os, google.rpc; print(os.path.dirname(os.path.dirname(list(google.rpc.__path__)[0])))')
cd "$root/proto"
PATH="$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc -I. -I"$imports" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" penstock/v1/*.proto
"$venv/bin/python" -m grpc_tools.protoc -I. -I"$imports" --include_imports --include_source_info \
  --descriptor_set_out="${PENSTOCK_IMAGE:-$root/build/proto-image.binpb}" penstock/v1/*.proto
