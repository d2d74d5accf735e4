"""An epoch of LoRA on questions in SQuAD's schema, by amlua and by TRL's SFTTrainer, judged by one judge.

    python tests/parity/squad_f1.py MODEL_DIR SQUAD_JSON RESULTS_DIR [--side amlua|trl] [--rows N] …

MODEL_DIR is a Hugging Face directory, SQUAD_JSON a file in SQuAD v1.1's schema (XQuAD's xquad.en.json is one). Every
sixth article is held out. Both sides learn "{context} {question} " + answer + end of sequence, the answer only, with
the same rank, scale, modules, rate, schedule, batches and gradient clipping. recipes/evaluate.lua then answers the
held-out questions greedily with either's PEFT adapter. What both learn is compared first, id by id.

Passes when amlua's mean F1 over the seeds is at least TRL's less the larger of 2 points and two pooled standard
deviations. RESULTS_DIR keeps what is done, so that a run that was cut goes on: give it the same options. Needs trl,
peft, transformers and torch, and a built amlua (AMLUA, or build/amlua); run it from the project's root.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys

SIDES = ("amlua", "trl")
COMPARED = 8  # rows that are compared id by id
AMLUA = os.environ.get("AMLUA", "build/amlua")


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=os.path.abspath)
    parser.add_argument("data", type=os.path.abspath)
    parser.add_argument("results", type=os.path.abspath)
    parser.add_argument("--side", choices=SIDES, help="run only this one")
    parser.add_argument("--seeds", type=int, default=3, help="1, 2, … (3)")
    parser.add_argument("--rows", type=int, help="train on so many rows (all)")
    parser.add_argument("--questions", type=int, help="ask so many held-out questions (all)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the frozen weights")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=32)
    parser.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=16, help="rows in an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--trl-seed", type=int, help=argparse.SUPPRESS)  # one training in a process of its own
    args = parser.parse_args()
    if args.batch % args.micro_batch:
        parser.error("--batch must be a multiple of --micro-batch")
    return args


# ---- data ---------------------------------------------------------------------------------------


def thinned(rows, count):
    """`count` of the rows, evenly spread."""
    return rows if count is None or count >= len(rows) else [rows[i * len(rows) // count] for i in range(count)]


def split(args):
    """Rows to learn and rows to ask about: { context, question, answer } and { context, question, answers }."""
    learnt, held_out = [], []
    with open(args.data, encoding="utf-8") as file:
        articles = json.load(file)["data"]
    for i, article in enumerate(articles):
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = [answer["text"] for answer in qa["answers"]]
                row = {"context": paragraph["context"], "question": qa["question"]}
                if i % 6 == 5:
                    held_out.append({**row, "answers": answers})
                else:
                    learnt.append({**row, "answer": answers[0]})
    return thinned(learnt, args.rows), thinned(held_out, args.questions)


def place(args, name):
    return os.path.join(args.results, name)


def write_jsonl(name, rows):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_json(name, value):
    with open(name + ".tmp", "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
    os.replace(name + ".tmp", name)


def prepare(args):
    """The folder with its data; one that was begun with other options is refused."""
    os.makedirs(args.results, exist_ok=True)
    learnt, held_out = split(args)
    own = {key: value for key, value in vars(args).items() if key not in ("side", "seeds", "trl_seed", "results")}
    settings = place(args, "settings.json")
    if os.path.exists(settings):
        with open(settings, encoding="utf-8") as file:
            before = json.load(file)
        if before != own:
            different = [key for key in own if before.get(key) != own[key]]
            sys.exit(f"{args.results} was begun with another {', '.join(different)}: choose another folder")
    write_jsonl(place(args, "train.jsonl"), learnt)
    write_jsonl(place(args, "held_out.jsonl"), held_out)
    write_json(settings, own)
    return learnt, held_out


# ---- amlua --------------------------------------------------------------------------------------


def steps_of(args, rows):
    """Optimizer steps of the whole run and of its warm-up, a tenth of it."""
    total = math.ceil(rows / args.batch) * args.epochs
    return total, total // 10


def model_section(args):
    return {
        "_target_": "am.AutoModelForCausalLM.from_pretrained",
        "pretrained_model_name_or_path": args.model,
        "torch_dtype": args.dtype,
    }


def amlua_config(args, seed, rows):
    total, warmup = steps_of(args, rows)
    return {
        "seed": seed,
        "step_scheduler": {
            "global_batch_size": args.batch,
            "local_batch_size": args.micro_batch,
            "num_epochs": args.epochs,
            "ckpt_every_steps": 20,
        },
        "model": model_section(args),
        "peft": {
            "target_modules": args.targets.split(","),
            "dim": args.rank,
            "alpha": args.alpha,
            "dropout": 0,
            "lora_A_init": "kaiming",  # PEFT's
            "lora_dtype": "float32",  # PEFT's, whatever the weights have
        },
        "dataset": {
            "_target_": "am.datasets.ColumnMappedTextInstructionDataset",
            "path_or_dataset_id": place(args, "train.jsonl"),
            "column_mapping": {"context": "context", "question": "question", "answer": "answer"},
            "add_eos": True,
            "answer_boundary": "prefix",  # TRL's rule
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": args.lr, "weight_decay": 0},
        "lr_scheduler": {
            "lr_decay_style": "cosine",
            "lr_warmup_steps": warmup,
            "lr_decay_steps": total,
            "init_lr": 0,
            "min_lr": 0,
        },
        "clip_grad_norm": {"max_norm": 1.0},
        "checkpoint": {"checkpoint_dir": place(args, f"amlua-{seed}"), "max_recent_checkpoints": 1},
    }


def run_amlua(args, script, name, config, *more, **how):
    write_json(place(args, name), config)
    return subprocess.run([AMLUA, script, place(args, name), *more], check=True, **how)


def train_amlua(args, seed, rows):
    run_amlua(args, "recipes/llm_finetune.lua", f"amlua-{seed}.yaml", amlua_config(args, seed, rows))
    return place(args, f"amlua-{seed}/LATEST/model")


# ---- TRL ----------------------------------------------------------------------------------------


def trl_trainer(args, seed, learnt):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    texts = [{"prompt": f"{r['context']} {r['question']} ", "completion": r["answer"]} for r in learnt]
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        train_dataset=Dataset.from_list(texts),
        peft_config=LoraConfig(
            r=args.rank,
            lora_alpha=args.alpha,
            lora_dropout=0.0,
            target_modules=args.targets.split(","),
            bias="none",
            task_type="CAUSAL_LM",
        ),
        args=SFTConfig(
            output_dir=place(args, f"trl-{seed}"),
            seed=seed,
            data_seed=seed,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.micro_batch,
            gradient_accumulation_steps=args.batch // args.micro_batch,
            learning_rate=args.lr,
            lr_scheduler_type="cosine",
            warmup_steps=steps_of(args, len(learnt))[1],
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=1.0,
            completion_only_loss=True,
            max_length=None,
            packing=False,
            bf16=False,
            fp16=False,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="steps",
            save_steps=20,
            save_total_limit=1,
            report_to=[],
        ),
    )


def train_trl_here(args, seed, learnt):
    from transformers.trainer_utils import get_last_checkpoint

    trainer = trl_trainer(args, seed, learnt)
    folder = trainer.args.output_dir
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if os.path.isdir(folder) else None)
    planned = steps_of(args, len(learnt))[0]
    if trainer.state.global_step != planned:
        sys.exit(f"TRL took {trainer.state.global_step} steps, amlua takes {planned}")
    trainer.save_model(os.path.join(folder, "adapter"))


def train_trl(args, seed, _):
    subprocess.run([sys.executable, *sys.argv, "--trl-seed", str(seed)], check=True)
    return place(args, f"trl-{seed}/adapter")


def check_rows(args, learnt):
    """Fails unless both sides learn the same ids and labels."""
    config = amlua_config(args, 1, len(learnt))
    out = run_amlua(args, "tests/parity/squad_rows.lua", "rows.yaml", config, str(COMPARED), stdout=subprocess.PIPE)
    ours = [json.loads(line) for line in out.stdout.splitlines()]
    theirs = trl_trainer(args, 1, learnt[:COMPARED]).train_dataset
    if len(ours) != len(theirs):
        sys.exit(f"FAILED: {len(ours)} rows in amlua, {len(theirs)} in TRL")
    for i, (our, their) in enumerate(zip(ours, theirs)):
        # amlua's labels stand where they are predicted, TRL's where they are
        if our["input_ids"] != their["input_ids"][:-1] or our["labels"] != their["labels"][1:]:
            print(f"amlua {our}\nTRL   {their}")
            sys.exit(f"FAILED: row {i + 1} is not the same in both")
    print(f"the first {len(ours)} rows are the same in both")


# ---- judging ------------------------------------------------------------------------------------


def judge(args, side, seed, adapter):
    name, out = f"{side}-{seed}-judge.yaml", place(args, f"{side}-{seed}-judged.json")
    task = {
        "_target_": "am.evaluation.QuestionAnswering",
        "path_or_dataset": place(args, "held_out.jsonl"),
        "column_mapping": {"context": "context", "question": "question", "answer": "answers"},
    }
    run_amlua(args, "recipes/evaluate.lua", name, {
        "model": model_section(args),
        "peft": {"adapter_path": adapter},
        "evaluation": {"tasks": [task], "json_output_path": out},
    })
    with open(out, encoding="utf-8") as file:
        found = json.load(file)["results"]["question_answering"]
    return {"f1": 100 * found["f1"], "em": 100 * found["exact_match"]}


def result(args, side, seed, rows):
    """What a side's seed reaches, from the folder when it is there already."""
    name = place(args, f"{side}-{seed}.json")
    if not os.path.exists(name):
        train = {"amlua": train_amlua, "trl": train_trl}[side]
        write_json(name, judge(args, side, seed, train(args, seed, rows)))
    with open(name, encoding="utf-8") as file:
        return json.load(file)


