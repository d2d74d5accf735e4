-- config.json of every family with each of its fields turned into something hostile: a model is built, or an error
-- object names the field; never a Lua error, never a wait. A model that is built runs. (Weights that contradict a
-- configuration: weights_spec.lua.)

local am = require("am")
local config_fields = require("am.models.config_fields")
local edge = require("am.core.ffi")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/models/golden"
local NULL = json.null
-- Fields that families may lack, or spell otherwise.
local MORE = { "rope_scaling", "rope_theta", "head_dim", "sliding_window", "layer_types", "num_key_value_heads",
               "partial_rotary_factor", "tie_word_embeddings", "torch_dtype", "attention_bias" }
-- What an error may name instead: the family's own spelling, or the field that a value contradicts.
local INSTEAD = {
    architectures = { "architecture" },
    num_key_value_heads = { "num_kv_heads" },
    num_local_experts = { "num_experts" },
    num_experts = { "num_experts_per_tok" },
    num_attention_heads = { "rope_scaling" },
    num_hidden_layers = { "layer_types" },
    hidden_size = { "head_dim", "rope_scaling" },
    head_dim = { "rope_scaling" },
    hidden_act = { "activation" },
    rope_parameters = { "rope_scaling", "rope_theta", "rotary_emb_base", "rotary_pct", "partial_rotary_factor" },
    dtype = { "torch_dtype" },
    torch_dtype = { "dtype" },
}

local function hostile()
    return { NULL, -1, 0, 1, 3, 1.5, 1e9, 1e300, 0 / 0, math.huge, -math.huge, "x", "12", true, false, {}, { 1, 2 },
             { a = 1 }, { full_attention = 1 }, { rope_type = "yarn" }, { rope_type = 7, rope_theta = "x" },
             { rope_type = "yarn", factor = 2, attention_factor = true },
             { rope_type = "longrope", factor = -1, short_factor = { "a" } }, { { { {} } } } }
end

-- Fields that models read; others may be anything.
local READ = {}
for _, name in ipairs(config_fields.sizes) do
    READ[name] = true
end
for name in pairs(config_fields.kinds) do
    READ[name] = true
end

local function shown(v)
    return type(v) == "table" and v ~= NULL and json.encode(v) or v == NULL and "null" or tostring(v)
end

local function fields_of(case)
    return json.decode(assert(path.read_file(path.join(ROOT, case, "config.json"), 1e6)))
end

-- nil when an outcome is as it should be, else what is wrong with it.
local function problem(ok, e, field)
    if ok or tiny.misbehaved(ok, e) then
        return tiny.misbehaved(ok, e)
    end
    for _, name in ipairs { field, unpack(INSTEAD[field] or {}) } do
        if tostring(e):find(name, 1, true) then
            return nil
        end
    end
    return "the error does not name it: " .. tostring(e)
end

-- A model of small sizes runs, forward and back.
local function runs(c)
    am.scope(function()
        local model = am.AutoModelForCausalLM.from_config(c, { torch_dtype = "float32" })
        local ids = { { unpack({ 0, 0, 0 }, 1, math.min(3, am.models.position_limit(model.config))) } }
        local out = model:train():forward { input_ids = ids, labels = ids }
        out.loss:backward()
        model:close()
    end)
end

local function is_small(model)
    local n = 0
    for _, _, slot in model:parameter_slots() do
        local size = 1
        for _, d in ipairs(slot.shape) do
            size = size * d
        end
        n = n + size
    end
    return n < 50000
end

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share

for _, case in ipairs(path.names(ROOT)) do
    describe("a config.json of " .. case, function()
        local names, list = {}, {}
        for name in pairs(fields_of(case)) do
            names[name] = true
        end
        for _, name in ipairs(MORE) do
            names[name] = true
        end
        for name in pairs(names) do
            list[#list + 1] = name
        end
        table.sort(list)

        it("with one field broken is refused by its name, or is a model that runs", function()
            local problems = {}
            for _, field in ipairs(list) do
                for _, value in ipairs(hostile()) do
                    local c = fields_of(case)
                    c[field] = value
                    local start = os.clock()
                    local ok, result = pcall(am.models.structure, c)
                    local wrong = problem(ok, result, field)
                    if ok and READ[field] and is_small(result) then
                        ok, result = pcall(runs, c)
                        wrong = problem(ok, result, field)
                    end
                    if not wrong and os.clock() - start > 2 then
                        wrong = "it takes " .. os.clock() - start .. " s"
                    end
                    problems[#problems + 1] = wrong and string.format("%s = %s: %s", field, shown(value), wrong)
                end
            end
            assert.equal("", table.concat(problems, "\n"))
        end)
    end)
end
