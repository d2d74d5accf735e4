#!/usr/bin/env bash
# Two models that never met become one that looks at small pictures and says what they are: DINOv2-small, which sees,
# and SmolLM2-135M-Instruct, which speaks, with a new projector between them. Pictures and sentences are Tux Paint's
# stamps. First the projector learns, then LoRA; stamps that were held out show what was learnt. Fails when less than
# 60 % of their kinds are named. Run again it only does what is left to do.
#
# usage: examples/vlm/stamps.sh
#
# amlua is $AMLUA, or built in build/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
. tests/packages.sh
amlua=${AMLUA:-build/amlua}
run=checkpoints/stamps # as the configurations have it

step() { printf '\n== %s\n' "$*"; }

# answers NAME MODEL LEAST: asks a model for all stamps that were held out, unless it has answered, and prints its
# score.
answers() {
    local file=$run/answers_$1.jsonl
    [ -f "$file" ] || "$amlua" examples/vlm/answers.lua --model "$2" --rows "$run/heldout.jsonl" --output "$file"
    "$amlua" examples/vlm/score.lua stamps "$file" "$3"
}

step "Parts"
install_packages tuxpaint-stamps-default
tower=$(examples/vlm/dinov2.sh)
model=$(examples/smollm2.sh)
"$amlua" examples/vlm/stamps/rows.lua "$run"
[ -f "$run/base/config.json" ] || "$amlua" examples/vlm/assemble.lua --tower "$tower" --model "$model" \
    --output-dir "$run/base" --rows "$run/train.jsonl" --height 112 --width 112 --feature-layer -3 --strategy full

step "Before"
answers before "$run/base" 0

step "The projector: amlua recipes/vlm_finetune.lua examples/vlm/stamps/projector.yaml"
"$amlua" recipes/vlm_finetune.lua examples/vlm/stamps/projector.yaml

answers projector "$run/projector/LATEST/model/consolidated" 0

step "LoRA: amlua recipes/vlm_finetune.lua examples/vlm/stamps/lora.yaml"
"$amlua" recipes/vlm_finetune.lua examples/vlm/stamps/lora.yaml

step "After"
[ -f "$run/merged/config.json" ] || "$amlua" recipes/merge_lora.lua --output-dir "$run/merged" \
    --base-model "$run/projector/LATEST/model/consolidated" --adapter-path "$run/lora/LATEST/model"
answers after "$run/merged" 0.6
cat <<EOF
The model, which transformers opens:  $run/merged
Pictures and what it says of them:    $run/lora/report.html
To train afresh:                      rm -r $run
EOF
