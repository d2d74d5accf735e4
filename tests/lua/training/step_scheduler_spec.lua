-- am.training.step_scheduler: the matrix of epochs, steps, validation and checkpoints; batch sizes;
-- stopping; resuming.
local step_scheduler = require("am.training.step_scheduler")
local json = require("am.utils.json")
local path = require("am.utils.path")

-- A loader of `batches` numbered batches an epoch.
local function loader(batches, is_stream)
    local data = { epoch = -1, position = 0 }
    function data:set_epoch(epoch)
        if epoch ~= self.epoch then
            self.epoch, self.position = epoch, 0
        end
    end
    function data:next()
        if self.position == batches then
            return nil
        end
        self.position = self.position + 1
        return self.epoch * batches + self.position
    end
    function data:remaining()
        if not is_stream then
            return batches - self.position
        end
    end
    return data
end

local function flags(s)
    return (s:is_val_step() and "v" or "-") .. (s:is_ckpt_step() and "c" or "-")
        .. (s:is_last_step() and "l" or "-") .. (s.epoch_done and "e" or "-")
        .. (s:is_gc_step() and "g" or "-") .. (s:is_remote_logging_step() and "r" or "-")
end

local function fails(code, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    assert.equal(code, e.code)
    assert.matches(pattern, e.msg)
end

-- Runs to the end, or through step `last`; returns the trace and the saved states.
local function run(s, data, last)
    local trace, states = {}, {}
    for epoch in s:epochs() do
        for window in s:windows(data) do
            assert.equal(epoch, s.epoch)
            trace[#trace + 1] = { epoch, s.step, window, flags(s) }
            states[s.step] = { sched = s:state_dict(), epoch = data.epoch, position = data.position }
            if s.step == last then
                return trace, states
            end
        end
    end
    return trace, states
end

describe("am.training.step_scheduler", function()
    it("steps as NeMo Automodel's does", function()
        local goldens = assert(json.decode(assert(path.read_file("tests/lua/training/step_goldens.json"))))
        assert.equal(57, #goldens)
        for i, golden in ipairs(goldens) do
            local is_stream = golden.case.stream
            local opts = { batches_per_epoch = not is_stream and golden.case.batches or nil, local_batch_size = 1 }
            for key, value in pairs(golden.case) do
                if key ~= "batches" and key ~= "stream" then
                    opts[key] = value
                end
            end
            local trace = run(step_scheduler.new(opts), loader(golden.case.batches, is_stream))
            local seen = json.array()
            for _, t in ipairs(trace) do
                seen[#seen + 1] = string.format("%d %d %d %s", t[1], t[2], #t[3], t[4])
            end
            local expected = json.array()
            for _, t in ipairs(golden.steps) do
                expected[#expected + 1] = string.format("%d %d %d %s", t[1], t[2], t[3], t[4])
            end
            assert.same(expected, seen, "case " .. i)
        end
    end)

    it("works out batch sizes from either spelling", function()
        local sizes = step_scheduler.batch_sizes
        for _, case in ipairs {
            { {}, nil, 1, { 1, 32, 32 } },
            { { global_batch_size = 8, local_batch_size = 2 }, nil, 1, { 2, 4, 8 } },
            { { global_batch_size = 8, local_batch_size = 2 }, nil, 4, { 2, 1, 8 } },
            { { grad_acc_steps = 4 }, 2, 1, { 2, 4, 8 } },
            { { grad_acc_steps = 4 }, 2, 2, { 2, 4, 16 } },
            { { grad_acc_steps = 4, global_batch_size = 8 }, 2, 1, { 2, 4, 8 } },
            { { global_batch_size = 6 }, 3, 1, { 3, 2, 6 } },
            { { local_batch_size = 3, global_batch_size = 3 }, 3, 1, { 3, 1, 3 } },
        } do
            local got = sizes(case[1], case[2], case[3])
            assert.same(case[4], { got.local_batch_size, got.grad_acc_steps, got.global_batch_size })
        end
        fails("usage", "divisible", sizes, { global_batch_size = 9, local_batch_size = 2 })
        fails("usage", "divisible", sizes, { global_batch_size = 2, local_batch_size = 4 })
        fails("usage", "differ", sizes, { local_batch_size = 2 }, 4)
        fails("usage", "give only one", sizes, { grad_acc_steps = 2, global_batch_size = 9 }, 4)
        fails("usage", "dataloader.batch_size", sizes, {}, 0)
    end)

    it("refuses bad values and a stream without max_steps", function()
        for key, value in pairs {
            max_steps = 0, num_epochs = 0, ckpt_every_steps = 0, val_every_steps = -1, start_step = -1,
            global_batch_size = 1.5, local_batch_size = "2", gc_every_steps = 0, log_remote_every_steps = 0,
            start_epoch = -1, save_checkpoint_every_epoch = "yes",
        } do
            fails("usage", "step_scheduler%." .. key, step_scheduler.new, { batches_per_epoch = 1, [key] = value })
        end
        fails("usage", "max_steps is needed", step_scheduler.new, {})
        fails("usage", "no batch", step_scheduler.new, { batches_per_epoch = 0 })
    end)

    it("plans the run's length", function()
        local function total(opts)
            opts.grad_acc_steps = opts.grad_acc_steps or 1
            return step_scheduler.new(opts):total_steps()
        end
        assert.equal(70, total { batches_per_epoch = 7 })
        assert.equal(30, total { batches_per_epoch = 7, grad_acc_steps = 3 })
        assert.equal(5, total { batches_per_epoch = 7, max_steps = 5 })
        assert.equal(500, total { batches_per_epoch = 7, max_steps = 500 }) -- not cut at ten epochs
        assert.equal(14, total { batches_per_epoch = 7, max_steps = 500, num_epochs = 2 })
        assert.equal(500, total { max_steps = 500 })
    end)

    it("reads a stream of unknown length until max_steps", function()
        local data = loader(3, true)
        local s = step_scheduler.new { grad_acc_steps = 2, max_steps = 5, ckpt_every_steps = 4 }
        local trace = run(s, data)
        local seen = {}
        for i, t in ipairs(trace) do
            seen[i] = string.format("%d %d %d %s", t[1], t[2], #t[3], t[4])
        end
        assert.same({ "0 0 2 -----r", "0 1 1 -----r", "1 2 2 -----r", "1 3 1 vc---r", "2 4 2 vcl--r" }, seen)
    end)

    it("goes on from any step as the unbroken run does", function()
        local opts = {
            batches_per_epoch = 7, grad_acc_steps = 3, num_epochs = 3, val_every_steps = 2, ckpt_every_steps = 4,
        }
        local whole, states = run(step_scheduler.new(opts), loader(7))
        assert.equal(9, #whole)
        for last = 0, 8 do
            local state = states[last]
            local s, data = step_scheduler.new(opts), loader(7)
            s:load_state_dict(json.decode(json.encode(state.sched)))
            data.epoch, data.position = state.epoch, state.position
            local rest = run(s, data)
            assert.equal(#whole - last - 1, #rest)
            for i, t in ipairs(rest) do
                assert.same(whole[last + 1 + i], t)
            end
        end
    end)

    it("continues a finished run when max_steps or num_epochs is raised", function()
        for _, case in ipairs {
            { { num_epochs = 1 }, { num_epochs = 3 }, 9 },
            { { max_steps = 2 }, { max_steps = 9 }, 9 },
            { { max_steps = 3 }, { max_steps = 9, num_epochs = 2 }, 6 },
            { { max_steps = 5 }, { max_steps = 5 }, 5 },
        } do
            for _, opts in ipairs { case[1], case[2] } do
                opts.batches_per_epoch, opts.grad_acc_steps = 7, 3
            end
            local data = loader(7)
            local first = step_scheduler.new(case[1])
            local steps = #run(first, data)
            local s = step_scheduler.new(case[2])
            s:load_state_dict(first:state_dict()) -- saved after the loop
            local trace = run(s, data)
            assert.equal(case[3], steps + #trace)
            for i, t in ipairs(trace) do
                assert.equal(steps + i - 1, t[2])
            end
        end
    end)

    it("goes on to max_steps with epochs of another length", function()
        local data = loader(7)
        local first = step_scheduler.new { max_steps = 6, batches_per_epoch = 7, grad_acc_steps = 3 }
        assert.equal(6, #run(first, data)) -- two epochs
        local s = step_scheduler.new { max_steps = 12, batches_per_epoch = 7, grad_acc_steps = 1 }
        s:load_state_dict(first:state_dict())
        assert.equal(6, #run(s, data))
        assert.equal(12, s.step)
    end)

    it("checkpoints the step in which a stop is asked for and ends, without validating", function()
        local asked, polls = false, 0
        local s = step_scheduler.new {
            batches_per_epoch = 4, grad_acc_steps = 1, val_every_steps = 1, ckpt_every_steps = 100,
            stop_requested = function() polls = polls + 1; return asked end,
        }
        local seen = {}
        for _ in s:epochs() do
            for _ in s:windows(loader(4)) do
                local questions = flags(s)
                if s.step == 1 then
                    asked = true -- after this step's questions: it must not end without a checkpoint
                end
                seen[#seen + 1] = questions .. flags(s)
            end
        end
        assert.same({ "v----rv----r", "v----rv----r", "-c---r-c---r" }, seen)
        assert.equal(3, polls)
        assert.same({ step = 3, epoch = 0, validation_due = true }, s:state_dict())
    end)

    it("forgets what it did before a state was loaded", function()
        local s = step_scheduler.new {
            batches_per_epoch = 1, grad_acc_steps = 1, stop_requested = function() return true end,
        }
        for _ in s:epochs() do
            for _ in s:windows(loader(1)) do
                assert.is_true(s:is_ckpt_step() and s.epoch_done)
                s:load_state_dict { step = 3, epoch = 2 }
                assert.is_false(s.epoch_done)
                assert.same({ step = 3, epoch = 2 }, s:state_dict())
                assert.is_true(s:is_ckpt_step()) -- asked again
            end
        end
    end)

    it("remembers a validation that a stop left out, until it is taken", function()
        local stop = false
        local s = step_scheduler.new {
            batches_per_epoch = 6, grad_acc_steps = 1, val_every_steps = 2, ckpt_every_steps = 100,
            stop_requested = function() return stop end,
        }
        for _ in s:epochs() do
            for _ in s:windows(loader(6)) do
                stop = s.step == 3
                assert.equal(s.step == 1, s:is_val_step())
            end
        end
        local again = step_scheduler.new { batches_per_epoch = 6, grad_acc_steps = 1 }
        again:load_state_dict(s:state_dict())
        assert.same({ 3, 0 }, { again:take_due_validation() })
        assert.is_nil(again:take_due_validation())
        assert.same({ step = 4, epoch = 0 }, again:state_dict())

        s = step_scheduler.new { batches_per_epoch = 6, grad_acc_steps = 1, num_epochs = 1, val_every_steps = 2 }
        for _ in s:epochs() do
            for _ in s:windows(loader(6)) do
                if s:is_val_step() then
                    s:leave_validation()
                    assert.is_true(s:is_ckpt_step())
                end
            end
        end
        assert.same({ step = 2, epoch = 0, validation_due = true }, s:state_dict())
    end)

    it("refuses a damaged state", function()
        local s = step_scheduler.new { batches_per_epoch = 4 }
        for _, state in ipairs {
            {}, { step = 1 }, { step = -1, epoch = 0 }, { step = 1.5, epoch = 0 }, { step = "1", epoch = 0 },
        } do
            fails("format", "step scheduler state", s.load_state_dict, s, state)
        end
    end)

    it("says when to collect", function()
        local s = step_scheduler.new { batches_per_epoch = 9, grad_acc_steps = 1, num_epochs = 1, gc_every_steps = 4 }
        local seen = ""
        for _ in s:epochs() do
            for _ in s:windows(loader(9)) do
                seen = seen .. (s:is_gc_step() and "g" or "-")
            end
        end
        assert.equal("g---g---g", seen)
        assert.is_false(step_scheduler.new({ batches_per_epoch = 1 }):is_gc_step())
    end)
end)
