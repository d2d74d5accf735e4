-- Work that is recorded as CUDA graphs: what a record does and what can be none (am.core.graph), and the recipe with
-- compile.mode: reduce-overhead. Skipped, counted, where AMLUA_CUDA names no module; over the emulated CUDA in any
-- order of streams.

local ffi = require("ffi")
local am = require("am")
local edge = require("am.core.ffi")
local graph = require("am.core.graph")
local graphs = require("am.training.graphs")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")

ffi.cdef [[
void am_emu_set(const char *name, const char *value);
int cudaMalloc(void **p, size_t bytes);
int cudaMemGetInfo(size_t *left, size_t *total);
]]

local module = os.getenv("AMLUA_CUDA")
local emulated, emulator = pcall(function()
    local lib = ffi.load(module)
    return lib.am_emu_set and lib
end)

-- it(), in any order of streams that is legal.
local function on_gpu(name, fn)
    it(name, function()
        if not module then
            pending("AMLUA_CUDA names no module")
            return
        end
        local function streams(order)
            if emulated then
                emulator.am_emu_set("AM_EMU_STREAMS", order)
            end
        end
        streams("rand")
        local ok, e = pcall(fn)
        streams("eager")
        if not ok then
            error(e, 0)
        end
    end)
end

-- The same where the GPU does what it is told: it fails, or has little memory.
local function on_emulator(name, fn)
    on_gpu(name, emulated and fn or function() pending("a GPU is not told what to do") end)
end

local function bits(t)
    local values, n = t:detach():to("float64"):to_buffer()
    local words = {}
    for i = 0, n - 1 do
        words[i + 1] = ("%.17g"):format(values[i])
    end
    return table.concat(words, " ")
end

-- A layer with dropout, its weight and an input.
local function layer()
    am.manual_seed(3)
    local x = am.rand({ 5, 8 }, { device = "cuda" })
    local w = am.rand({ 4, 8 }, { device = "cuda" })
    w.requires_grad = true
    local function work(input)
        local sum = am.ops.dropout(am.ops.linear(input, w):silu(), 0.5):sum()
        sum:backward()
        return sum
    end
    work(x):release() -- from here on there is a buffer for the gradient
    w.grad = nil
    return x, w, work
end

-- A function that does the work and keeps nothing.
local function alone(work, x)
    return function() am.scope(function() work(x) end) end
end

