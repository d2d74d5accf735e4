-- SIGTERM and Ctrl-C: the run saves its full state within a step and ends; going on equals a run that
-- was never interrupted. A second Ctrl-C ends it at once.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

-- A few hundred short steps, so that a signal lands in the middle.
local STEPS = 400

local function config(dir, changes)
    return helper.config(dir, helper.changes(helper.lora, {
        step_scheduler = { max_steps = STEPS, ckpt_every_steps = 1000 },
        dataset = { num_sentences = 60 },
        lr_scheduler = { lr_decay_style = "linear" },
    }, changes))
end

local function start(cfg)
    return helper.start({ helper.finetune, helper.yaml(helper.folder(), cfg) })
end

local function lines(dir)
    return #helper.curve(dir)
end

local function wait_for_line(dir, n)
    helper.until_true(function() return lines(dir) >= n end, 30, n .. " steps")
end

describe("signals", function()
    local unbroken = helper.folder()

    setup(function()
        local status, _, errors = helper.train(config(unbroken))
        assert(status == 0, errors)
    end)
    teardown(helper.cleanup)

    local function saved_step(dir)
        return tonumber(helper.latest(dir):match("step_(%d+)$"))
    end

    for _, case in ipairs { { "TERM", 0 }, { "INT", 130 }, { "USR1", 0 } } do
        it("save and end on SIG" .. case[1] .. " with status " .. case[2], function()
            local dir = helper.folder()
            local function config_here()
                return config(dir, { step_scheduler = { preemption_signal = { "SIGTERM", "SIG" .. case[1] } } })
            end
            local run = start(config_here())
            wait_for_line(dir, 20)
            run.stop(case[1])
            local at_signal = lines(dir)
            assert.equal(case[2], run.wait())
            local last = lines(dir)
            assert.is_true(last < STEPS, "the run was over before the signal came")
            -- the step under way may end between reading the file and the signal's arrival
            assert.is_true(last <= at_signal + 2, string.format("%d steps after the signal", last - at_signal))
            assert.equal(last - 1, saved_step(dir))
            -- in one more go, interrupted once more
            assert.matches("SIG" .. case[1] .. " ended the run; the same command goes on", helper.read(run.out))
            run = start(config_here())
            wait_for_line(dir, last + 20)
            run.stop(case[1])
            assert.equal(case[2], run.wait())
            local status, _, errors = helper.train(config(dir))
            assert.equal(0, status, errors)
            assert.same(helper.curve(unbroken), helper.curve(dir))
            assert.is_nil(helper.checkpoint_difference(helper.latest(unbroken), helper.latest(dir)))
        end)
    end

    it("save and end when the terminal goes away; a reader of the log that leaves ends nothing", function()
        local dir = helper.folder()
        local run = start(config(dir))
        wait_for_line(dir, 20)
        run.stop("HUP")
        assert.equal(0, run.wait())
        assert.equal(lines(dir) - 1, saved_step(dir))
        local status = helper.shell(string.format(
            "bash -c %s", helper.quote(string.format("set -o pipefail; '%s' %s %s 2>&1 | head -n 1", helper.amlua,
                                                     helper.finetune, helper.yaml(helper.folder(), config(dir))))))
        assert.equal(0, status)
        assert.same(helper.curve(unbroken), helper.curve(dir))
    end)

    it("leave a validation early", function()
        local dir = helper.folder()
        local run = start(config(dir, {
            step_scheduler = { val_every_steps = 3 },
            validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 200000,
                                   vocab_size = 67 },
        }))
        wait_for_line(dir, 3)
        helper.sleep(0.1) -- into the validation behind it
        run.stop("TERM")
        local before = posix.time()
        assert.equal(0, run.wait())
        assert.is_true(posix.time() - before < 5, "the validation went on")
        assert.equal(lines(dir) - 1, saved_step(dir))
        assert.same({}, helper.jsonl(path.join(dir, "validation.jsonl")))
    end)

    it("end at once on a second Ctrl-C", function()
        local dir = helper.folder()
        -- a step of 50000 micro-batches: it would take minutes
        local run = start(config(dir, { step_scheduler = { global_batch_size = 100000, max_steps = 3 },
                                        dataset = { num_sentences = 100000 }, packed_sequence = false,
                                        checkpoint = { checkpoint_dir = dir } }))
        helper.until_true(function() return helper.read(run.out):find("Trainable parameters") end, 30, "the start")
        helper.sleep(0.2)
        run.stop("INT")
        helper.sleep(0.5)
        assert.is_true(run.running(), "the first Ctrl-C waits for the step's end")
        run.stop("INT")
        local before = posix.time()
        assert.equal(130, run.wait())
        assert.is_true(posix.time() - before < 2)
        assert.is_nil(helper.latest(dir))
    end)

    -- oneDNN's f32 products use the stack pointer for other things: what a signal pushes there must go
    -- elsewhere, and only to the thread that has an elsewhere.
    it("never land on a stack that a kernel has borrowed", function()
        local script = helper.write(helper.folder() .. "/products.lua", [[
            local am, C, ffi = require("am"), require("am.core.ffi").C, require("ffi")
            ffi.cdef "struct stack { void *p; int flags; size_t size; }; int sigaltstack(void *, struct stack *);"
            C.am_threads_set(2)
            C.am_signals_watch(C.AM_SIGNALS_FLAG)
            local a, b = am.randn { 2048, 1536 }, am.randn { 1536, 576 }
            local right = am.matmul(a, b)
            local own, others = tonumber(io.open("/proc/self/stat"):read("*n")), 0
            for task in io.popen("ls /proc/" .. own .. "/task"):lines() do
                local status = io.open("/proc/" .. own .. "/task/" .. task .. "/status"):read("*a")
                local blocked = tonumber(status:match("SigBlk:%s*(%x+)"):sub(-4), 16)
                local all = 2 ^ 0 + 2 ^ 1 + 2 ^ 14 -- SIGHUP, SIGINT, SIGTERM
                assert(blocked == (tonumber(task) == own and 0 or all), task .. " blocks " .. blocked)
                others = others + (tonumber(task) == own and 0 or 1)
            end
            assert(others > 0)
            local stack = ffi.new("struct stack")
            assert(ffi.C.sigaltstack(nil, stack) == 0 and stack.size > 65536)
            os.execute("(for i in $(seq 200); do kill -TERM " .. own .. "; sleep 0.003; done; touch "
                       .. arg[1] .. ") &")
            local wrong = 0
            while not io.open(arg[1]) do
                am.scope(function() wrong = wrong + am.matmul(a, b):ne(right):any():to("int32"):item() end)
            end
            assert(C.am_signals_pending() == 15)
            print("wrong " .. wrong)]])
        local status, out, errors = helper.run { script, helper.folder() .. "/all-sent" }
        assert.equal(0, status, out .. errors)
        assert.equal("wrong 0\n", out)
    end)
end)
