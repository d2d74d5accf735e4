-- How specs start ranks (mpirun, one thread each), and when several have learnt what one has. Holds no tests.
local assert = require("luassert")
local busted = require("busted")
local environment = require("tests.support.environment")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local M = {}

--- Can ranks be started? Needs mpirun and a build with MPI.
M.can_run = os.execute("command -v mpirun >/dev/null 2>&1") == 0
    and path.is_file(path.join(path.dirname(helper.amlua), "amlua_mpi.so"))

--- Can they meet over Gloo?
M.has_gloo = path.is_file(path.join(path.dirname(helper.amlua), "amlua_gloo.so"))

--- A block of tests (busted's describe) that start ranks; pending, and so counted, where none can be started.
function M.describe(what, fn)
    busted.describe(what, function()
        if not M.can_run then
            busted.pending("there is no mpirun, or no amlua_mpi.so")
            return
        end
        busted.teardown(helper.cleanup)
        fn()
    end)
end

--- The same with a GPU for each of up to four ranks, over the emulated CUDA; pending where AMLUA_CUDA names no module.
function M.describe_on_gpus(what, fn)
    M.describe(what, function()
        if not os.getenv("AMLUA_CUDA") then
            busted.pending("AMLUA_CUDA names no module")
            return
        end
        busted.before_each(function() environment.set { AM_EMU_DEVICES = "4" } end)
        busted.after_each(environment.restore)
        fn()
    end)
end

--- Changes to a configuration, with a section `distributed`.
function M.with(distributed, changes)
    return helper.changes({ distributed = distributed }, changes or {})
end

--- Overrides of a run of so many steps in a folder.
function M.words(dir, steps, more)
    return { "--checkpoint.checkpoint_dir", dir, "--step_scheduler.max_steps", tostring(steps), unpack(more or {}) }
end

--- Shell words in front of a command that start it n times.
function M.mpirun(n)
    return "OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        .. "mpirun --oversubscribe -n " .. n
end

--- The same for a program whose ranks use tests/dist/meeting.lua.
function M.meeting(n)
    return "AMLUA_MEETING=" .. helper.folder() .. " " .. M.mpirun(n)
end

--- Run a recipe (llm_finetune.lua) on n ranks, one thread each; as train.
function M.run(n, cfg, overrides, recipe)
    local words = { recipe or helper.finetune, helper.yaml(helper.folder(), cfg), unpack(overrides or {}) }
    local status, out, errors = helper.run(words, { before = n > 1 and M.mpirun(n) or nil, limit = 100 })
    assert.equal(0, status, out .. errors)
    local dir = cfg.checkpoint.checkpoint_dir
    local records = helper.jsonl(dir .. "/training.jsonl")
    records.validation = helper.jsonl(dir .. "/validation.jsonl")
    return records, dir, errors
end

--- Train the recipe on n ranks; the records of training.jsonl (with those of validation.jsonl as their `validation`),
--- the folder, and what was printed. changes: to the tests' configuration (tests/recipe/helper.lua).
function M.train(n, changes, overrides)
    local dir = helper.folder()
    local cfg = helper.config(dir, helper.changes({
        step_scheduler = { global_batch_size = 8, local_batch_size = 2, max_steps = 20, val_every_steps = 7 },
        validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 7, vocab_size = 67,
                               mean_len = 14, max_sentence_len = 40 },
    }, changes or {}))
    return M.run(n, cfg, overrides)
end

-- Of f32 sums in another order: 20 steps with a learning rate of 1e-2 let it grow.
local LOSS, NORM, LATER = 1e-6, 1e-5, 2e-5

local function close(a, b, tolerance, what)
    assert.is_true(math.abs(a - b) <= tolerance * math.max(1, math.abs(a)),
        ("%s: %.9g and %.9g differ by more than %g"):format(what, a, b, tolerance))
end

--- Fail unless records of training.jsonl are those of one rank, as far as sums in another order are. later: how far
--- losses behind the first may be off, for what rounds more.
function M.compare(one, many, later)
    later = later or LATER
    assert.equal(#one, #many)
    close(one[1].loss, many[1].loss, LOSS, "the first loss")
    close(one[1].grad_norm, many[1].grad_norm, NORM, "the first gradient norm")
    for i, r in ipairs(one) do
        close(r.loss, many[i].loss, later, "loss of step " .. i)
        assert.equal(r.num_label_tokens, many[i].num_label_tokens)
        assert.equal(r.num_tokens_per_step, many[i].num_tokens_per_step)
    end
    for i, r in ipairs(many.validation and one.validation or {}) do
        close(r.val_loss, many.validation[i].val_loss, later, "validation loss of step " .. r.step)
        assert.equal(r.num_label_tokens, many.validation[i].num_label_tokens)
    end
end

--- All of a folder's tensors, of its safetensors files: { name = bits }.
function M.bits(dir)
    local out = {}
    for _, name in ipairs(helper.tree(dir)) do
        if name:find("%.safetensors$") then
            for key, t in pairs(io_core.load_safetensors(path.join(dir, name))) do
                out[name .. " " .. key] = tiny.bits(t)
            end
        end
    end
    return out
end

return M
