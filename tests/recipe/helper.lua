-- What the functional suites share: temporary folders, configurations, running amlua as a user does
-- or a recipe in this process, and comparing runs and checkpoints bit by bit. Holds no tests.

local ffi = require("ffi")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

M.amlua = os.getenv("AMLUA_BIN") or os.getenv("AMLUA") or "build/amlua"
M.finetune = "recipes/llm_finetune.lua"
M.tiny = "tests/parity/golden/tiny_llama/gqa" -- f32, 2 layers, 32 wide, 67 tokens, 64 positions

-- ---- files ----------------------------------------------------------------------------------

local made = {}
local root = path.is_dir("/dev/shm") and "/dev/shm" or "/tmp" -- syncing costs nothing in memory

--- A new empty folder; M.cleanup() removes all of them.
function M.folder()
    local name = path.unique(root .. "/amlua-test")
    made[#made + 1] = path.mkdir_p(name)
    return name
end

function M.cleanup()
    for _, dir in ipairs(made) do
        path.remove_tree(dir)
    end
    made = {}
end

--- Write a file, with its folder, and return its name.
function M.write(name, text)
    path.mkdir_p(path.dirname(name))
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
    return name
end

--- A whole file, or nil.
function M.read(name)
    local file = io.open(name, "rb")
    local text = file and file:read("*a")
    if file then
        file:close()
    end
    return text
end

--- Copy a folder with all that is in it.
function M.copy(from, to)
    assert(os.execute(string.format("cp -a '%s' '%s'", from, to)) == 0)
    return to
end

--- A copy of a model directory (or another) with fields of config.json (or another file) changed;
--- false removes one.
function M.model(changes, from, name)
    local dir = M.copy(from or M.tiny, M.folder() .. "/model")
    local file = dir .. "/" .. (name or "config.json")
    local fields = json.decode(M.read(file))
    for key, value in pairs(changes or {}) do
        fields[key] = value ~= false and value or nil
    end
    M.write(file, json.encode(fields, { indent = 2 }))
    return dir
end

--- A small random model with a byte-level tokenizer of 4235 tokens and a chat template.
function M.text_model()
    local am, dir = require("am"), M.folder()
    am.manual_seed(5)
    am.AutoModelForCausalLM.from_config {
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 32, intermediate_size = 64,
        num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 4240,
        max_position_embeddings = 256, rms_norm_eps = 1e-5, tie_word_embeddings = true,
    }:save_pretrained(dir)
    M.copy("tests/parity/golden/tokenizers/gpt2/tokenizer.json", dir)
    M.write(dir .. "/tokenizer_config.json", json.encode {
        eos_token = "<|endoftext|>",
        chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
            .. "{% if add_generation_prompt %}<assistant>{% endif %}",
    })
    return dir
end

--- The records of a .jsonl file.
function M.jsonl(name)
    local records = {}
    for line in (M.read(name) or ""):gmatch("[^\n]+") do
        records[#records + 1] = assert(json.decode(line))
    end
    return records
end

-- ---- configurations -------------------------------------------------------------------------

local function merge(into, from)
    for key, value in pairs(from) do
        if type(value) == "table" and type(into[key]) == "table" and not json.is_array(value) then
            merge(into[key], value)
        else
            into[key] = value
        end
    end
    return into
end

--- A small full fine-tuning of the tiny model on random sentences, with `changes` merged in; a
--- section set to false is left out. `dir` is its checkpoint_dir.
function M.config(dir, changes)
    local cfg = merge({
        seed = 11,
        step_scheduler = { global_batch_size = 4, local_batch_size = 2, max_steps = 6, ckpt_every_steps = 100,
                           save_checkpoint_every_epoch = false },
        model = { _target_ = "am.AutoModelForCausalLM.from_pretrained", pretrained_model_name_or_path = M.tiny },
        dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 24, vocab_size = 67,
                    mean_len = 14, max_sentence_len = 40 },
        optimizer = { _target_ = "am.optim.AdamW", lr = 1e-2 },
        checkpoint = { checkpoint_dir = dir, save_consolidated = false },
    }, changes or {})
    for key, value in pairs(cfg) do
        if value == false then
            cfg[key] = nil
        end
    end
    return cfg
end

--- LoRA with everything random switched on: dropout, attention dropout, shuffling, packing.
M.lora = {
    model = { attention_dropout = 0.1 },
    peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 },
    packed_sequence = { packed_sequence_size = 48 },
}

