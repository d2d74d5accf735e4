-- What the fuzzers of Lua code do with an input: functions of a text, under the fuzzer's name. They
-- return when the text is read, or refused by an error object, and raise what is a finding.

local am = require("am")
local chat = require("am.chat")
local checkpoint = require("am.checkpoint")
local config = require("am.config")
local consolidation = require("am.recipes.consolidation")
local datasets = require("am.datasets")
local err = require("am.core.error")
local indexed = require("am.datasets.indexed_dataset")
local gpt_dataset = require("am.datasets.gpt_dataset")
local nanogpt = require("am.datasets.nanogpt_dataset")
local mlflow = require("am.loggers.mlflow")
local path = require("am.utils.path")
local processors = require("am.processors")
local row_stream = require("am.datasets.row_stream")
local report = require("am.loggers.report")
local wandb_api = require("am.loggers.wandb_api")
local matcher = require("am.peft.matcher")
local peft = require("am.peft")
local tiny = require("tests.support.tiny")
local file_rows = require("am.datasets.file_rows")
local json = require("am.utils.json")
local hub_api = require("am.utils.hub_api")
local hub_cache = require("am.utils.hub_cache")
local hub_dataset = require("am.utils.hub_dataset")
local hub_model = require("am.utils.hub_model")
local strings = require("am.utils.strings")

-- The result of fn(...), or nil when it was refused.
local function try(fn, ...)
    local args, n = { ... }, select("#", ...)
    local ok, result = xpcall(function() return fn(unpack(args, 1, n)) end, function(e)
        return err.is(e) and e or debug.traceback(tostring(e))
    end)
    if not ok and not err.is(result) then
        error(result, 0)
    end
    return ok and result or nil
end

local function getenv(name)
    return name == "HOME" and "/folder" or nil
end

local M = {}

--- What is read prints as text that is read again and prints the same.
function M.yaml(text)
    local node = try(config.parse, text, { getenv = getenv })
    if node then
        local printed = config.print(node)
        local again = config.parse(printed, { getenv = getenv, name = "printed" })
        assert(config.print(again) == printed, printed)
        node = try(config.expand_short_form, node)
    end
    if node then -- what the short form stands for is none itself
        local printed = config.print(node)
        config.expand_short_form(node)
        assert(config.print(node) == printed, printed)
    end
end

local name = os.tmpname() .. ".jsonl"

-- Bytes are ids from 3 on; 1 ends and 2 begins.
local tokenizer = { eos_token_id = 1, bos_token_id = 2, pad_token_id = 0 }