describe("a graph", function()
    on_gpu("does what was recorded, with other inputs, gradients added and fresh random numbers", function()
        local x, w, work = layer()
        local parameters, out = graph.parameters { w }, am.zeros({}, { device = "cuda" })
        local fixed = x:clone()
        local function recorded() am.scope(function() am.no_grad(out.copy_, out, work(fixed):detach()) end) end

        local function expected(seed)
            am.manual_seed(seed)
            w.grad = nil
            local list = {}
            for i = 1, 4 do
                local value = am.scope(function() return work(x * i) end)
                list[i] = bits(value) .. " | " .. bits(w.grad)
            end
            return list
        end
        local plain = expected(7)

        am.manual_seed(7)
        w.grad = nil
        local first = graph.new(parameters)
        am.no_grad(fixed.copy_, fixed, x)
        assert.is_nil(first:rehearse(recorded))
        assert.equal(plain[1], bits(out) .. " | " .. bits(w.grad))
        local state = graph.state(parameters)
        am.no_grad(fixed.copy_, fixed, x * 2)
        assert.is_nil(first:record(recorded))
        assert.equal(state, graph.state(parameters)) -- a record changes nothing
        for i = 2, 4 do
            am.no_grad(fixed.copy_, fixed, x * i)
            first:run()
            local junk = am.full({ 4096 }, i, { device = "cuda" }) -- goes where it likes
            assert.equal(plain[i], bits(out) .. " | " .. bits(w.grad))
            junk:release()
        end
        first:release()
    end)

    on_gpu("tells what no record can do, and leaves the host as it was", function()
        local x, w, work = layer()
        local parameters, kept, seed = graph.parameters { w }, {}, 8
        local unfit = {
            { "the host reads a tensor", function() work(x):item() end },
            { "the host writes a tensor", function() am.tensor({ 1, 2 }, { device = "cuda" }) work(x) end },
            { "it fills a tensor at random", function() work(am.rand({ 5, 8 }, { device = "cuda" })) end },
            { "it leaves tensors behind", function() kept[#kept + 1] = am.escape(work(x):detach()) end },
            { "it seeds the random generator", function()
                seed = seed + 1
                am.manual_seed(seed)
                work(x)
            end },
        }
        for _, case in ipairs(unfit) do
            local said, what = unpack(case)
            local g = graph.new(parameters)
            assert.equal(said, g:rehearse(function() am.scope(function() what() end) end))
            local state = graph.state(parameters)
            assert.equal(said, g:record(function() am.scope(function() what() end) end))
            assert.equal(state, graph.state(parameters))
            assert.error_matches(function() g:run() end, "no record")
            g:release()
        end
        for _, t in ipairs(kept) do
            t:release()
        end
    end)

    on_gpu("needs no memory that its rehearsal did not", function()
        local x, w, work = layer()
        local g = graph.new(graph.parameters { w })
        assert.is_nil(g:rehearse(alone(work, x)))
        local large = am.rand({ 512, 8 }, { device = "cuda" })
        assert.equal("it needs memory that it did not need before", g:record(alone(work, large)))
        assert.is_nil(g:record(alone(work, x))) -- and then it is recorded
        g:run()
        g:release()
    end)

    on_emulator("has room made for its rehearsal by memory that waits for others", function()
        local x, w, work = layer()
        local parameters, sizes = graph.parameters { w }, ffi.new("size_t[2]")
        local g, before = graph.new(parameters), graph.new(parameters)
        assert.is_nil(before:rehearse(alone(work, x))) -- now there is scratch memory
        before:release()
        am.full({ 2 ^ 20 }, 1, { device = "cuda" }):release()
        assert.equal(0, emulator.cudaMemGetInfo(sizes, sizes + 1))
        local used, total = tonumber(sizes[1] - sizes[0]), tostring(tonumber(sizes[1]))
        emulator.am_emu_set("AM_EMU_MEMORY", tostring(used + 2 ^ 21))
        local function large() am.full({ 2 ^ 20 }, 1, { device = "cuda" }):release() alone(work, x)() end
        local ok, unfit = pcall(g.rehearse, g, large)
        emulator.am_emu_set("AM_EMU_MEMORY", total)
        assert(ok, unfit)
        assert.is_nil(unfit)
        assert.is_nil(g:record(large))
        g:run()
        g:release()
    end)

    on_emulator("is none where a call spoils the record, and the device goes on", function()
        local x, w, work = layer()
        local g, p = graph.new(graph.parameters { w }), ffi.new("void *[1]")
        assert.is_nil(g:rehearse(alone(work, x)))
        local unfit = g:record(function()
            assert(emulator.cudaMalloc(p, 64) ~= 0) -- no call for a record
            alone(work, x)()
        end)
        assert(unfit:find("captur", 1, true), unfit)
        work(x):item()
        g:release()
    end)

    on_gpu("neither runs while another is made nor leaves it open when it goes", function()
        local x, w, work = layer()
        local parameters = graph.parameters { w }
        local first, second, third = graph.new(parameters), graph.new(parameters), graph.new(parameters)
        assert.is_nil(first:rehearse(alone(work, x)))
        assert.is_nil(first:record(alone(work, x)))
        assert.error_matches(function() second:rehearse(function() first:run() end) end, "no other can run")
        edge.check(edge.C.am_graph_begin(second.handle, 1))
        second:release()
        assert.is_nil(third:rehearse(alone(work, x)))
        first:run()
        first:release()
        third:release()
    end)

    on_gpu("has scratch memory of its own", function()
        local w = am.rand({ 64, 8 }, { device = "cuda" })
        w.requires_grad = true
        local function rows(n)
            local list = {}
            for i = 1, n do
                list[i] = (i * 37) % 64
            end
            return am.tensor(list, { dtype = "int32", device = "cuda" })
        end
        local function work(ids) am.ops.embedding(ids, w):sum():backward() end
        local few, many = rows(2000), rows(200000) -- sorted in scratch memory
        work(few)
        local once = bits(w.grad)
        w.grad = nil
        local g = graph.new(graph.parameters { w })
        assert.is_nil(g:rehearse(alone(work, few)))
        w.grad = nil
        assert.is_nil(g:record(alone(work, few)))
        work(many) -- which needs more of it
        w.grad = nil
        local function fill(n)
            local list = {}
            for i = 1, n do
                list[i] = am.full({ 2 ^ 18 }, 7, { device = "cuda" })
            end
            return list
        end
        for _, t in ipairs(fill(80)) do -- the emulated GPU takes memory again once 64 other blocks were given back
            t:release()
        end
        edge.check(edge.C.am_mem_trim(edge.C.am_tensor_device(w)))
        local others = fill(16) -- where it was, if it was given back
        g:run()
        assert.equal(once, bits(w.grad))
        for _, t in ipairs(others) do
            assert.equal(7, t:amin():item())
            assert.equal(7, t:amax():item())
        end
        g:release()
    end)

    on_gpu("is taken back by an error in the work", function()
        local x, w, work = layer()
        local parameters = graph.parameters { w }
        local g = graph.new(parameters)
        assert.is_nil(g:rehearse(alone(work, x)))
        w.grad = nil
        local state = graph.state(parameters)
        assert.error_matches(function() g:record(function()
            am.scope(function() work(x) end)
            error("oh", 0)
        end) end, "oh")
        assert.equal(state, graph.state(parameters))
        local other = graph.new(parameters)
        assert.is_nil(other:rehearse(alone(work, x)))
        g:release()
        other:release()
    end)

    on_gpu("has a rehearsal that failed undone, but for gradients that were added to", function()
        local x, w, work = layer()
        local parameters = graph.parameters { w }
        local g = graph.new(parameters)
        local function fails()
            alone(work, x)()
            error("oh", 0)
        end
        am.manual_seed(7)
        local state = graph.state(parameters)
        assert.error_matches(function() g:rehearse(fails) end, "oh")
        assert.is_true(g:undo())
        assert.equal(state, graph.state(parameters))
        alone(work, x)()
        local found = bits(w.grad)
        am.manual_seed(7)
        w.grad = nil
        alone(work, x)()
        assert.equal(bits(w.grad), found)
        assert.error_matches(function() g:rehearse(fails) end, "oh")
        assert.is_false(g:undo())
        g:release()
    end)

    it("is none on a CPU", function()
        local w = am.rand { 2 }
        local ok, e = pcall(graph.new, graph.parameters { w })
        assert(not ok and graph.is_unsupported(e))
    end)

    on_gpu("of a shape is one of many, and the oldest go", function()
        local x, w = layer()
        local calls = 0
        local g = graphs.new({ w }, function(inputs)
            calls = calls + 1
            local sum = am.ops.linear(inputs.x, w):sum()
            sum:backward()
            return sum
        end, { info = function() end })
        local function run(rows, name) return g:run { x = x:narrow(0, 0, rows):clone(), name = name } end
        local first = run(2)
        for _ = 1, 5 do
            assert.equal(first, run(2))
        end
        assert.equal(4, calls) -- as ever with and without a gradient from before; rehearsed; recorded
        assert.equal(3, g.runs)
        for i = 1, 80 do -- more than are remembered
            run(3, tostring(i))
        end
        assert.equal(64, g.count)
        calls = 0
        assert.equal(first, run(2))
        assert.equal(1, calls)
        g:close()
        assert.equal(0, g.count)
    end)
end)

-- ---- the recipe -------------------------------------------------------------------------------

local REDUCE = { compile = { enabled = true, mode = "reduce-overhead" } }

local kinds = {
    { name = "all weights", changes = {} },
    { name = "LoRA with dropout", changes = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 } } },
    { name = "packed, two micro-batches, bf16, layers computed again", changes = {
        step_scheduler = { local_batch_size = 2 }, packed_sequence = { packed_sequence_size = 48 },
        model = { torch_dtype = "bfloat16", activation_checkpointing = true },
    } },
    { name = "QLoRA", changes = {
        quantization = { load_in_4bit = true }, model = { torch_dtype = "bfloat16" },
        peft = { target_modules = "*_proj", dim = 4 },
    } },
    { name = "8 bits", changes = { fp8 = { enabled = true } } },
    { name = "float16 with a loss scale", changes = {
        model = { torch_dtype = "float16" }, grad_scaler = { init_scale = 2 ^ 20, growth_interval = 4 },
    } },
}

