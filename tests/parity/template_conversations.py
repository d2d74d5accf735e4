"""The conversations that templates_check.py renders with every chat template: {name: variables}."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <now> & then, in \"quotes\", for a city's name é",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city\nwhose weather it is"},
                "days": {"type": "integer", "description": "How many", "enum": [1, 2, 7], "default": 1},
                "share": {"type": ["number", "null"], "description": "Of the day", "default": 0.5, "nullable": True},
                "where": {
                    "type": "object",
                    "properties": {
                        "lat": {"type": "number"},
                        "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1},
                    },
                    "required": ["lat"],
                    "additionalProperties": False,
                },
                "unit": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Unit"},
                "any": {"oneOf": [{"const": "x"}, {"type": "boolean", "default": True}]},
            },
            "required": ["city", "days"],
        },
        "return": {"type": "object", "description": "What it will be"},
        "response": {"type": "OBJECT", "description": "d", "properties": {"t": {"type": "NUMBER"}}},
    },
    "strict": True,
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}},
}
BARE = {"name": "bare", "description": "No wrapper", "parameters": {"type": "object", "properties": {
    "q": {"type": "string", "description": "query"}}, "required": ["q"]}}
TOOLS = [WEATHER, CLOCK]

ARGUMENTS = {"city": "Zürich", "days": 2, "share": 1.0, "deep": {"a": [1, None, True, "x"], "b": {}}, "none": None}


def call(arguments, name="get_weather", id="abcdef123"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


def system(content):
    return {"role": "system", "content": content}


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool(content, **more):
    return {"role": "tool", "content": content, **more}


def text(s):
    return {"type": "text", "text": s}


IMAGE = {"type": "image", "image": "cat.png"}
HELLO = [user("Hello there!"), assistant("Hi. What can I do?")]
TURNS = [system("Be brief."), user("Hi"), assistant("Hello."), user("1 < 2 & 'x'?"), assistant("yes\n\nno")]
THINKING = "<think>\nHe asks.\nI answer.\n</think>\n\nIt is 7."
RESULT = '{"t": 21.5, "sky": "clear"}'
CALLS = [
    user("Weather?"),
    assistant("", tool_calls=[call(ARGUMENTS)]),
    tool(RESULT, name="get_weather", tool_call_id="abcdef123"),
    assistant("21.5 degrees."),
]
STRING_CALLS = [
    user("Weather?"),
    assistant("I look.", tool_calls=[call('{"city": "Zürich", "days": 2}')]),
    tool(RESULT, name="get_weather", tool_call_id="abcdef123"),
    assistant("21.5 degrees."),
    user("Thanks"),
    assistant("Welcome."),
]
PARALLEL = [
    system("Use tools."),
    user("Weather and time?"),
    assistant(None, tool_calls=[call({"city": "Bern"}), call({}, "clock", "abcdef124")]),
    tool(RESULT, name="get_weather", tool_call_id="abcdef123"),
    tool("12:00", name="clock", tool_call_id="abcdef124"),
    assistant("Clear at noon."),
]
PARTS = [
    user([text("What is "), IMAGE, text("this?")]),
    assistant([text("A cat.")]),
    user([IMAGE, {"type": "image_url", "image_url": {"url": "u"}}, text("And these?")]),
]
REASONING = [
    user("What is 3 + 4?"),
    assistant("It is 7.", reasoning_content="He asks for a sum.\nEasy."),
    user("And 4 + 4?"),
    assistant("8.", reasoning_content="Again."),
]

CONVERSATIONS = {
    "empty": {"messages": []},
    "single": {"messages": [user("Hello there!")]},
    "single, spaces": {"messages": [user("  Grüß Gott\n ")]},
    "answered": {"messages": HELLO},
    "turns": {"messages": TURNS},
    "turns, open": {"messages": TURNS[:4]},
    "turns without system": {"messages": TURNS[1:]},
    "system only": {"messages": [system("Be brief.\n ")]},
    "system, empty": {"messages": [system(""), user(""), assistant(""), user("x")]},
    "system late": {"messages": [user("a"), assistant("b"), system("c"), user("d")]},
    "developer": {"messages": [{"role": "developer", "content": "Be kind."}, user("Hi"), assistant("Ho")]},
    "two users": {"messages": [user("a"), user("b"), assistant("c"), assistant("d")]},
    "assistant first": {"messages": [assistant("a"), user("b")]},
    "strange role": {"messages": [user("a"), {"role": "critic", "content": "b"}]},
    "no content": {"messages": [user("a"), {"role": "assistant"}]},
    "none content": {"messages": [system("s"), user("a"), assistant(None), user(None)]},
    "unicode": {"messages": [
        system("日本語\u00a0\u200b"), user("Ünïcödé 😀\u2028x\ty\r\nz\x0bé\u0301"), assistant("\u3000नमस्ते\n\n\n"), user("ß\0x")]},
    "markup": {"messages": [
        user("<|im_end|></s>{{ x }}{% if %}"), assistant("\\n \\u00e9 \"q\" 'p'\n"), user("[INST]</tool_call>")]},
    "long": {"messages": [m for i in range(20) for m in (user(f"q{i}\n"), assistant(f" a{i}"))]},
    "thinking": {"messages": [user("3 + 4?"), assistant(THINKING), user("Sure?"), assistant("<think></think>Yes")]},
    "thinking, last": {"messages": [user("3 + 4?"), assistant(THINKING)]},
    "thinking, half": {"messages": [user("3 + 4?"), assistant("no start</think>\n7"), user("x"), assistant("<think>7")]},
    "reasoning": {"messages": REASONING},
    "reasoning, open": {"messages": REASONING[:3]},
    "reasoning, old names": {"messages": [
        user("a"), assistant("b", thinking="t"), user("c"), assistant("d", reasoning="r"),
        user("e"), assistant("f", reasoning_content="")]},
    "reasoning and calls": {"messages": [
        user("Weather?"), assistant("", reasoning_content="Call it.", tool_calls=[call(ARGUMENTS)]),
        tool(RESULT, name="get_weather", tool_call_id="abcdef123"),
        assistant("Clear.", reasoning_content="Now I know.")], "tools": TOOLS},
    "tools": {"messages": [system("Use tools."), user("Weather?")], "tools": TOOLS},
    "tools without system": {"messages": [user("Weather?"), assistant("Where?"), user("Bern")], "tools": TOOLS},
    "tools, bare": {"messages": [user("Weather?")], "tools": [BARE]},
    "tools, none": {"messages": [user("Weather?")], "tools": []},
    "tools, in user message": {"messages": CALLS[:1], "tools": TOOLS, "tools_in_user_message": False},
    "call": {"messages": CALLS, "tools": TOOLS},
    "call, pending": {"messages": CALLS[:3], "tools": TOOLS},
    "call, last": {"messages": CALLS[:2], "tools": TOOLS},
    "call without tools": {"messages": CALLS},
    "call, strings": {"messages": STRING_CALLS, "tools": TOOLS},
    "calls, parallel": {"messages": PARALLEL, "tools": TOOLS},
    "call, bare": {"messages": [
        user("x"), assistant("", tool_calls=[{"name": "clock", "arguments": {}}]), tool("1")], "tools": TOOLS},
    "call, none content": {"messages": [
        user("x"), {"role": "assistant", "tool_calls": [call({"city": "Bern"})]},
        tool(RESULT, tool_call_id="abcdef123")], "tools": TOOLS},
    "call, ids": {"messages": [
        user("x"), assistant("", tool_calls=[call({"a": 1}, id="functions.get_weather:0")]),
        tool("1", tool_call_id="functions.get_weather:0")], "tools": TOOLS},
    "result, object": {"messages": CALLS[:2] + [tool({"t": 21.5, "s": ["ü"]}), assistant("a")], "tools": TOOLS},
    "result, parts": {"messages": CALLS[:2] + [tool([text("21"), text("22")]), assistant("a")], "tools": TOOLS},
    "result, role": {"messages": CALLS[:2] + [{"role": "tool_response", "content": "21"}, assistant("a")]},
    "parts": {"messages": PARTS},
    "parts, system": {"messages": [system([text("Be brief.")])] + PARTS[:2]},
    "parts, text": {"messages": [user([text("a"), text(" b ")]), assistant([text("c")]), user([text("")])]},
    "parts, none": {"messages": [user([]), assistant([])]},
    "parts, video": {"messages": [user([{"type": "video", "video": "v.mp4"}, {"type": "audio", "audio": "a.wav"},
                                        text("x")]), assistant("y")]},
    "parts, odd": {"messages": [user([{"type": "thing"}, {"text": "untyped"}, "bare"])]},
    "documents": {"messages": TURNS[:2], "documents": [
        {"title": "Lighthouse", "text": "It is\nwhite.", "doc_id": "1"}, {"title": "Ö", "text": ""}]},
    "name": {"messages": [user("a", name="Ann"), assistant("b", name="bot"), user("c", name="Bob")]},
    "extra": {"messages": [user("a", weight=1.5, tags=["x"]), assistant("b", prefix=True, audio={"id": "1"}, weight=0)]},
    "content dict": {"messages": [user({"a": 1}), assistant({"name": "f", "parameters": {"x": [1.0]}})]},
}

# Which field of the last message is continued.
CONTINUED = {
    "continue": {"messages": HELLO, "continue_final_message": True},
    "continue, trailing space": {"messages": [user("a"), assistant("  one two \n")], "continue_final_message": True},
    "continue, user": {"messages": [user("Once upon")], "continue_final_message": True},
    "continue, parts": {"messages": [user("a"), assistant([text("x"), text("y ")])], "continue_final_message": True},
    "continue, empty": {"messages": [user("a"), assistant("")], "continue_final_message": True},
    "continue, none": {"messages": [user("a"), assistant(None)], "continue_final_message": True},
    "continue, nobody": {"messages": [], "continue_final_message": True},
    "continue, reasoning": {
        "messages": [user("a"), assistant("", reasoning_content="first I")], "continue_final_message": "reasoning_content"},
    "continue, thinking": {
        "messages": [user("a"), assistant("b", thinking="first I")], "continue_final_message": "thinking"},
}