--- `changes` of several tables, later ones win.
function M.changes(...)
    local out = {}
    for _, set in ipairs { ... } do
        merge(out, json.decode(json.encode(set))) -- a copy: the sets are shared
    end
    return out
end

--- Write a configuration (JSON is YAML) and return the file's name.
function M.yaml(dir, cfg)
    return M.write(path.join(dir, "config.yaml"), json.encode(cfg, { indent = 2 }) .. "\n")
end

-- ---- running --------------------------------------------------------------------------------

local function quote(word)
    return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end
M.quote = quote

--- Run a shell command; returns its exit status (128 + n when signal n ended it), stdout and stderr.
function M.shell(command)
    local dir = M.folder()
    local out, errors, rc = dir .. "/out", dir .. "/err", dir .. "/rc"
    os.execute(string.format("{ %s ; } >%s 2>%s </dev/null; echo $? >%s", command, out, errors, rc))
    return tonumber(M.read(rc)), M.read(out), M.read(errors)
end

local function words(args)
    local out = {}
    for i, word in ipairs(args) do
        out[i] = quote(word)
    end
    return table.concat(out, " ")
end

--- Run amlua with words; opts.before is shell put in front (a variable, ulimit). A run that hangs
--- ends after opts.limit (60) seconds with status 124.
function M.run(args, opts)
    opts = opts or {}
    return M.shell(string.format("%s timeout %d %s %s", opts.before or "", opts.limit or 60, quote(M.amlua),
                                 words(args)))
end

--- Run the fine-tuning recipe on a configuration table, with overrides as words.
function M.train(cfg, overrides, opts)
    local file = M.yaml(M.folder(), cfg)
    return M.run({ M.finetune, file, unpack(overrides or {}) }, opts)
end

--- Start a command in the background: { pid, out, stop(signal), running(), wait() -> exit status }.
function M.start(args, before)
    local dir = M.folder()
    local self = { out = dir .. "/out" }
    -- the shell stays, to note the exit status; exec makes the child's id amlua's own. An interactive
    -- shell's jobs do not ignore SIGINT, others do.
    M.write(dir .. "/run.sh", string.format(
        "trap - INT\n%s\n(exec %s %s) >%s 2>&1 </dev/null &\necho $! >%s/pid\nwait $!\necho $? >%s/rc\n",
        before or "", quote(M.amlua), words(args), self.out, dir, dir))
    os.execute(string.format("bash -c 'set -m; . %s/run.sh' >/dev/null 2>&1 &", dir))
    M.until_true(function() return (M.read(dir .. "/pid") or ""):match("\n") end, 10, "the program to start")
    self.pid = tonumber(M.read(dir .. "/pid"))
    function self.running() return not (M.read(dir .. "/rc") or ""):match("\n") end
    function self.stop(signal) return os.execute(string.format("kill -%s %d 2>/dev/null", signal, self.pid)) == 0 end
    function self.wait(seconds)
        M.until_true(function() return not self.running() end, seconds or 60, "the program to end")
        return tonumber(M.read(dir .. "/rc"))
    end
    return self
end

function M.sleep(seconds)
    os.execute(string.format("sleep %.3f", seconds))
end

--- Wait until check() is true; fails after `seconds`.
function M.until_true(check, seconds, what)
    local start = posix.time()
    while not check() do
        if posix.time() - start > seconds then
            error("waited " .. seconds .. " s for " .. what, 2)
        end
        M.sleep(0.02)
    end
end

--- What recipes in this process logged since it was last set to "".
M.log = ""

--- A recipe in this process, set up: that of fine-tuning, or another file's under recipes/.
function M.recipe(cfg, file)
    require("am.utils.log").setup {
        level = "info", color = false,
        stream = { write = function(_, ...) M.log = M.log .. table.concat({ ... }) end },
    }
    local name = (file or M.finetune):gsub("%.lua$", ""):gsub("/", ".")
    local recipe = require(name).new(M.yaml(M.folder(), cfg))
    recipe:setup()
    return recipe
end

