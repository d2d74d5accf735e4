"""Writes goldens.json: messages as the packages tensorboard and wandb themselves put them together.

    python3 -m venv DIR && DIR/bin/pip install tensorboard wandb 'setuptools<81'
    DIR/bin/python tests/lua/loggers/make_goldens.py
"""

import json
import pathlib

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from wandb.proto import wandb_internal_pb2 as wandb


class Memory:
    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


def framed(event):
    memory = Memory()
    RecordWriter(memory).write(event.SerializeToString(deterministic=True))
    return memory.data.hex()


def events():
    time = 1700000000.25
    first = event_pb2.Event(wall_time=time, file_version="brain.Event:2")
    start = event_pb2.Event(wall_time=time, step=7)
    start.session_log.status = event_pb2.SessionLog.START
    scalars = event_pb2.Event(wall_time=time, step=300)
    for tag, value in (("train/loss", 1.25), ("train/lr", 1e-5)):
        scalars.summary.value.add(tag=tag, simple_value=value)
    text = event_pb2.Event(wall_time=time, step=1)
    tensor = tensor_pb2.TensorProto(dtype=7, string_val=["größer".encode()])
    tensor.tensor_shape.CopyFrom(tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]))
    metadata = summary_pb2.SummaryMetadata(plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="text"))
    text.summary.value.add(tag="samples/1", metadata=metadata, tensor=tensor)
    return [framed(e) for e in (first, start, scalars, text)]


def records():
    header = wandb.Record(num=1)
    header.header.version_info.producer = "0.16.0"
    header.header.version_info.min_consumer = "0.9.0"
    run = wandb.Record(num=2)
    r = run.run
    r.run_id, r.entity, r.project, r.run_group, r.job_type = "abcd1234", "me", "p", "g", "train"
    r.display_name, r.notes, r.host, r.resumed = "first", "why", "node1", True
    r.tags.extend(["a", "b"])
    r.config.update.add(key="lr", value_json="1e-05")
    r.config.update.add(key="model", value_json='{"a":1}')
    r.start_time.seconds, r.start_time.nanos = 1700000000, 250000000
    history = wandb.Record(num=300)
    history.history.item.add(key="_step", value_json="200")
    history.history.item.add(key="loss", value_json='"NaN"')
    history.history.step.num = 200
    summary = wandb.Record(num=301)
    summary.summary.update.add(key="loss", value_json="1.5")
    files = wandb.Record(num=3)
    files.files.files.add(path="config.yaml", policy=wandb.FilesItem.PolicyType.END)
    exit_record = wandb.Record(num=302)
    exit_record.exit.exit_code, exit_record.exit.runtime = 255, 12
    return [r.SerializeToString(deterministic=True).hex() for r in (header, run, history, summary, files, exit_record)]


out = pathlib.Path(__file__).with_name("goldens.json")
out.write_text(json.dumps({"events": events(), "records": records()}, indent=1) + "\n")
