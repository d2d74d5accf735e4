#!/usr/bin/env bash
# DINOv2-small and SmolLM2-135M-Instruct learn to read receipts, rendered here, into CORD-v2's structured text. First
# the projector learns characters from single words, then all but the tower learns whole receipts; receipts that were
# held out show what was learnt. Fails when the F1
# of their fields is less than 0.8. Run again it only does what is left to do.
#
# usage: examples/vlm/receipts.sh
#
# amlua is $AMLUA, or built in build/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
. tests/packages.sh
amlua=${AMLUA:-build/amlua}
run=checkpoints/receipts # as the configurations have it

step() { printf '\n== %s\n' "$*"; }

# render FOLDER COUNT SEED [words]: pictures and what they say, unless they are there.
render() {
    local dir=$run/$1
    [ -f "$dir/done" ] && return
    "$amlua" examples/vlm/receipts/render.lua "$dir" "${@:2}"
    (cd "$dir" && for file in *.svg; do echo "${file%.svg}"; done |
        xargs -P "$(nproc)" -I{} rsvg-convert -o {}.png {}.svg && rm ./*.svg)
    touch "$dir/done"
}

# answers NAME MODEL LEAST: asks a model for receipts that were held out, unless it has answered, and prints its
# score.
answers() {
    local file=$run/answers_$1.jsonl
    [ -f "$file" ] || "$amlua" examples/vlm/answers.lua --model "$2" --rows "$run/heldout/metadata.jsonl" \
        --prompt "What does the receipt say?" --max-new-tokens 224 --output "$file"
    "$amlua" examples/vlm/score.lua receipts "$file" "$3"
}

step "Parts"
install_packages librsvg2-bin fonts-dejavu-core
tower=$(examples/vlm/dinov2.sh)
model=$(examples/smollm2.sh)
render words 3000 1 words
render words_heldout 48 2 words
render train 1200 3
render heldout 50 4
[ -f "$run/base/config.json" ] || "$amlua" examples/vlm/assemble.lua --tower "$tower" --model "$model" \
    --output-dir "$run/base" --rows "$run/train/metadata.jsonl" --keep-size --feature-layer 4

step "Before"
answers before "$run/base" 0

step "Words: amlua recipes/vlm_finetune.lua examples/vlm/receipts/words.yaml"
"$amlua" recipes/vlm_finetune.lua examples/vlm/receipts/words.yaml

step "Receipts: amlua recipes/vlm_finetune.lua examples/vlm/receipts/receipts.yaml"
"$amlua" recipes/vlm_finetune.lua examples/vlm/receipts/receipts.yaml

step "After"
answers after "$run/run/LATEST/model/consolidated" 0.8
cat <<EOF
The model, which transformers opens:  $run/run/LATEST/model/consolidated
Receipts and what it reads in them:   $run/run/report.html
To train afresh:                      rm -r $run
EOF
