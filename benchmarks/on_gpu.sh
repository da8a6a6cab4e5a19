#!/usr/bin/env bash
# All that a short stay on a machine with a GPU is for, in ten minutes: does it run, the tests, the
# table. Results are in the folder `out` (or the one given) as they come.
set -u
cd "$(dirname "$0")/.."
out=${1:-out}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
nvidia-smi -L
timeout 60 python3 benchmarks/on_gpu.py --tiny --seconds 40 --into "$out/smoke.jsonl" 2>&1 | tee "$out/smoke.log"
timeout 170 python3 -m pytest -q -p no:cacheprovider tests/engine/runs/test_gpu.py --durations=8 \
	-W "ignore:Synchronization debug mode" --junitxml="$out/gpu.xml" >"$out/tests.log" 2>&1
tail -40 "$out/tests.log"
timeout 300 python3 benchmarks/on_gpu.py --seconds 270 --into "$out/gpu.jsonl" 2>&1 | tee "$out/bench.log"
python3 benchmarks/on_gpu.py --table "$out/gpu.jsonl" | tee "$out/table.md"
