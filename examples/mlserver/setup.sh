#!/usr/bin/env bash
# Installs MLServer into a virtual environment of its own: it pins protobuf and gRPC to
# releases that the router does not use. Does nothing the second time.
#
#   examples/mlserver/setup.sh [FOLDER]     (default: build/mlserver in the checkout)
set -euo pipefail
folder=${1:-$(cd "$(dirname "$0")/../.." && pwd)/build/mlserver}
[[ -x $folder/bin/mlserver ]] && exit 0
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install -q --disable-pip-version-check "mlserver==1.7.1"