def report(results):
    """Prints the numbers; whether amlua's are good enough, or None with one side only."""
    for side, found in results.items():
        for seed, r in enumerate(found, 1):
            print(f"{side:6} seed {seed}   F1 {r['f1']:6.2f}   EM {r['em']:6.2f}")
    means = {side: statistics.mean(r["f1"] for r in found) for side, found in results.items()}
    for side, found in results.items():
        print(f"{side:6} mean     F1 {means[side]:6.2f}   EM {statistics.mean(r['em'] for r in found):6.2f}")
    if len(results) < 2:
        return None
    spread = [statistics.variance([r["f1"] for r in found]) if len(found) > 1 else 0 for found in results.values()]
    pooled = math.sqrt(statistics.mean(spread))
    least = means["trl"] - max(2, 2 * pooled)
    passed = means["amlua"] >= least
    print(f"pooled standard deviation of F1 {pooled:.2f}; at least {least:.2f} is wanted")
    print("passed" if passed else "FAILED")
    return passed


def main():
    args = options()
    learnt, held_out = prepare(args)
    if args.trl_seed:
        train_trl_here(args, args.trl_seed, learnt)
        return 0
    print(f"{len(learnt)} rows to learn, {len(held_out)} questions of other articles")
    if args.side != "amlua":
        check_rows(args, learnt)
    sides = [args.side] if args.side else SIDES
    results = {side: [] for side in sides}
    for seed in range(1, args.seeds + 1):
        for side in sides:
            results[side].append(result(args, side, seed, len(learnt)))
    return 1 if report(results) is False else 0


if __name__ == "__main__":
    sys.exit(main())
