"""Rows that NeMo Automodel's text datasets make, for text_goldens_spec.lua.

Writes text_goldens.json beside itself, with the tokenizers in tests/parity/golden/tokenizers. Needs the
packages nemo-automodel (0.7.0), datasets, transformers, torch, pillow and torchdata:
    python make_text_goldens.py
"""
import json
import pathlib
import tempfile

import datasets
from nemo_automodel.components.datasets.llm import seq_cls
from nemo_automodel.components.datasets.llm.agent_chat import make_agent_chat_dataset
from nemo_automodel.components.datasets.llm.chat_dataset import ChatDataset
from nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset import (
    ColumnMappedTextInstructionDataset,
)
from nemo_automodel.components.datasets.llm.column_mapped_text_instruction_iterable_dataset import (
    ColumnMappedTextInstructionIterableDataset,
)
from nemo_automodel.components.datasets.llm.hellaswag import HellaSwag
from nemo_automodel.components.datasets.llm.mock_seq_cls import MockSequenceClassificationDataset
from nemo_automodel.components.datasets.llm.squad import make_squad_dataset
from nemo_automodel.components.datasets.llm.xlam import make_xlam_dataset
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
TOKENIZERS = {
    "smollm2": dict(eos_token="<|im_end|>", pad_token="<repo_name>"),
    "same_pad": dict(eos_token="<|im_end|>", pad_token="<|im_end|>"),
    "llama3": dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|eot_id|>"),
    "llama3_bos": dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|eot_id|>",
                       add_bos_token=True),
}
FILES = {"smollm2": "smollm2", "same_pad": "smollm2", "llama3": "llama3", "llama3_bos": "llama3"}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GENERATION = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{{ '\n' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n' }}{% endif %}"
    "{{ m['content'] }}{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ '<tool_call>' + c.id + ' ' + c['type'] + ' ' + c['function']['name'] + ' ' + c['function']['arguments'] }}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\n</think>\n' }}{% endif %}{% endif %}"
)
ANSWERED = "{% if m['role'] == 'tool' %}{{ m['tool_call_id'] + ' ' + (m['name'] or '') + '\n' }}{% endif %}"
AGENT = TOOLS.replace("{{ m['content'] }}", ANSWERED + "{{ m['content'] }}")
TEMPLATES = dict(chatml=CHATML, generation=GENERATION, tools=TOOLS, agent=AGENT)

QA = [
    dict(q="Who is the cook?", a="The cook is Anna.", c="On the ship."),
    dict(q="2+2?", a="4", c="Sums"),
    dict(q="say it\n", a=" Naïve 日本 🙂 \n", c="Say:"),
    dict(q="Long one", a="one two three four five six seven eight nine ten", c="Counting, from one on:"),
]
SQUAD = [
    dict(id="1", title="t", context="Anna cooks. Ben sails.", question="Who cooks?",
         answers=dict(text=[" Anna ", "anna"], answer_start=[0, 0])),
    dict(id="2", title="t", context="Ben sails on Sunday.", question="When?", answers=dict(text=["on Sunday"],
                                                                                         answer_start=[10])),
]
HELLASWAG = [
    dict(ind=4, ctx="A man sits on a roof. He", endings=[" flies.", "starts pulling up roofing.", "is ripping.", "x"],
         label="1"),
    dict(ind=5, ctx="She is", endings=["singing.", "b", "c", "d"], label="0"),
    dict(ind=6, ctx="Then they", endings=["a", "b", "c", "ran all the way home, and were happy ever after."],
         label="3"),
]
WEATHER = dict(type="function", function=dict(name="weather", description="How it is", parameters=dict(
    type="object", properties=dict(town=dict(type="string"), days=dict(type="integer", default=1.0)),
    required=["town"])))
CHATS = [
    dict(messages=[dict(role="user", content="Hi"), dict(role="assistant", content="Hello."),
                   dict(role="user", content="Who?"), dict(role="assistant", content="Me, of course.")]),
    dict(messages=[dict(role="system", content="Be brief."), dict(role="user", content=[
        dict(type="text", text="2+2"), dict(type="image", url="x"), dict(type="text", text="= ?")]),
                   dict(role="assistant", content="4", reasoning_content="two and two"),
                   dict(role="user", content="And 3+3?"),
                   dict(role="assistant", content="6", reasoning_content="three and three")]),
    dict(tools=[WEATHER], messages=[
        dict(role="user", content="Rain?"),
        dict(role="assistant", content=None, tool_calls=[
            dict(function=dict(name="weather", arguments=dict(town="Zürich", days=2, deep=dict(z=1, a=[1.0, 2.5]))))]),
        dict(role="tool", tool_call_id="call_0", content="yes"), dict(role="assistant", content="It rains.")]),
    dict(tools=json.dumps([WEATHER]), conversations=[
        {"from": "human", "value": "Hey"}, {"from": "gpt", "value": "Hey you."}]),
]
ADD = json.dumps(dict(name="add", arguments=dict(a=1, b="zwölf")), ensure_ascii=False)
AGENT_CHATML = [
    dict(id=3, tools=json.dumps([WEATHER]), messages=[
        dict(role="system", content="Be brief."), dict(role="user", content="What is 1+12?"),
        dict(role="assistant", content="I add.", reasoning_content="Adding is best."),
        dict(role="tool_call", content=ADD), dict(role="tool_call", content=ADD.replace("add", "sum")),
        dict(role="tool_response", content="13"), dict(role="tool_response", content="thirteen", name="sum"),
        dict(role="assistant", content="13.", reasoning_content="Both agree."),
        dict(role="user", content="And 2+2?"), dict(role="tool_call", content='{"name": "add", "arguments": "2 2"}'),
        dict(role="tool_response", content="4"), dict(role="tool_response", content="stray"),
        dict(role="assistant", content="4."), dict(role="user", content="Thanks")]),
    dict(id=4, tools="  ", messages=[dict(role="tool", content="from before", tool_call_id="call_x"),
                                     dict(role="user", content="Go on"), dict(role="assistant", content="Yes.")]),
    dict(id=5, tools="[]", messages=[dict(role="user", content="Hello?")] + [dict(role="tool_call", content=ADD)]),
]
AGENT_SHAREGPT = [
    dict(tools=json.dumps([WEATHER]), conversations=[
        {"from": "human", "value": "Rain?"}, {"from": "function_call", "value": '{"name": "weather", "arguments": {}}'},
        {"from": "observation", "value": "yes"}, {"from": "gpt", "value": "It rains."}]),
    dict(tools=None, conversations=[{"from": "system", "value": "Hm."}, {"from": "user", "value": "Ö?"},
                                    {"from": "assistant", "value": "Ö.", "reasoning_content": "Umlauts"}]),
]
CALL = dict(id="c9", type="function", function=dict(name="weather", arguments='{"town": "Köln"}'))
AGENT_OPENAI = [
    dict(id="s", tools=[WEATHER], messages=[
        dict(role="user", content="Rain?"),
        dict(role="assistant", content="", reasoning_content="Look.", tool_calls=[CALL, dict(CALL, id=None)]),
        dict(role="tool", tool_call_id="c9", content="yes"), dict(role="tool", content="no", name="weather"),
        dict(role="assistant", content="Hard to say.", reasoning_content="They differ.")]),
]
XLAM = [
    dict(id=7, query="Where is Ö?", answers=json.dumps([dict(name="find", arguments=dict(q="Ö", n=3))]),
         tools=json.dumps([dict(name="find", description="finds", parameters=dict(
             q=dict(type="str", description="what"), n=dict(type="int", description="how many", default=10),
             f=dict(type="Float, optional", description="")))])),
    dict(id=8, query="Two calls", answers=json.dumps([dict(name="a", arguments={}), dict(name="b", arguments=dict(
        x=1.5, y=[True, None]))]), tools=json.dumps([dict(name="a", description="", parameters={})])),
]
MRPC = [
    dict(sentence1="He said yes.", sentence2="Yes, he said.", label=1, idx=0),
    dict(sentence1="one two three four five six seven", sentence2="one", label=0, idx=1),
    dict(sentence1="one two", sentence2="one two three four five six seven", label=0, idx=2),
    dict(sentence1="one two three four five six", sentence2="seven eight nine ten eleven twelve", label=1, idx=3),
]

COLUMNS = dict(question="q", answer="a")
BOTH = dict(context="c", question="q", answer="a")
CUT = dict(seq_length=12, truncation=True)
FULL = dict(seq_length=40, padding="max_length")
# dataset, tokenizer, template, rows, options
CASES = [
    *[("column_mapped", tokenizer, None, QA, dict(column_mapping=mapping, **options))
      for tokenizer in ("smollm2", "llama3", "llama3_bos") for mapping, options in
      ((COLUMNS, {}), (BOTH, {}), (BOTH, CUT), (BOTH, dict(FULL, answer_only_loss_mask=False)))],
    ("column_mapped", "smollm2", None, QA, dict(column_mapping=dict(context="c", answer="a"), padding="longest")),
    ("column_mapped", "smollm2", "chatml", QA, dict(column_mapping=COLUMNS)),
    *[("column_mapped", "smollm2", template, QA, dict(column_mapping=mapping, use_hf_chat_template=True, **options))
      for template in ("chatml", "generation") for mapping, options in
      ((COLUMNS, {}), (BOTH, FULL), (BOTH, dict(seq_length=26, truncation=True)),
       (dict(context="c", answer="a"), {}))],
    ("column_mapped", "smollm2", "chatml", QA, dict(column_mapping=BOTH, use_hf_chat_template=True,
                                                    answer_only_loss_mask=False)),
    ("column_mapped_stream", "smollm2", None, QA, dict(column_mapping=BOTH, limit_dataset_samples=3)),
    ("squad", "smollm2", None, SQUAD, {}),
    ("squad", "llama3", None, SQUAD, dict(seq_length=40, padding="max_length", truncation=True)),
    ("squad", "smollm2", "chatml", SQUAD, dict(limit_dataset_samples=1)),
    ("squad", "smollm2", None, SQUAD, dict(chat_template=GENERATION)),
    ("hellaswag", "smollm2", None, HELLASWAG, {}),
    ("hellaswag", "llama3", None, HELLASWAG, dict(num_samples_limit=2)),
    ("hellaswag", "smollm2", None, HELLASWAG, dict(pad_to_max_length=False)),
    *[("chat", "smollm2", template, CHATS, options) for template, options in (
        ("chatml", {}), ("generation", {}), ("tools", {}), ("chatml", dict(mask_history=True)),
        ("tools", dict(mask_generation_prompt=True)), ("tools", dict(mask_reasoning_content=True)),
        ("tools", dict(mask_reasoning_content=True, mask_history=True, mask_generation_prompt=True)),
        ("chatml", dict(mask_generation_prompt=True, seq_length=20, truncation=True)),
        ("tools", dict(mask_reasoning_content=True, seq_length=36, truncation=True)),
        ("generation", dict(mask_generation_prompt=True, seq_length=150, padding="max_length")))],
    *[("agent", "smollm2", "agent", rows, options) for rows, options in (
        (AGENT_CHATML, {}), (AGENT_SHAREGPT, {}), (AGENT_OPENAI, {}),
        (AGENT_CHATML, dict(train_on_last_turn_only=True, mask_generation_prompt=True)),
        (AGENT_CHATML, dict(drop_history_reasoning_content=True, mask_reasoning_content=True)),
        (AGENT_OPENAI, dict(drop_history_reasoning_content=True, mask_generation_prompt=True)),
        (AGENT_CHATML, dict(filter_no_assistant=True, trim_incomplete_last_turn=True, limit_dataset_samples=2)),
        (AGENT_CHATML, dict(seq_length=280, truncation=True)),
        (AGENT_CHATML, dict(seq_length=250, truncate_history=True, trim_incomplete_last_turn=True)),
        (AGENT_CHATML, dict(seq_length=20, truncate_history=True, trim_incomplete_last_turn=True)),
        (AGENT_SHAREGPT, dict(seq_length=220, truncate_history=True, padding="max_length", truncation=True)))],
    ("agent", "smollm2", "generation", AGENT_CHATML, {}),
    ("xlam", "smollm2", "tools", XLAM, {}),
    ("xlam", "smollm2", "tools", XLAM, dict(seq_length=140, padding="max_length", truncation=True)),
    *[("mrpc", tokenizer, None, MRPC, options) for tokenizer in ("smollm2", "llama3") for options in
      ({}, dict(max_length=9), dict(max_length=None, num_samples_limit=2))],
    ("mock_seq_cls", "smollm2", None, [], dict(num_samples=3)),
    ("mock_seq_cls", "smollm2", None, [], dict(num_samples=4, num_labels=5, vocab_size=34, max_seq_len=8, seed=7)),
]


def tokenizer_of(name, template):
    return PreTrainedTokenizerFast(
        tokenizer_file=str(HERE.parents[1] / f"parity/golden/tokenizers/{FILES[name]}/tokenizer.json"),
        chat_template=TEMPLATES.get(template), **TOKENIZERS[name])


def build(kind, tokenizer, file, rows, options):
    folder = str(file.parent)
    if kind == "column_mapped":
        return ColumnMappedTextInstructionDataset(str(file), tokenizer=tokenizer, **options)
    if kind == "column_mapped_stream":
        return ColumnMappedTextInstructionIterableDataset(str(file), tokenizer=tokenizer, **options)
    if kind == "squad":
        return make_squad_dataset(tokenizer, dataset_name=folder, **options)
    if kind == "hellaswag":
        return HellaSwag(folder, tokenizer, **options)
    if kind == "chat":
        return ChatDataset(str(file), tokenizer, **options)
    if kind == "agent":
        return make_agent_chat_dataset(tokenizer, path=str(file), **options)
    if kind == "mock_seq_cls":
        return MockSequenceClassificationDataset(**options)
    if kind == "xlam":
        return make_xlam_dataset(tokenizer, dataset_name=folder, **options)

    def load_dataset(*_, split, **__):
        return datasets.Dataset.from_list(rows[:options.get("num_samples_limit", len(rows))])
    seq_cls.load_dataset = load_dataset
    return seq_cls.GLUE_MRPC(tokenizer, **options)


def rows_of(kind, dataset):
    if kind == "column_mapped_stream":
        iterator = iter(dataset)
        return [next(iterator) for _ in range(7)]  # more than a pass
    return [dataset[i] for i in range(len(dataset))]


def trained(row):
    return any(label != -100 for label in row["labels"])


def golden(kind, tokenizer_name, template, rows, options):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "train.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_text("".join(line + "\n" for line in lines))
        dataset = build(kind, tokenizer_of(tokenizer_name, template), file, rows, options)
        out = []
        for i, row in enumerate(rows_of(kind, dataset)):
            if kind == "column_mapped":  # the map-style dataset gives another row where one has no label
                raw = {to: rows[i][of] for to, of in options["column_mapping"].items()}
                row = dataset._apply_tokenizer(raw)
            if trained(row):
                mask = row["attention_mask"]
                out.append(dict(row=i, input_ids=row["input_ids"], labels=row["labels"], attended=sum(mask)))
                assert mask == [1] * sum(mask) + [0] * (len(mask) - sum(mask))
    return dict(kind=kind, tokenizer=tokenizer_name, template=template, rows=lines, options=options, golden=out)


if __name__ == "__main__":
    cases = ",\n".join(json.dumps(golden(*case), separators=(",", ":")) for case in CASES)
    head = json.dumps(dict(templates=TEMPLATES, tokenizers=TOKENIZERS, files=FILES))[:-1]
    (HERE / "text_goldens.json").write_text(f'{head}, "cases": [\n{cases}\n]}}\n')
