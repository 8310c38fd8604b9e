#!/bin/bash -eu
# Builds every target, with its seeds and the dictionary, into $OUT. Run by the image of the Dockerfile beside it.
cd "$SRC/lepus"
target_dir=$PWD/fuzz/target
cargo fuzz build -O --debug-assertions --target-dir "$target_dir"

for source in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  cp "$target_dir/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
  cp fuzz/dictionaries/amqp.dict "$OUT/$target.dict"
  # an exhaustive target takes the seeds of the fast one
  for seeds in "fuzz/seeds/$target" "fuzz/seeds/${target%%_*}"; do
    if [ -d "$seeds" ]; then
      zip -q -j "$OUT/${target}_seed_corpus.zip" "$seeds"/*
      break
    fi
  done
done
