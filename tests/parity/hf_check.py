"""Does transformers open a checkpoint that amlua wrote, and mean the same by it?

    python hf_check.py --model DIR [--params FILE.safetensors] [--greedy FILE.json] [--text TEXT]

--params: the model's tensors as amlua holds them, under their Hugging Face names (a tied head may be
left out). --greedy: list of {input_ids, output_ids}, greedy continuations by amlua. --text: encode
and decode it with the checkpoint's tokenizer. Exit status 1 when something differs.
"""
import argparse
import sys

import check_common
import common  # noqa: F401, sets transformers offline and quiet
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--params")
    parser.add_argument("--greedy")
    parser.add_argument("--text")
    args = parser.parse_args()
    model, info = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto", output_loading_info=True)
    model.eval()
    wrong = [f"{kind}: {names}" for kind, names in info.items() if names]
    state = model.state_dict()
    done = f"{len(state)} tensors opened by transformers as {type(model).__name__}"
    if args.params:
        tied = ("lm_head.weight",) if model.config.tie_word_embeddings else ()
        found, count = check_common.same_parameters(state, args.params, tied)
        wrong, done = wrong + found, done + f", {count} compared"
    if args.greedy:
        found, count = check_common.same_greedy(model, args.greedy)
        wrong, done = wrong + found, done + f", {count} greedy continuations"
    if args.text is not None:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        ids = tokenizer(args.text).input_ids
        if tokenizer.decode(ids, skip_special_tokens=True) != args.text:
            wrong.append(f"tokenizer: {args.text!r} became {ids}")
    return check_common.report(wrong, done)


if __name__ == "__main__":
    sys.exit(main())
