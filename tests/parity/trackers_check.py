"""What trackers_run.lua reported, read back by tensorboard, mlflow and wandb: every step once, with its value.

    python trackers_check.py DIR MLFLOW_URI ONLINE.json SYNCED.json TENSORBOARD.json
"""

import json
import math
import pathlib
import sys

import mlflow
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

STEPS = 30
folder, uri, online, synced, tensorboard = sys.argv[1:]
passed = 0


def check(what, got, expected):
    global passed
    same = got == expected or (isinstance(got, list) and len(got) == len(expected) and all(
        g == e or (isinstance(g, tuple) and g[0] == e[0] and math.isclose(g[1], e[1], rel_tol=1e-6))
        for g, e in zip(got, expected)))
    if not same:
        sys.exit("trackers_check: %s\n got      %s\n expected %s" % (what, got, expected))
    passed += 1


def loss(step):
    return 4 - step / 10


losses = [(step, loss(step)) for step in range(STEPS)]
validations = [(step, 5 - step / 10) for step in (9, 19, 29)]
squad = [(step, 6 - step / 10) for step in (9, 19, 29)]

# ---- TensorBoard, by its two readers in Python; the one that `tensorboard` starts by default is checked by
# trackers_check.sh, which asks it for a curve
for reader in (event_accumulator, plugin_event_accumulator):
    accumulator = reader.EventAccumulator(folder + "/tensorboard", size_guidance={"scalars": 0, "tensors": 0},
                                          **({} if reader is event_accumulator else {"tensor_size_guidance": {
                                              "scalars": 0, "text": 0}}))
    accumulator.Reload()

    def scalars(tag):
        if reader is event_accumulator:
            return [(e.step, float(e.value)) for e in accumulator.Scalars(tag)]
        return [(e.step, float(e.tensor_proto.float_val[0])) for e in accumulator.Tensors(tag)]

    check("tensorboard loss", scalars("train/loss"), losses)
    check("tensorboard validation", scalars("val/val_loss"), validations)
    check("tensorboard named validation", scalars("val_squad/val_loss"), squad)
    check("tensorboard NaN", [s for s, v in scalars("train/grad_norm") if math.isnan(v)], [25])
    check("tensorboard texts", [(e.step, e.tensor_proto.string_val[0].decode())
                                for e in accumulator.Tensors("samples/1")],
          [(0, "    What?\n\n---\n\n    größer & <b>"), (29, "    What?\n\n---\n\n    last")])
served = json.load(open(tensorboard))
check("tensorboard served loss", [(step, value) for _, step, value in served], losses)

# ---- MLflow
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("check & try")
runs = client.search_runs([experiment.experiment_id])
check("mlflow runs", len(runs), 1)
run = runs[0]
check("mlflow name and end", (run.info.run_name, run.info.status), ("first", "FINISHED"))
check("mlflow sidecar", pathlib.Path(folder, "mlflow_run_id").read_text(), run.info.run_id)
check("mlflow parameters", run.data.params, {
    "model.name": "org/model", "model.text_config": "{'a': True}", "seed": "42", "optimizer.lr": "1e-05",
    "optimizer.betas": "[0.9, 0.999]"})
check("mlflow tags", (run.data.tags["team"], run.data.tags["mlflow.note.content"]), ("x", "what for"))


def history(key):
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


check("mlflow loss", sorted(history("loss")), losses)
check("mlflow validation", sorted(history("val_loss")), validations)
check("mlflow named validation", sorted(history("val_squad/val_loss")), squad)
check("mlflow NaN", [s for s, v in history("grad_norm") if math.isnan(v)], [25])
names = [f.path for f in client.list_artifacts(run.info.run_id)]
check("mlflow files", ("config.yaml" in names, sum(n.startswith("config.resumed-") for n in names)), (True, 1))

# ---- W&B: what the tracker told a server itself, and what `wandb sync` told another one
for what, name in (("online", online), ("synced", synced)):
    told = json.load(open(name))
    check("wandb %s runs" % what, len(told["runs"]), 1)
    run = next(iter(told["runs"].values()))
    rows = [run["history"][key] for key in sorted(run["history"], key=int)]
    check("wandb %s places" % what, sorted(map(int, run["history"])), list(range(STEPS)))
    check("wandb %s steps" % what, [row["_step"] for row in rows], list(range(STEPS)))
    check("wandb %s loss" % what, [(row["_step"], row["loss"]) for row in rows], losses)
    check("wandb %s validation" % what, [(r["_step"], r["val_loss"]) for r in rows if "val_loss" in r], validations)
    check("wandb %s named" % what, [(r["_step"], r["val_squad/val_loss"]) for r in rows if "val_squad/val_loss" in r],
          squad)
    check("wandb %s NaN" % what, rows[25]["grad_norm"], "NaN")
    check("wandb %s end" % what, (run["complete"], run["exitcode"]), (True, 0))
    check("wandb %s names" % what, (run["project"], run["displayName"], run["tags"]), ("check", "org_model", ["a", "b"]))
    check("wandb %s configuration" % what, json.loads(run["config"])["optimizer"]["value"],
          {"lr": 1e-5, "betas": [0.9, 0.999]})
    check("wandb %s summary" % what, (run["summary"]["loss"], run["summary"]["val_loss"]), (loss(29), 5 - 2.9))
    check("wandb %s key" % what, len([k for k in told["authorization"] if k]), 1)

print("%d checks passed" % passed)
