#!/bin/sh
# The challenge's entry point: every npz of /workspace/inputs, segmented, into /workspace/outputs.
set -e
. /workspace/bundle/environment
exec python3 -m harness.measure.runtime.worker /workspace/inputs /workspace/outputs /workspace/bundle
