-- Text datasets: what is refused and how rows are named, templates as text and as files, shuffling, what is
-- left out. That rows are NeMo Automodel's is text_goldens_spec.lua's to say.
local AutoTokenizer = require("am.tokenizers").AutoTokenizer
local am_chat = require("am.chat")
local json = require("am.utils.json")
local chat_dataset = require("am.datasets.chat_dataset")
local conversation = require("am.datasets.conversation")
local formatting = require("am.datasets.formatting")
local hellaswag = require("am.datasets.hellaswag")
local hub = require("am.utils.hub")
local seq_cls = require("am.datasets.seq_cls")
local squad = require("am.datasets.squad")
local xlam = require("am.datasets.xlam")
local helpers = require("tests.lua.datasets.helpers")

local CHATML = "{% for m in messages %}{{ '<|s|>' + m.role + '<|m|>' + m.content + '<|e|>' }}{% endfor %}"
    .. "{% if add_generation_prompt %}{{ '<|s|>assistant<|m|>' }}{% endif %}"

describe("text datasets", function()
    local names, tok = {}, nil

    -- A tokenizer of words with a real template engine.
    before_each(function()
        tok = helpers.tokenizer { chat_template = CHATML }
        function tok:apply_chat_template(messages, opts)
            local vars = { messages = messages }
            for key, value in pairs(opts) do
                vars[key] = value
            end
            return self:encode((am_chat.compile(self.chat_template):render(vars)), {})
        end
    end)

    after_each(function()
        for _, name in ipairs(names) do
            os.remove(name)
        end
        names = {}
    end)

    local function file(text, extension)
        names[#names + 1] = helpers.file(text, extension)
        return names[#names]
    end

    local function with(opts, more)
        opts.tokenizer = tok
        for key, value in pairs(more or {}) do
            opts[key] = value
        end
        return opts
    end

    local function chat(text, more)
        return chat_dataset.ChatDataset(with({ path_or_dataset_id = file(text) }, more))
    end

    local function shown(row)
        return tok:text(row.labels)
    end

    local good = '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes"}]}\n'

    it("learn a turn with or without its header, from a template given as text or as a file", function()
        assert.matches("_|<|s|>|assistant|<|m|>|Yes|<|e|>$", shown(chat(good):get(1)))
        assert.matches("^[_|]+|Yes|<|e|>$", shown(chat(good, { mask_generation_prompt = true }):get(1)))
        local other = CHATML:gsub("<|e|>", "<|f|>")
        local in_json = json.encode { chat_template = other }
        for _, given in ipairs { other, file(other, "jinja"), file(in_json, "json") } do
            tok.chat_template = nil
            assert.matches("Yes|<|f|>$", shown(chat(good, { chat_template = given }):get(1)))
            assert.equal(other, tok.chat_template)
        end
        helpers.fails("usage", "chat_template.*neither a template nor a file", chat, good,
            { chat_template = "nowhere" })
        tok.chat_template = nil
        helpers.fails("usage", "no chat template", chat, good)
    end)

    it("name row and message of what is no conversation", function()
        local user = '{"role":"user","content":"a"}'
        for messages, pattern in pairs {
            ["7"] = "row 2: a row needs a list", ["[7]"] = "row 2: messages%[0%]: a message needs",
            ['[{"role":"asistant","content":"a"}]'] = 'messages%[0%]: role "asistant".*did you mean "assistant"',
            ["[" .. user .. ',{"role":"assistant","content":{"a":1}}]'] = "messages%[1%]: content is neither",
            ["[" .. user .. ',{"role":"assistant","tool_calls":{"a":1}}]'] = "tool_calls is no list",
            ["[" .. user .. ',{"role":"assistant","tool_calls":[{}]}]'] = "tool_calls%[0%]: a call needs a function",
            ["[" .. user .. ',{"role":"assistant","tool_calls":[{"function":{"name":""}}]}]'] = "name must be a text",
            ["[" .. user .. ',{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]'] = "arguments is missing",
            ["[" .. user .. ',{"role":"tool","content":"x"}]'] = "messages%[1%]: a tool's message needs a tool_call_id",
            ["[" .. user .. "]"] = "no message of the assistant",
        } do
            helpers.fails("data", pattern, chat, good .. '{"messages":' .. messages .. "}\n")
        end
        helpers.fails("data", "conversations%[0%]: from is \"bird\"", chat, '{"conversations":[{"from":"bird"}]}')
        helpers.fails("data", "row 1: tools: not JSON", chat, (good:gsub("^{", '{"tools":"[",')))
        helpers.fails("data", "row 1: tools is no list", chat, (good:gsub("^{", '{"tools":{"a":1},')))
    end)

    it("leave out lines that are not JSON when told to, and not what is no conversation", function()
        local text = good .. "no\n" .. good .. "[1]\n"
        helpers.fails("data", "row 2: not JSON", chat, text)
        local ds = chat(text, { skip_invalid_samples = true })
        assert.same({ 2, 2 }, { ds:len(), ds:stats().skipped })
        assert.matches("row 2 %(not a JSON object%)", ds:stats().skipped_names[1])
        helpers.fails("data", "needs a list", chat, good .. "{}\n", { skip_invalid_samples = true })
    end)

    it("shuffle before the split takes its part, the same way for the same seed", function()
        local lines = {}
        for i = 1, 20 do
            lines[i] = good:gsub("Yes", "Yes" .. i)
        end
        local function order(seed, split)
            local ds, out = chat(table.concat(lines), { shuffle_seed = seed, split = split }), {}
            for i = 1, ds:len() do
                out[i] = tonumber(ds:name(i):match("row (%d+)"))
                assert.matches("Yes" .. out[i] .. "|", shown(ds:get(i)))
            end
            return table.concat(out, " ")
        end
        local all = order(7)
        assert.equal(all, order(7))
        assert.not_equal(all, order(8))
        assert.not_equal(all, order(nil))
        assert.equal(all:match("^%d+ %d+ %d+"), order(7, "train[:3]"))
        assert.equal(20, #(all .. " "):gsub("%d+ ", "x"))
    end)

    it("keep the last turn only, without reasoning where asked, and refuse templates that rewrite turns", function()
        tok.chat_template = "{% for m in messages %}{{ '<|s|>' + m.role + '<|m|>' }}{% if m.reasoning_content %}"
            .. "{{ '<|t|>' + m.reasoning_content + '<|u|>' }}{% endif %}{{ m.content + '<|e|>' }}{% endfor %}"
        local text = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},'
            .. '{"role":"user","content":"c"},{"role":"assistant","content":"d","reasoning_content":"r s"}]}'
        assert.matches("_|<|s|>|assistant|<|m|>|b|<|e|>|_|_|_|_|_|<|s|>|assistant|<|m|>|<|t|>|r| s|<|u|>|d|<|e|>$",
            "_|" .. shown(chat(text):get(1)))
        local last = shown(chat(text, { mask_history = true }):get(1))
        assert.matches("^[_|]+<|s|>|assistant|<|m|>|<|t|>|r| s|<|u|>|d|<|e|>$", last)
        last = shown(chat(text, { mask_reasoning_content = true }):get(1))
        assert.matches("<|s|>|assistant|<|m|>|_|_|_|_|d|<|e|>$", last)
        tok.chat_template = "{% for m in messages %}{{ ('<|x|>' if loop.last else '<|s|>') + m.content }}{% endfor %}"
        helpers.fails("data", "row 1: the chat template writes the turns", chat, text)
        tok.chat_template = "{{ raise_exception('no system') }}"
        helpers.fails("data", "row 1: .*no system", chat, text)
    end)

    it("learn turns that a template writes differently when more follows, where its loop tells them", function()
        local real = AutoTokenizer.from_pretrained("tests/parity/golden/tokenizers/smollm2", { chat = am_chat })
        -- as Qwen3 does: reasoning in the last turn only
        real.chat_template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if loop.last %}"
            .. "{{ '<think>' + (m.reasoning_content or '') + '</think>' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}"
            .. "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
        local messages = {
            { role = "user", content = "a" }, { role = "assistant", content = "b", reasoning_content = "r" },
            { role = "user", content = "c" }, { role = "assistant", content = "d", reasoning_content = "s" },
        }
        local function learnt(opts)
            local ids = {}
            for i, id in ipairs(conversation.row(real, messages, opts, "row 1").labels) do
                ids[i] = id == -100 and real:encode("_")[1] or id
            end
            return (real:decode(ids):gsub("_+", "_"))
        end
        assert.equal("_<|im_start|>assistant\nb<|im_end|>\n_<|im_start|>assistant\n<think>s</think>d<|im_end|>\n",
            learnt {})
        assert.equal("_b<|im_end|>\n_<think>s</think>d<|im_end|>\n", learnt { mask_generation_prompt = true })
        assert.equal("_<think>s</think>d<|im_end|>\n", learnt { mask_generation_prompt = true, last_turn_only = true })
        -- one that cannot begin with a question of nobody's
        real.chat_template = "{% if messages|length < 2 %}{{ raise_exception('no question') }}{% endif %}"
            .. real.chat_template
        assert.equal("_b<|im_end|>\n_<think>s</think>d<|im_end|>\n", learnt { mask_generation_prompt = true })
    end)

    it("do not learn the blocks that a template supplies for either way of thinking", function()
        tok.chat_template = "{% for m in messages %}{{ '<|s|>' + m.role + '<|m|>' }}{% if m.role == 'assistant' %}"
            .. "{{ '<|t|>' + (m.reasoning_content or '') + '<|u|>' }}{% endif %}{{ m.content + '<|e|>' }}{% endfor %}"
            .. "{% if add_generation_prompt %}{{ '<|s|>assistant<|m|><|t|>' }}{% if enable_thinking is false %}"
            .. "{{ '<|u|>' }}{% endif %}{% endif %}"
        local messages = { { role = "user", content = "a" }, { role = "assistant", content = "b" } }
        local row = conversation.row(tok, messages, { mask_generation_prompt = true }, "row 1")
        assert.matches("^[_|]+b|<|e|>$", shown(row))
        messages[2].reasoning_content = "r"
        row = conversation.row(tok, messages, { mask_generation_prompt = true }, "row 1")
        assert.matches("^[_|]+r|<|u|>|b|<|e|>$", shown(row))
    end)

    it("cut and pad, and count what was cut", function()
        local ds = chat(good, { seq_length = 6, truncation = true })
        assert.same({ 5, 1 }, { #ds:get(1).input_ids, ds:stats().truncated })
        local row = chat(good, { seq_length = 12, padding = "max_length" }):get(1)
        assert.same({ 12, 1, 0 }, { #row.input_ids, row.attention_mask[9], row.attention_mask[10] })
        local ids, was_cut = formatting.encode(helpers.tokenizer { adds_eos = true }, "a b c", 3)
        assert.same({ { 10, 11, 1 }, true }, { ids, was_cut })
    end)

    it("read SQuAD's columns, and say which are missing", function()
        tok.chat_template = nil
        local row = '{"context":"A cook.","question":"Who?","answers":{"text":[" A cook ","x"],"answer_start":[0]}}\n'
        local function read(text, more)
            return squad.make_squad_dataset(with({ dataset_name = file(text), answer_boundary = "prefix" }, more))
        end
        assert.equal("Context:| A| cook.| Question:| Who?| Answer:| A",
            tok:text(read(row, { add_eos = false }):get(1).input_ids))
        local ds = read(row .. '{"context":"a","question":"b","answers":{"text":[]}}', { add_eos = true })
        assert.equal("_|_|_|_|_| A| cook|</s>", shown(ds:get(1)))
        assert.matches("row 2 %(no answer%)", ds:stats().skipped_names[1])
        assert.equal(2, read(row:rep(3), { split = "train[:2]", limit_dataset_samples = 1 }):len())
        assert.equal(1, read(row:rep(3), { split = "train", limit_dataset_samples = 1 }):len())
        helpers.fails("data", 'row 1: column "context" holds nothing', read,
            '{"question":"a","answers":{"text":["a"]}}')
        helpers.fails("data", "row 1: answers.text is no list", read, '{"question":"a","context":"b","answers":"a"}')
    end)

    it("read SQuAD itself, from the hub, where nothing is named", function()
        local name = file('{"context":"a","question":"b","answers":{"text":["c"]}}')
        local real, asked = hub.dataset_files, {}
        finally(function() hub.dataset_files = real end)
        hub.dataset_files = function(...)
            asked[#asked + 1] = { ... }
            return { name }
        end
        assert.equal(1, squad.make_squad_dataset(with { split = "train[:1]" }):len())
        assert.same({ { "squad", { split = "train" } } }, asked)
        assert.equal("squad", squad.fields.dataset_name.default)
    end)

    it("read HellaSwag's, padded to a multiple of 8, and say what a label names", function()
        local row = '{"ctx":"a b","endings":["c d","e","f","g h i"],"label":"%s"}\n'
        local function read(text, more)
            return hellaswag.HellaSwag(with({ path_or_dataset = file(text) }, more))
        end
        local ds = read(row:format(0) .. row:format(3))
        assert.same({ 8, 8, 2 }, { #ds:get(1).input_ids, ds:length(1), ds:len() })
        assert.equal(8, #read(row:format(0)):get(1).input_ids) -- of 4 tokens
        local nine = read(row:format(0) .. '{"ctx":"a b c d e f","endings":["g h i"],"label":0}')
        assert.same({ 16, 16, 16 }, { #nine:get(1).input_ids, #nine:get(2).input_ids, #nine:get(2).labels })
        assert.equal("_|c| d|_", tok:text { unpack(ds:get(1).labels, 1, 4) })
        assert.equal(4, #read(row:format(0), { pad_to_max_length = false }):get(1).input_ids)
        helpers.fails("data", 'row 1: label is "4", which names none of the 4 endings', read, row:format(4))
        helpers.fails("data", "the test split has no labels", read, row:format(""))
        helpers.fails("data", "has columns ctx, endings and label", read, '{"ctx":"a"}')
    end)

    it("read xLAM's and name what is wrong in them", function()
        local function read(query, tools, answers)
            return xlam.make_xlam_dataset(with { dataset_name = file(string.format(
                '{"id":1,"query":%s,"tools":%s,"answers":%s}', query, tools, answers)) })
        end
        assert.equal(1, read('"a"', '"[]"', '"[]"'):len())
        helpers.fails("data", "row 1: query is no text", read, "1", '"[]"', '"[]"')
        helpers.fails("data", "row 1: tools: not JSON", read, '"a"', '"["', '"[]"')
        helpers.fails("data", "row 1: answers is no list", read, '"a"', '"[]"', '{"a":1}')
        helpers.fails("data", "row 1: tools%[0%] is no object", read, '"a"', '"[1]"', '"[]"')
        helpers.fails("data", "parameters is no object", read, '"a"', '[{"name":"f","parameters":7}]', '"[]"')
        helpers.fails("data", "described by an object", read, '"a"', '[{"name":"f","parameters":{"x":7}}]', '"[]"')
    end)

    it("read pairs with a class", function()
        local function read(label, more)
            local text = '{"sentence1":"a b c","sentence2":"d","label":' .. label .. "}"
            return seq_cls.GLUE_MRPC(with({ path_or_dataset = file(text) }, more))
        end
        local row = read("0"):get(1)
        assert.same({ { 0 }, { 1, 1, 1, 1 } }, { row.labels, row.attention_mask })
        assert.equal("a| b| c|d", tok:text(row.input_ids))
        assert.equal("a|d", tok:text(read("1", { max_length = 2 }):get(1).input_ids))
        helpers.fails("data", "row 1: label is %-1.*test split", read, "-1")
        helpers.fails("data", "row 1: label is 0.5", read, "0.5")
        helpers.fails("data", 'row 1: label is the text "0", not a class.*without quotes', read, '"0"')
        helpers.fails("data", 'row 1: label is the text "yes", not a class counted from 0$', read, '"yes"')
    end)
end)
