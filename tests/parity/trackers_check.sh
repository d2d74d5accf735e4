#!/usr/bin/env bash
# The trackers against the programs that they write for: tensorboard reads the event files, a real MLflow
# server takes a run, and the package wandb sends the run's folder, to a stand-in for W&B's server
# (wandb_server.py), which the tracker has told the same by itself. The run is killed and resumed in between.
# Some 30 seconds. tests/interop.sh runs it in an environment that has the three.
#
# usage: tests/parity/trackers_check.sh ENVIRONMENT

set -euo pipefail
cd "$(dirname "$0")/../.."

venv=$(cd "${1:?"usage: tests/parity/trackers_check.sh ENVIRONMENT"}" && pwd)

dir=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

# free_port: a port that nobody listens on
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wandb_server NAME: starts a stand-in, whose port is then in $dir/NAME.port
wandb_server() {
    python3 tests/parity/wandb_server.py "$dir/$1.json" >"$dir/$1.port" &
    started+=($!)
    until [ -s "$dir/$1.port" ]; do sleep 0.1; done
}

port=$(free_port)
mlflow=http://127.0.0.1:$port
"$venv/bin/mlflow" server --host 127.0.0.1 --port "$port" --workers 1 \
    --backend-store-uri "sqlite:///$dir/mlflow.db" --artifacts-destination "$dir/artifacts" >"$dir/mlflow.log" 2>&1 &
started+=($!)
wandb_server online
wandb_server synced
for _ in $(seq 300); do
    curl -s -o /dev/null "$mlflow/health" && break
    sleep 0.2
done
curl -s "$mlflow/health" | grep -q OK || {
    cat "$dir/mlflow.log" >&2
    exit 1
}

mkdir "$dir/run"
export WANDB_API_KEY=0123456789012345678901234567890123456789
export WANDB_BASE_URL
WANDB_BASE_URL=http://127.0.0.1:$(cat "$dir/online.port")
status=0
luajit tests/parity/trackers_run.lua "$dir/run" "$mlflow" killed || status=$?
[ "$status" -eq 9 ]
luajit tests/parity/trackers_run.lua "$dir/run" "$mlflow"
if grep -r -l "$WANDB_API_KEY" "$dir/run"; then
    echo "the key is in a file" >&2
    exit 1
fi

# What the folder alone holds goes to a server that knows nothing yet.
WANDB_BASE_URL=http://127.0.0.1:$(cat "$dir/synced.port")
(cd "$dir" && "$venv/bin/wandb" sync --include-online "$dir"/run/wandb/run-*)

port=$(free_port)
"$venv/bin/tensorboard" --logdir "$dir/run/tensorboard" --port "$port" >"$dir/tensorboard.log" 2>&1 &
started+=($!)
for _ in $(seq 300); do
    curl -s "http://127.0.0.1:$port/data/plugin/scalars/scalars?run=.&tag=train%2Floss" >"$dir/tensorboard.json" || true
    [ "$(head -c 2 "$dir/tensorboard.json")" = "[[" ] && break
    sleep 0.2
done
"$venv/bin/python" tests/parity/trackers_check.py "$dir/run" "$mlflow" "$dir/online.json" "$dir/synced.json" \
    "$dir/tensorboard.json"
