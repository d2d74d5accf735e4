#!/usr/bin/env bash
# From a bare Debian machine to a fine-tuned model: installs what the build needs, builds amlua,
# gets SmolLM2-135M-Instruct (examples/smollm2.sh says from where), asks it three questions about
# an invented lighthouse, teaches it the answers with LoRA and asks again. Fails when the answers
# were not learnt. Run again it only does what is left to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/packages.sh

config=examples/llm/quickstart.yaml
questions=examples/data/lighthouse_questions.tsv # expected text, seen or paraphrase, question
run=checkpoints/quickstart                       # the checkpoint_dir of the configuration

step() { printf '\n== %s\n' "$*"; }

step "Packages"
install_packages "${BUILD_PACKAGES[@]}"

step "Build"
mkdir -p build
{ cmake -B build && cmake --build build -j "$(nproc)"; } >build/quickstart.log 2>&1 || {
    tail -n 40 build/quickstart.log >&2
    echo "The build failed; build/quickstart.log holds all of its output." >&2
    exit 1
}
build/amlua --version

step "Model"
model=$(examples/smollm2.sh)
echo "$model"

# ask ANSWERS OPTION...: writes the three answers, one a line, and shows them with the questions.
ask() {
    local answers=$1 prompts=() question
    shift
    while IFS=$'\t' read -r _ _ question; do prompts+=(--prompt "$question"); done <"$questions"
    build/amlua recipes/generate.lua --model "$model" "$@" "${prompts[@]}" --max_new_tokens 24 \
        --json | sed -E 's/.*"text": ?"((\\.|[^"\\])*)".*/\1/' >"$answers"
    paste "$questions" "$answers" |
        while IFS=$'\t' read -r _ kind question answer; do
            printf '  %s (%s)\n    -> %s\n' "$question" "$kind" "$answer"
        done
}

# right ANSWERS [KIND]: how many answers hold the expected text
right() {
    local expected kind question answer n=0
    while IFS=$'\t' read -r expected kind question answer; do
        if [[ ${2:-$kind} == "$kind" && ${answer,,} == *"${expected,,}"* ]]; then n=$((n + 1)); fi
    done < <(paste "$questions" "$1")
    echo "$n"
}

mkdir -p "$run"
step "Answers before training"
ask "$run/answers_before.txt"

step "Training: amlua recipes/llm_finetune.lua $config"
build/amlua recipes/llm_finetune.lua "$config" --model.pretrained_model_name_or_path "$model" \
    --checkpoint.checkpoint_dir "$run"

step "Answers after training"
ask "$run/answers_after.txt" --adapter "$run/LATEST/model"

before=$(right "$run/answers_before.txt") after=$(right "$run/answers_after.txt")
paraphrased=$(right "$run/answers_after.txt" paraphrase)
step "Right answers: $before of 3 before, $after of 3 after ($paraphrased of 2 paraphrases)"
if [ "$before" -ne 0 ] || [ "$after" -lt 2 ] || [ "$paraphrased" -lt 1 ]; then
    echo "The model should know none of the facts before and at least two after, one of them" >&2
    echo "asked in words that are not in the training set. The logs are in $run." >&2
    exit 1
fi
cat <<EOF
The adapter, which PEFT opens too:  $run/LATEST/model
The logs:                           $run/training.jsonl, $run/validation.jsonl
To train afresh:                    rm -r $run
EOF
