-- make_agent_chat_dataset: which rows and exchanges are left out, how calls and answers become messages, and what is
-- refused. That rows are NeMo Automodel's is text_goldens_spec.lua's to say.
local am_chat = require("am.chat")
local agent_chat = require("am.datasets.agent_chat")
local json = require("am.utils.json")
local helpers = require("tests.lua.datasets.helpers")

local TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.reasoning_content or '' }}{{ m.content }}"
    .. "{% for c in m.tool_calls or [] %}{{ ' ' + c.id + ' ' + c['function'].name + ' ' + c['function'].arguments }}"
    .. "{% endfor %}{% if m.tool_call_id %}{{ ' ' + m.tool_call_id }}{% endif %}<|e|>{% endfor %}"

describe("make_agent_chat_dataset", function()
    local names, tok, rendered = {}, nil, nil

    before_each(function()
        tok, rendered = helpers.tokenizer { chat_template = TEMPLATE }, {}
        function tok:apply_chat_template(messages, opts)
            local text = am_chat.compile(self.chat_template):render { messages = messages, tools = opts.tools }
            rendered[#rendered + 1] = text
            return self:encode(text, {})
        end
    end)

    after_each(function()
        for _, name in ipairs(names) do
            os.remove(name)
        end
        names = {}
    end)

    local function open(rows, more)
        local lines = {}
        for i, row in ipairs(rows) do
            lines[i] = type(row) == "string" and row or json.encode(row)
        end
        names[#names + 1] = helpers.file(table.concat(lines, "\n"))
        local opts = { tokenizer = tok, path = names[#names] }
        for key, value in pairs(more or {}) do
            opts[key] = value
        end
        return agent_chat.make_agent_chat_dataset(opts)
    end

    -- The text of the first row, its last label with it.
    local function text_of(dataset)
        local row, words = dataset:get(1), {}
        for i, id in ipairs(row.input_ids) do
            words[i] = tok.words[id]
        end
        return table.concat(words) .. tok.words[row.labels[#row.labels]]
    end

    local function user(text) return { role = "user", content = text } end
    local function assistant(text, more)
        local out = { role = "assistant", content = text }
        for key, value in pairs(more or {}) do
            out[key] = value
        end
        return out
    end
    local function call(name) return { role = "tool_call", content = { name = name, arguments = { x = 1 } } } end

    it("joins calls to the assistant's text, and gives answers their ids", function()
        open { { id = 7, messages = {
            user "a", assistant "b", call "f", call "g", { role = "tool_response", content = "r" },
            { role = "tool_response", content = { z = 1 } }, { role = "tool_response", content = "more" },
            assistant "done",
        } } }
        assert.equal("<|user|>a<|e|><|assistant|>b call_7_0 f {\"x\": 1} call_7_1 g {\"x\": 1}<|e|>"
                     .. "<|tool|>r call_7_0<|e|><|tool|>{\"z\": 1} call_7_1<|e|><|tool|>more call_7_response_2_2<|e|>"
                     .. "<|assistant|>done<|e|>", rendered[1])
    end)

    it("reads ShareGPT's turns", function()
        open { { conversations = {
            { from = "human", value = "a" }, { from = "function_call", value = '{"name": "f", "arguments": "q"}' },
            { from = "observation", value = "r" }, { from = "gpt", value = "b" },
        } } }
        assert.equal("<|user|>a<|e|><|assistant|> call_0 f q<|e|><|tool|>r call_0<|e|><|assistant|>b<|e|>", rendered[1])
    end)

    it("keeps ids of OpenAI's calls, and makes those that are missing", function()
        local calls = { { id = "k", ["function"] = { name = "f", arguments = "1" } },
                        { ["function"] = { name = "g", arguments = { y = 2 } } } }
        open { { messages = { user "a", assistant("", { tool_calls = calls }), { role = "tool", content = "r" },
                              { role = "tool", content = "s", tool_call_id = "own" }, assistant "b" } } }
        assert.equal("<|user|>a<|e|><|assistant|> k f 1 call_1 g {\"y\": 2}<|e|><|tool|>r k<|e|><|tool|>s own<|e|>"
                     .. "<|assistant|>b<|e|>", rendered[1])
    end)

    local long = { messages = { { role = "system", content = "s" }, user "one", assistant "1", user "two", call "f",
                                { role = "tool_response", content = "r" }, assistant "2", user "three",
                                assistant "3" } }

    it("drops the oldest exchanges until the rest fits", function()
        local whole = #tok:encode(({ open { long } and rendered[1] })[1], {})
        for _, case in ipairs {
            { whole, "one" }, { whole - 1, "two" }, { 14, "three" }, { 1, "three" },
        } do
            local dataset = open({ long }, { seq_length = case[1], truncate_history = true })
            local text = text_of(dataset)
            assert.is_truthy(text:find("^<|system|>s<|e|><|user|>" .. case[2] .. "<"), case[1] .. ": " .. text)
            assert.is_truthy(text:find("<|assistant|>3<|e|>", 1, true), text)
        end
    end)

    it("leaves out rows that are too long, or in which nobody answers", function()
        local short = { messages = { user "a", assistant "b" } }
        assert.equal(2, open({ short, long }):len())
        assert.equal(1, open({ short, long }, { filter_overlong = true, seq_length = 15 }):len())
        local fits = { filter_overlong = true, seq_length = 15, truncate_history = true }
        assert.equal(2, open({ short, long }, fits):len())
        local six = #tok:encode(rendered[1], {})
        assert.equal(1, open({ short }, { filter_overlong = true, seq_length = six }):len())
        local calls_only = { messages = { user "a", call "f" } }
        assert.equal(1, open({ short, calls_only }, { filter_no_assistant = true }):len())
        assert.equal(2, open({ short, calls_only }):len())
        assert.equal(1, open({ short, long }, { limit_dataset_samples = 1 }):len())
    end)

    it("leaves out what follows the last answer, and the reasoning of earlier ones", function()
        local row = { messages = { user "a", assistant("b", { reasoning_content = "R1" }), user "c",
                                   assistant("d", { reasoning_content = "R2" }), user "e" } }
        open({ row }, { trim_incomplete_last_turn = true, drop_history_reasoning_content = true })
        assert.equal("<|user|>a<|e|><|assistant|>b<|e|><|user|>c<|e|><|assistant|>R2d<|e|>", rendered[1])
    end)

    it("refuses what is no conversation, and names row and message", function()
        local function refused(row, ...)
            local ok, e = pcall(open, { row }, {})
            assert.is_false(ok)
            assert.equal("data", e.code, tostring(e))
            for _, text in ipairs { ... } do
                assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
            end
        end
        refused({ text = "a" }, "row 1", '"messages" or "conversations"')
        refused({ messages = "a" }, '"messages" or "conversations"')
        refused({ messages = { "a" } }, "messages[0]", "role and content")
        refused({ messages = { user "a", { role = "bot", content = "b" } } }, "messages[1]", 'role is "bot"')
        refused({ messages = { { content = "b" } } }, "role is null")
        refused({ conversations = { { from = "cat", value = "b" } } }, "conversations[0]", 'from is "cat"')
        refused({ messages = { { role = "tool_call", content = "{" } } }, "messages[0]: content")
        refused({ messages = { { role = "tool_call", content = "[1]" } } }, "name and arguments")
        refused({ messages = { { role = "tool_call", content = "" } } }, "name and arguments")
        refused({ messages = { { role = "tool_call", content = { arguments = 1 } } } }, "the name of a tool")
        refused({ messages = { assistant("b", { tool_calls = 3 }) } }, "tool_calls is no list")
        refused({ messages = { assistant("b", { tool_calls = { 3 } }) } }, "tool_calls[0]", "a function")
        refused({ messages = { assistant("b", { tool_calls = { { ["function"] = { name = "" } } } }) } },
                "tool_calls[0]", "the name of a tool")
        refused({ tools = "{", messages = { user "a", assistant "b" } }, "tools")
        refused({ tools = 3, messages = { user "a", assistant "b" } }, "tools is no list")
    end)

    it("refuses options that do not go together", function()
        local function refused(opts, text)
            opts.tokenizer = tok
            local ok, e = pcall(agent_chat.make_agent_chat_dataset, opts)
            assert.is_false(ok)
            assert.equal("usage", e.code)
            assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
        end
        refused({}, "dataset_name")
        refused({ path = "a", dataset_name = "b" }, "dataset_name")
        refused({ path = "a", filter_overlong = true }, "seq_length")
    end)
end)