--- Free what a recipe holds.
function M.close(recipe)
    recipe:close_logs()
    recipe.model:close()
    recipe.optimizer:close()
end

--- Train in this process to the end, by a recipe's file (M.finetune).
function M.train_here(cfg, file)
    local recipe = M.recipe(cfg, file)
    recipe:train()
    M.close(recipe)
end

-- ---- comparing ------------------------------------------------------------------------------

--- What must be the same in two runs' training.jsonl, in order, as text.
function M.curve(dir)
    local lines = {}
    for i, r in ipairs(M.jsonl(path.join(dir, "training.jsonl"))) do
        lines[i] = string.format("%d %d %.17g %.17g %.17g %d %d", r.step, r.epoch, r.loss, r.grad_norm, r.lr,
                                 r.num_label_tokens, r.num_tokens_per_step)
    end
    return lines
end

--- {name -> bytes} of a safetensors file's tensors.
function M.tensors(file)
    local archive, out = io_core.open(file), {}
    for _, name in ipairs(archive:names()) do
        local t = archive:get(name)
        local info = archive:info(name)
        local bytes = t:numel() * ffi.sizeof(({ float32 = "float", float64 = "double", bfloat16 = "short",
                                                float16 = "short", int32 = "int" })[info.dtype])
        local buffer = ffi.new("char[?]", math.max(bytes, 1))
        require("am.core.ffi").check(require("am.core.ffi").C.am_tensor_read(t, buffer, bytes))
        out[name] = table.concat(info.shape, ",") .. " " .. info.dtype .. " " .. ffi.string(buffer, bytes)
        t:release()
    end
    archive:close()
    return out
end

--- Files under a folder, as sorted relative names.
function M.tree(dir)
    local out = {}
    local function walk(sub)
        for _, name in ipairs(path.list_dir(path.join(dir, sub)) or {}) do
            local relative = sub == "" and name or sub .. "/" .. name
            if path.is_dir(path.join(dir, relative)) and not path.is_link(path.join(dir, relative)) then
                walk(relative)
            else
                out[#out + 1] = relative
            end
        end
    end
    walk("")
    table.sort(out)
    return out
end

--- The folder that LATEST names.
function M.latest(dir)
    local target = posix.readlink(path.join(dir, "LATEST"))
    return target and path.join(dir, target)
end

--- nil when two checkpoints hold the same, else what differs. The configuration may differ, and the
--- file `other`.
function M.checkpoint_difference(a, b, other)
    local in_a, in_b = M.tree(a), M.tree(b)
    if table.concat(in_a, "\n") ~= table.concat(in_b, "\n") then
        return "files:\n" .. table.concat(in_a, "\n") .. "\nand\n" .. table.concat(in_b, "\n")
    end
    for _, name in ipairs(in_a) do
        local differs = name == "config.yaml" or name == "manifest.json" -- which has the former's checksum
        if not differs and name ~= other and M.read(path.join(a, name)) ~= M.read(path.join(b, name)) then
            return name
        end
    end
    return nil
end

--- The instruction sets of this CPU by AMLUA_ISA's names, its best first.
function M.instruction_sets()
    local best, out = ffi.string(require("am.core.ffi").C.am_cpu_isa_available()), {}
    for _, name in ipairs { "amx", "avx512_bf16", "avx512", "avx2", "generic" } do
        if name == best or #out > 0 then
            out[#out + 1] = name
        end
    end
    return out
end

--- Nil when a run ended as bad input should: with that status and a message that holds every one of
--- `wanted` and no traceback; else what is wrong.
function M.refusal_problem(status, wanted, got, out, errors)
    local text = errors:match("amlua: (.*)$")
    if not text then
        return "no message:\n" .. out .. errors
    end
    for _, part in ipairs(wanted) do
        if not text:find(part, 1, true) then
            return string.format("%q is not in: %s", part, text)
        end
    end
    if errors:find("traceback", 1, true) or text:find("%.lua:%d+:") then
        return "a traceback:\n" .. errors
    end
    return got ~= status and string.format("status %s instead of %d: %s", tostring(got), status, text) or nil
end

--- Relative difference of two numbers; NaN when one is NaN.
function M.relative(a, b)
    return math.abs(a - b) / math.max(math.abs(a), math.abs(b), 1e-300)
end

return M
