"""What NeMo Automodel makes of rows with images, for vlm_goldens_spec.lua: conversations, tags, ids and labels.

Writes vlm_goldens.json and pictures.parquet beside itself; the tokenizers are those of tests/parity/golden/processors. Needs the packages
nemo-automodel (0.7.0), datasets, transformers, torch and pillow:
    python make_vlm_goldens.py
"""
import base64
import io
import json
import pathlib
import sys
import tempfile

import datasets
from nemo_automodel.components.datasets.vlm import collate_fns
from nemo_automodel.components.datasets.vlm import datasets as vlm
from nemo_automodel.components.datasets.vlm.utils import json2token
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "../../../parity/processors"))
import families  # noqa: E402

TREES = [
    {"menu": [{"nm": "Tea", "cnt": "2", "price": "4.00"}, {"nm": "Öl", "sub": {"nm": "Eis"}}], "total": {"total_price": "9"}},
    {}, [], {"a": []}, {"a": {}}, {"text_sequence": "all of it"}, {"text_sequence": "x", "a": "y"},
    {"n": 3, "f": 2.0, "g": 2.5, "e": 1e20, "s": 1e-7, "big": 12345678901234567890, "t": True, "z": None},
    {"B": "1", "a": "2", "_": "3", "é": "4", "ab": "5", "a b": "6"}, ["x", {"y": ["1", "2"]}, [["z"], []]],
]

LLAVA = [
    {"image": "1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                         {"from": "gpt", "value": "A bus."}]},
    {"image": "2.jpg", "conversations": [{"from": "human", "value": "Which colour has it?\n<image>"},
                                         {"from": "gpt", "value": " Red. "},
                                         {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]},
]
SETS = {
    "make_rdr_dataset": [{"image": "a.png", "text": "A box."}, {"image": "b.png", "text": " Two\nboxes "}],
    "make_medpix_dataset": [{"image_id": "a.png", "question": "Where?", "answer": "There."}],
    "make_shopify_product_catalogue_dataset": [{"product_image": "a.png", "ground_truth_category": "Hats > Caps"}],
    "make_cord_v2_dataset": [{"image": "a.png", "ground_truth": json.dumps({"gt_parse": tree, "meta": {}})}
                             for tree in TREES if isinstance(tree, dict)],
    "make_llava_onevision_dataset": LLAVA,
    "make_unimm_chat_dataset": [
        {"image": "a.png", "conversation": json.dumps([
            {"from": "human", "value": "Look: <image> and <image>?"}, {"from": "gpt", "value": " Fine. "}])}],
}


def conversations(name, rows):
    vlm.load_dataset = lambda *args, **kwargs: datasets.Dataset.from_list(rows)
    made = getattr(vlm, name)()
    return [{"row": row, "conversation": made[i]["conversation"]} for i, row in enumerate(rows)]


def picture(width, height):
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 255 // width, y * 255 // height, 99) for y in range(height) for x in range(width)])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


PICTURES = [picture(84, 56), picture(40, 90)]


def user(*parts):
    return {"role": "user", "content": [
        {"type": "image", "image": p} if isinstance(p, int) else {"type": "text", "text": p} for p in parts]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


CONVERSATIONS = [
    [user(0, "What is it?"), assistant("A cow on a bench.")],
    [user(1, "What is the colour?"), assistant("Red."), user("Sure?"), assistant("They are in cash: 12.50")],
    [user(0, 1, "Compare the two pictures."), assistant("They differ in colour, size and form.\nIn all.")],
    [user("Describe me."), assistant("You are a helpful assistant.")],
]


def with_images(conversation):
    out = json.loads(json.dumps(conversation))
    for message in out:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = Image.open(io.BytesIO(PICTURES[part["image"]])).convert("RGB")
    return out


def batches(name):
    with tempfile.TemporaryDirectory() as folder:
        families.make(name, folder, training=False)
        processor = families.load(folder, "torchvision")
        collate = collate_fns.COLLATE_FNS.get(type(processor).__name__, collate_fns.default_collate_fn)
        cases = []
        for conversation in CONVERSATIONS:
            batch = collate([{"conversation": with_images(conversation)}], processor)
            cases.append({"input_ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()})
        files = {p.name: p.read_text() for p in pathlib.Path(folder).iterdir() if p.name != "tokenizer.json"}
    return {"files": files, "cases": cases}


def parquet():
    """The two pictures as the Image feature has them, with their bytes in the file."""
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = [{"image": {"bytes": p, "path": f"{i}.png"}, "text": f"picture {i}"} for i, p in enumerate(PICTURES)]
    datasets.Dataset.from_list(rows + [{"image": None, "text": "none"}], features=features).to_parquet(
        str(HERE / "pictures.parquet"))


def main():
    parquet()
    golden = {
        "json2token": [{"tree": json.dumps(tree), "text": json2token(tree)} for tree in TREES],
        "conversations": {name: conversations(name, rows) for name, rows in SETS.items()},
        "pictures": [base64.b64encode(p).decode() for p in PICTURES],
        "messages": CONVERSATIONS,
        "batches": {name: batches(name) for name in ("qwen2_5_vl", "gemma3", "smolvlm", "idefics3")},
    }
    (HERE / "vlm_goldens.json").write_text(json.dumps(golden, ensure_ascii=False, indent=None) + "\n")


if __name__ == "__main__":
    main()