-- Rows of one length, where they are not packed.
local function config(dir, changes)
    return helper.config(dir, helper.changes({
        device = "cuda", step_scheduler = { local_batch_size = 4, max_steps = 12, ckpt_every_steps = 6 },
        dataloader = { collate_fn = { _target_ = "am.datasets.default_collater", pad_seq_len_divisible = 48 } },
    }, REDUCE, changes))
end

-- Steps of a recipe, as text, and how many micro-batches were a record's.
local function steps(recipe, n)
    local list = {}
    for i = 1, n do
        local m = recipe:step()
        list[i] = ("%.17g %.17g"):format(m.loss, m.grad_norm)
    end
    local runs = recipe.graphs and recipe.graphs.runs or 0
    helper.close(recipe)
    return table.concat(list, "\n"), runs
end

describe("a run of compile.mode reduce-overhead", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        on_gpu("learns by graphs what it learns without, bit for bit: " .. kind.name, function()
            local plain = helper.recipe(config(helper.folder(), kind.changes))
            plain.graphs.off = "asked by a test"
            local expected = steps(plain, 8)
            local found, runs = steps(helper.recipe(config(helper.folder(), kind.changes)), 8)
            assert.equal(expected, found)
            assert(runs >= 3, runs .. " runs of a record") -- the number of labels makes two shapes
        end)
    end

    on_gpu("learns what one without the section does", function()
        local with = helper.recipe(config(helper.folder(), {}))
        local without = helper.recipe(config(helper.folder(), { compile = { enabled = false } }))
        assert.is_nil(without.graphs)
        for _ = 1, 10 do -- only places without a label are more in products, which may be summed otherwise
            local a, b = with:step(), without:step()
            assert(math.abs(a.loss - b.loss) <= 1e-5 * b.loss)
            assert(math.abs(a.grad_norm - b.grad_norm) <= 1e-4 * b.grad_norm)
        end
        assert(with.graphs.runs > 0)
        helper.close(with)
        helper.close(without)
    end)

    on_gpu("learns by graphs what it learns without where a hook changes modules", function()
        local changes = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 } }
        local function learned(off)
            local recipe = helper.recipe(config(helper.folder(), changes))
            recipe.graphs.off = off
            for _ = 1, 6 do
                recipe:step()
            end
            local before = recipe.graphs.runs
            for _, part in recipe.model:named_modules() do
                if part.lora_A then
                    part.scale, part.dropout = part.scale / 4, 0.5
                end
            end
            local losses, runs = steps(recipe, 6)
            return losses, before, runs
        end
        local expected = learned("asked by a test")
        local found, before, runs = learned()
        assert.equal(expected, found)
        assert(0 < before and before < runs)
    end)

    on_gpu("goes on from its checkpoint as if it had not stopped", function()
        local changes = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 } }
        local whole, halves = helper.folder(), helper.folder()
        helper.train_here(config(whole, changes))
        helper.train_here(config(halves, helper.changes(changes, { step_scheduler = { max_steps = 6 } })))
        helper.train_here(config(halves, changes))
        assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(halves),
                                                   "optim/lr_scheduler.json")) -- which tells of max_steps
    end)

    on_emulator("ends with its last checkpoint when a kernel of a graph fails, and goes on from it", function()
        local whole, broken = helper.folder(), helper.folder()
        local changes = { step_scheduler = { global_batch_size = 2, local_batch_size = 1 }, -- one shape for all
                          packed_sequence = { packed_sequence_size = 48 } }
        helper.train_here(config(whole, changes))
        local file = helper.yaml(helper.folder(), config(broken, changes))
        local rc, _, errors = helper.run({ "tests/cuda/failing.lua", file }, { before = "STEP=10 FAIL=launch:40" })
        assert.equal(1, rc, errors)
        assert(errors:find("running a graph: unspecified launch failure", 1, true), errors)
        assert(errors:find("The checkpoint " .. helper.latest(broken) .. " is whole", 1, true), errors)
        rc, _, errors = helper.train(config(broken, changes))
        assert.equal(0, rc, errors)
        assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(broken)))
    end)

    on_gpu("says why it has no graphs, and goes on", function()
        for said, changes in pairs {
            ["qat rounds from a step on"] = { qat = { enabled = true, qat_config = { groupsize = 4 } } },
            ["neftune's noise goes by the length of rows"] = { neftune = { noise_alpha = 5 } },
            ["optimizer.fuse_backward updates weights in backward"] = { optimizer = { fuse_backward = true },
                                                                        clip_grad_norm = { max_norm = json.null } },
        } do
            helper.log = ""
            local recipe = helper.recipe(config(helper.folder(), changes))
            assert.is_nil(recipe.graphs)
            assert(helper.log:find("reduce-overhead without CUDA graphs: " .. said, 1, true), helper.log)
            recipe:step()
            helper.close(recipe)
        end
        helper.log = ""
        local recipe = helper.recipe(config(helper.folder(), { model = { attention_dropout = 0.1 } }))
        local _, runs = steps(recipe, 6)
        assert.equal(0, runs)
        assert(helper.log:find("attention drops probabilities out", 1, true), helper.log)
    end)

    on_emulator("goes on without where there is no memory for them, as if it had begun so", function()
        local changes = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 } }
        local last = {} -- with graphs, without
        for i, with in ipairs { changes, helper.changes(changes, { compile = { enabled = false } }) } do
            local rc, out, errors = helper.train(config(helper.folder(), with), nil, { before = "AM_EMU_MEMORY=44M" })
            assert.equal(0, rc, out .. errors)
            assert.equal(i == 1, errors:find("no CUDA graphs: ", 1, true) ~= nil, errors)
            last[i] = errors:match("step 11 | epoch %d+ | loss [%d.]+ | grad_norm [%d.]+")
        end
        assert.equal(assert(last[1]), last[2])
    end)

    on_gpu("leaves a recipe what it computes in its own way", function()
        local parent = require("recipes.llm_finetune")
        for _, name in ipairs { "batch_gradients", "own_tokens", "objective" } do
            local Mine, calls = parent:extend("mine"), 0
            Mine[name] = function(self, ...)
                calls = calls + 1
                return parent[name](self, ...)
            end
            local recipe = Mine.new(helper.yaml(helper.folder(), config(helper.folder(), {})))
            recipe:setup()
            assert.is_nil(recipe.graphs)
            recipe:step()
            assert.equal(1, calls)
            helper.close(recipe)
        end
    end)

    on_gpu("goes on without where each kernel is waited for", function()
        local rc, _, errors = helper.train(config(helper.folder(), {}), nil, { before = "AM_SYNC=1" })
        assert.equal(0, rc, errors)
        assert(errors:find("no CUDA graphs: with AM_SYNC=1", 1, true), errors)
    end)
end)