function tokenizer.encode(_, text, opts)
    local ids = opts.add_special_tokens and { 2 } or {}
    for i = 1, #text do
        ids[#ids + 1] = 3 + text:byte(i)
    end
    return ids
end

local written = chat.compile("{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}"
    .. "{{ '<' + m.role + '>' + (m.reasoning_content or '') + m.content }}{% for c in m.tool_calls or [] %}"
    .. "{{ c.id + c['type'] + c['function'].name + c['function'].arguments }}{% endfor %}{% endfor %}")

function tokenizer.apply_chat_template(self, messages, opts)
    return self:encode((written:render { messages = messages, tools = opts.tools }), {})
end

local columns = { question = "question", answer = "answer", context = "context" }

-- Data sets that read such rows, and with what options.
local readers = {
    { datasets.PretokenizedDataset, { vocab_size = 100 } },
    { datasets.ColumnMappedTextInstructionDataset, { column_mapping = columns, seq_length = 9, truncation = true } },
    { datasets.ColumnMappedTextInstructionDataset, { column_mapping = columns, use_hf_chat_template = true } },
    { datasets.ChatDataset, { mask_reasoning_content = true, mask_generation_prompt = true } },
    { datasets.ChatDataset, { skip_invalid_samples = true, shuffle_seed = 1, seq_length = 30, truncation = true } },
    { datasets.make_squad_dataset, {} }, { datasets.make_xlam_dataset, {} }, { datasets.HellaSwag, {} },
    { datasets.GLUE_MRPC, { max_length = 9 } },
    { datasets.make_agent_chat_dataset, { filter_overlong = true, truncate_history = true, seq_length = 60 } },
    { datasets.make_agent_chat_dataset, { trim_incomplete_last_turn = true, drop_history_reasoning_content = true } },
}

local function read_as(reader)
    local opts = { path_or_dataset_id = name, path_or_dataset = name, dataset_name = name, tokenizer = tokenizer }
    for key, value in pairs(reader[2]) do
        opts[key] = value
    end
    tokenizer.chat_template = reader[1] ~= datasets.GLUE_MRPC and "{{ reasoning_content }}" or nil
    local dataset = try(reader[1], opts)
    for i = 1, dataset and dataset:len() or 0 do
        local row = dataset:get(i)
        assert(#row.labels == #row.input_ids or #row.labels == 1)
    end
end

local function write(to, text)
    local file = assert(io.open(to, "wb"))
    file:write(text)
    file:close()
end

-- All rows of a file of that text. Rows that are read again are the same.
local function read_rows(text, extension)
    write(name .. extension, text)
    local source = try(file_rows.open, name .. extension)
    if not source then
        return
    end
    local n, first = source:len(), {}
    for i = 1, math.min(n, 200) do
        local row = try(source.get, source, i)
        first[i] = row and json.encode(row)
        source:name(i)
    end
    for i = #first, 1, -1 do
        local row = try(source.get, source, i)
        assert(first[i] == (row and json.encode(row)))
    end
    source:close()
end

--- Every row is an object or an error, also when it is streamed, and whatever is read in it.
function M.jsonl(text)
    read_rows(text, "")
    local stream = try(row_stream.open, name)
    while stream and try(stream.next, stream) do end
    read_as(readers[1 + #text % #readers])
end

--- A shard of nanogpt: its rows are whole, and from the middle on the same ones.
function M.nanogpt(text)
    write(name, text)
    for _, align in ipairs { false, true } do
        local dataset = try(nanogpt.NanogptDataset, { file_pattern = { name }, seq_len = 3, bos_token = 5,
                                                      align_to_bos = align })
        local iterator, second = dataset and dataset:iter { once = true }
        local first = iterator and try(iterator.next, iterator)
        if first then
            assert(#first.input_ids == 3 and #first.labels == 3)
            local state = iterator:state_dict()
            second = try(iterator.next, iterator)
            local again = dataset:iter { once = true }
            try(again.load_state_dict, again, state)
            local other = try(again.next, again)
            assert((second and second.name) == (other and other.name))
        end
    end
end

--- A pair of files of Megatron's: the first byte times four is the length of .idx, the rest is .bin. Every row
--- has its length, or is an error.
function M.megatron(text)
    local idx_bytes = text:byte(1) or 0
    write(name .. ".idx", text:sub(2, 1 + 4 * idx_bytes))
    write(name .. ".bin", text:sub(2 + 4 * idx_bytes))
    local found = try(indexed.open, name)
    if found then
        for i = 0, math.min(found.count, 50) - 1 do
            try(found.get, found, i, 0, found.lengths[i])
        end
        local dataset = try(gpt_dataset.new, {
            indexed = found, first = 0, stop = found.count, split = "train", num_samples = 7, seq_length = 3, seed = 1,
            vocab_size = 2 ^ 31, eos_token_id = 3, pad_token_id = 3, reset_attention_mask = true,
        })
        for i = 1, dataset and dataset:len() or 0 do
            local row = try(dataset.get, dataset, i)
            assert(not row or #row.input_ids == 3)
        end
        found:close()
    end
end

local picture_folder

-- Rows of a dataset of conversations: each is an error, or has as many images as places for them.
local function read_conversations(make, opts)
    local dataset = try(make, opts)
    for i = 1, dataset and math.min(dataset:len(), 50) or 0 do
        local row = try(dataset.get, dataset, i)
        local places = 0
        for _, message in ipairs(row and row.conversation or {}) do
            for _, part in ipairs(message.content) do
                places = places + (part.type == "image" and 1 or 0)
                assert(part.type == "image" or type(part.text) == "string")
            end
        end
        for _, source in ipairs(row and row.images or {}) do
            places = places - 1
            assert(type(source.path or source.data or source.url or source.problem) == "string")
        end
        assert(places == 0)
    end
end

--- Conversations with images, in JSON, Parquet or compressed by their first bytes, as each dataset of such reads them,
--- and as the captions of a folder.
function M.conversation(text)
    picture_folder = picture_folder or os.tmpname()
    os.remove(picture_folder)
    path.mkdir_p(picture_folder)
    local file = path.join(picture_folder, "captions.jsonl")
    write(file, text)
    local vlm = datasets.vlm
    for _, make in ipairs { vlm.make_conversation_dataset, vlm.make_unimm_chat_dataset, vlm.make_cord_v2_dataset,
                            vlm.make_rdr_dataset, vlm.make_medpix_dataset } do
        read_conversations(make, { path_or_dataset = file })
    end
    read_conversations(vlm.ImageFolder, { path_or_dataset = picture_folder })
end

--- The same of CSV, and of TSV where the text begins with a tab.
function M.csv(text)
    read_rows(text, text:sub(1, 1) == "\t" and ".tsv" or ".csv")
end

--- The same of a file that is told by its content.
function M.rows(text)
    read_rows(text, "")
end

--- Two renderings of one template are the same, and the assistant's turns lie in the text one after the other. What
--- follows a NUL is what the user says.
function M.template(text)
    local source, said = text:match("^(%Z*)%z?(.*)$")
    local template = try(chat.compile, source, { steps = 20000, output = 1000000, now = 0 })
    if not template then
        return
    end
    local vars = {
        messages = { { role = "system", content = "Be brief." }, { role = "user", content = said },
                     { role = "assistant", content = "Yes." } },
        tools = { { type = "function", ["function"] = { name = "f", parameters = {} } } },
        add_generation_prompt = true, bos_token = "<s>", eos_token = "</s>",
    }
    local out = try(template.render, template, vars)
    assert(out == try(template.render, template, vars))
    local told = try(function() return { template:turns(vars) } end) or {}
    assert(out == told[1])
    local last = 0
    for _, turn in ipairs(not template.has_generation and told[2] or {}) do
        assert(last < turn[1] and turn[1] <= turn.answer and turn.answer <= turn[2] + 1 and turn[2] <= #out)
        last = turn[2]
    end
    vars.continue_final_message = true
    try(template.render, template, vars)
end

local function nothing() end
local silent = { debug = nothing, info = nothing, warning = nothing }
local folder

--- A resumed run whose training.jsonl is the text up to a NUL, and whose servers answer with what follows,
--- one answer after the other: a status of three digits and a body, with a NUL between two.
function M.trackers(text)
    if not folder then
        folder = os.tmpname()
        os.remove(folder)
        path.mkdir_p(folder)
    end
    local history, rest = text:match("^(%Z*)%z?(.*)$")
    for _, file in ipairs { "training.jsonl", "validation.jsonl" } do
        local out = assert(io.open(path.join(folder, file), "wb"))
        out:write(history)
        out:close()
    end
    local answers, at = {}, 0
    for answer in (rest .. "\0"):gmatch("(%Z*)%z") do
        answers[#answers + 1] = answer
    end
    local http = { request = function()
        at = at % #answers + 1
        return { status = tonumber(answers[at]:match("^%d%d%d")) or 200, headers = {}, body = answers[at]:sub(4) }
    end }
    local function run()
        return { name = "run", dir = folder, http = http, log = silent, resumed_from = "x", start_step = 5,
                 config = { a = 1 }, config_text = text }
    end
    local tracker = try(mlflow.open, { tracking_uri = "http://127.0.0.1" }, run(), { run_id = "a" })
    if tracker then
        try(tracker.train, tracker, { step = 5, loss = 1 })
        try(tracker.finish, tracker, "finished")
    end
    local api = wandb_api.new { http = http, base_url = "http://127.0.0.1", key = "key",
                                budget = function() return 1 end }
    try(api.status, api, { id = "a" })
    local where = try(api.upsert, api, { id = "a", project = "p", config = {} })
    if where then
        try(api.stream, api, where, { history = { "{}" }, offset = 0, summary = "{}" })
    end
    local page = try(report.open, {}, run(), nil)
    try(page.sample, page, 1, text, text)
    try(page.finish, page, "finished")
end

local adapter_folder, model
local LINEAR = { class_name = "Linear" }

--- An adapter_config.json, behind a NUL a pattern of modules, behind another the names and sizes of tensors: what is
--- loaded merges, and what is refused leaves the model as it was.
function M.adapter(text)
    local settings, pattern, names = text:match("^(%Z*)%z?(%Z*)%z?(.*)$")
    if not adapter_folder then
        adapter_folder, model = os.tmpname(), tiny.model()
        os.remove(adapter_folder)
        path.mkdir_p(adapter_folder)
    end
    local matches = try(matcher.new, { target_modules = pattern })
    for _, name_of in ipairs(matches and { "model.layers.0.self_attn.q_proj", "lm_head", ("a."):rep(200) } or {}) do
        try(matches, name_of, LINEAR)
    end
    local file = assert(io.open(adapter_folder .. "/adapter_config.json", "wb"))
    file:write(settings)
    file:close()
    am.scope(function()
        local tensors = {}
        for line in names:gmatch("[^\n]+") do
            local tensor, sizes = line:match("^(.-) ([%d ]+)$")
            local shape = {}
            for size in (sizes or ""):gmatch("%d+") do
                shape[#shape + 1] = math.min(tonumber(size), 40)
            end
            tensors[tensor or line] = #shape < 4 and am.zeros(shape) or nil
        end
        if try(am.save_safetensors, adapter_folder .. "/adapter_model.safetensors", tensors) == nil then
            try(peft.load_adapter, model, adapter_folder)
            peft.merge(model)
            assert(not peft.lora_modules(model)() and model:get("lm_head").class_name == "Linear")
        end
    end)
end

local processor_folder
local SIZES = { { 1, 1 }, { 30, 40 }, { 1, 199 }, { 1500, 64 }, { 4000, 3000 } }

-- A tokenizer that has every token.
local all_tokens = { bos_token = "<s>", eos_token = "</s>", engine = { id = function() return 3 end },
                     named_token = function() return nil end }

--- A preprocessor_config.json, behind a NUL a processor_config.json: what is read plans pictures of all shapes whose
--- steps fit together, or refuses them.
function M.processor(text)
    if not processor_folder then
        processor_folder = os.tmpname()
        os.remove(processor_folder)
        path.mkdir_p(processor_folder)
    end
    for stem, content in pairs { preprocessor_config = text:match("^%Z*"), processor_config = text:match("%z(.*)$") } do
        local file = assert(io.open(processor_folder .. "/" .. stem .. ".json", "wb"))
        file:write(content)
        file:close()
    end
    local processor = try(processors.AutoProcessor.from_pretrained, processor_folder, { tokenizer = all_tokens })
    for _, size in ipairs(processor and SIZES or {}) do
        local plan = try(processor.image_processor.layout, processor.image_processor, size[1], size[2], "x")
        local n = 1
        for _, side in ipairs(plan and plan.shape or {}) do n = n * side end
        assert(not plan or n == plan.n_floats)
        if plan and processor.family then -- a plan has shapes that say what its image stands for
            plan.source = { name = "x" }
            try(processor.family.expand, processor, plan)
        end
        for _, step in ipairs(plan and plan.steps or {}) do
            assert(step.src >= 0 and step.src < 256 and (step.dst or 0) < 256)
            assert(step.kind == "emit" or (step.width >= 1 and step.height >= 1))
        end
    end
    local of_model = json.decode(text:match("%z(.*)$") or "")
    try(function() return processor and type(of_model) == "table" and processor:check(of_model) end)
    os.remove(processor_folder .. "/processor_config.json")
end

--- What a hub says of a repository: only names that stay in its folder are taken, and those that are chosen
--- are among them.
function M.hub(text)
    local info = try(hub_api.read_info, text, "https://hub/api/models/a/b")
    if not info then
        return
    end
    assert(hub_cache.is_commit(info.commit))
    local names = strings.sorted_keys(info.files)
    for _, file in ipairs(names) do
        assert(hub_cache.is_safe(file) and not file:find("^/") and not ("/" .. file .. "/"):find("/../", 1, true))
    end
    for _, file in ipairs(hub_model.choose(names, {})) do
        assert(info.files[file])
    end
    for _, file in ipairs((try(hub_dataset.choose, names, { where = "x" })) or {}) do
        assert(info.files[file])
    end
    try(hub_dataset.choose_converted, names, { where = "x", name = "en" })
end

local checkpoint_folder
local SHARDS = { { a = { 2, 3 }, b = { 4 } }, { a = { 1, 3 }, b = { 2 }, c = {} } }

--- A checkpoint's manifest.json, behind a NUL its files.json, behind others what two shards say of their rows: a tensor
--- that is found can be read whole, and what is consolidated has the sizes that the plan gives.
function M.checkpoint(text)
    checkpoint_folder = checkpoint_folder or os.tmpname()
    path.remove_tree(checkpoint_folder)
    local model_dir, out = path.join(checkpoint_folder, "model"), path.join(checkpoint_folder, "out")
    path.mkdir_p(path.join(model_dir, consolidation.METADATA))
    local parts = {}
    for part in (text .. "\0"):gmatch("(%Z*)%z") do
        parts[#parts + 1] = part
    end
    write(path.join(checkpoint_folder, "manifest.json"), parts[1])
    write(path.join(model_dir, consolidation.METADATA, "files.json"), parts[2] or "")
    try(checkpoint.manifest.check, checkpoint_folder, function(file) return not file:find("out") end, 0, 1)
    am.scope(function()
        for k, shapes in ipairs(SHARDS) do
            local tensors = {}
            for name_of, shape in pairs(shapes) do
                tensors[name_of] = am.zeros(shape)
            end
            try(am.save_safetensors, path.join(model_dir, ("shard-0000%d-model-00001-of-00001.safetensors"):format(k)),
                tensors, json.encode { format = "pt", DCP_SHARDING_INFO = parts[2 + k] })
        end
        local files = checkpoint.shards.find(model_dir, "model")
        local set = #files > 0 and try(checkpoint.shards.open, files)
        for name_of, entry in pairs(set and set.entries or {}) do
            set:read(name_of, 0, entry.shape[1] or 1, am.zeros(entry.shape))
        end
        if set then
            set:close()
        end
    end)
    if try(consolidation.consolidate, model_dir, out) then
        for _, file in ipairs(path.names(out)) do
            assert(not file:find("%.safetensors$") or am.load_safetensors(path.join(out, file)))
        end
    end
end

local data_files = { ".hidden/a.jsonl", "README.md", "a.csv", "data/test-1.jsonl", "data/train-1.jsonl", "en/x.txt.gz" }
local is_data_file = {}
for _, file in ipairs(data_files) do
    is_data_file[file] = true
end

--- A data set's README: the files that it chooses are files that there are, each once.
function M.card(text)
    for _, split in ipairs { "train", "test" } do
        local seen = {}
        local files = try(hub_dataset.choose, data_files, { where = "x", readme = text, split = split })
        for _, file in ipairs(files or {}) do
            assert(is_data_file[file] and not seen[file], file)
            seen[file] = true
        end
    end
end

for reader, read in pairs(M) do
    M[reader] = function(text)
        local ok, e = pcall(read, text)
        if not ok then
            error(tostring(e), 0) -- C prints it
        end
    end
end

return M
