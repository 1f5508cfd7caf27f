#!/bin/sh
# The demo: attention layers of a real sentence encoder, compared with what the model itself computed;
# then a sequence whose score matrices would not fit into most machines. usage: demo.sh ATTN_COMMAND
set -eu
case $1 in /*) attn=$1 ;; *) attn=$PWD/$1 ;; esac
cd "$(dirname "$0")/.."
data=examples/minilm

echo "1. Attention layers of all-MiniLM-L6-v2 on four sentences of 50, 34, 20 and 8 tokens (examples/minilm)"
for layer in 0 2 5; do
    echo
    echo "layer $layer"
    "$attn" run --q "$data/layer${layer}_q.npy" --k "$data/layer${layer}_k.npy" --v "$data/layer${layer}_v.npy" \
        --layout bshd --lengths-k "$data/lengths.npy" --compare "$data/layer${layer}_o.npy" --tolerance 1e-5
done

echo
echo "2. 16,384 queries and keys, 16 heads, dim 64, causal: standard attention would hold 17.2 GB of scores"
echo
"$attn" bench --shape 1,16,16,16384,16384,64 --causal
