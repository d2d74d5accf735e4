-- Parts of one's own that training itself is made of: the model, optimizer, schedule and collate function under
-- examples/custom/ do what they say in whole runs, and resume bit by bit.
local am = require("am")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local custom = path.absolute("examples/custom")

-- Trains with a user's code allowed; returns status, output and errors.
local function train(cfg)
    return helper.train(cfg, { "--allow-user-code" })
end

local function trains(cfg)
    local status, out, errors = train(cfg)
    assert.equal(0, status, out .. errors)
    return out .. errors
end

-- Six steps at once, and the last three of them again from the checkpoint in the middle, must be the same bit by
-- bit. make(dir) is a configuration. Returns the first run's folder.
local function resumes(make)
    local whole, again = helper.folder(), helper.folder()
    local saving = { step_scheduler = { ckpt_every_steps = 3 } }
    trains(helper.changes(make(whole), saving))
    local from = path.join(whole, "epoch_0_step_2")
    trains(helper.changes(make(again), saving, { checkpoint = { restore_from = from } }))
    local expected = helper.curve(whole)
    assert.equal(6, #expected)
    assert.same({ unpack(expected, 4) }, helper.curve(again))
    assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(again)))
    return whole
end

describe("an optimizer of one's own", function()
    teardown(helper.cleanup)
    local section = { _target_ = custom .. "/optimizer.lua:sign_momentum", lr = 0.0078125, momentum = 0.5 }

    it("takes steps of one length, and resumes", function()
        local dir = helper.folder()
        trains(helper.config(dir, { optimizer = section, step_scheduler = { max_steps = 1 },
                                    checkpoint = { save_consolidated = true } }))
        local before = am.load_safetensors(helper.tiny .. "/model.safetensors")
        local after = am.load_safetensors(helper.latest(dir) .. "/model/consolidated/model-00001-of-00001.safetensors")
        for name, t in pairs(after) do
            local step = (t - before[name]):abs() * 128
            assert.is_true((step - step:round()):abs():max():item() < 1e-4, name)
            assert.is_true(step:max():item() > 0.99 and step:max():item() < 1.01, name)
        end
        resumes(function(to)
            return helper.config(to, { optimizer = section, model = { torch_dtype = "bfloat16" } })
        end)
    end)

    it("learns, with groups and updates inside backward, too", function()
        local dir = helper.folder()
        trains(helper.config(dir, {
            optimizer = helper.changes(section, {
                lr = 1e-3, fuse_backward = true, param_group_overrides = { { pattern = "norm", lr_mult = 0.5 } },
            }),
            clip_grad_norm = { max_norm = require("am.utils.json").null },
            step_scheduler = { max_steps = 20, local_batch_size = 4 },
        }))
        local curve = helper.jsonl(dir .. "/training.jsonl")
        assert.is_true(curve[20].loss < curve[1].loss - 0.1)
    end)

    it("is told from others in a checkpoint, and its keys are checked", function()
        local dir = helper.folder()
        trains(helper.config(dir, { optimizer = section, step_scheduler = { max_steps = 1 } }))
        local status, out, errors = train(helper.config(dir, {}))
        local wanted = { "made with the optimizer sign_momentum, this run's is adamw" }
        assert.is_nil(helper.refusal_problem(1, wanted, status, out, errors))
        status, out, errors = train(helper.config(dir, { optimizer = helper.changes(section, { momentun = 1 }) }))
        assert.is_nil(helper.refusal_problem(2, { "optimizer.momentun", 'did you mean "momentum"?' }, status, out,
                                             errors))
    end)
end)

describe("a schedule of one's own", function()
    teardown(helper.cleanup)
    local section = { _target_ = custom .. "/schedule.lua:up_and_down", rise = 0.5 }

    it("is what each step is taken with, and a longer run keeps its curve", function()
        local dir = resumes(function(to) return helper.config(to, { lr_scheduler = section }) end)
        local expected = { 0.25, 0.5, 0.75, 1, 1 - math.sqrt(1 / 3), 1 - math.sqrt(2 / 3), 0 }
        for i, record in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
            assert.near(1e-2 * expected[i + 1], record.lr, 1e-15) -- what is logged is the next one
        end
        local log = trains(helper.config(dir, { lr_scheduler = section, step_scheduler = { max_steps = 7 } }))
        assert.is_truthy(log:find("total_steps of the schedule stays 6, not 7", 1, true), log)
        assert.equal(0, helper.jsonl(dir .. "/training.jsonl")[7].lr)
    end)

    it("is refused when the section or the kind is another, unless the section overrides it", function()
        local dir = helper.folder()
        local short = { step_scheduler = { max_steps = 2 } }
        trains(helper.config(dir, helper.changes(short, { lr_scheduler = section })))
        local other = helper.changes(section, { rise = 0.25 })
        local status, out, errors = train(helper.config(dir, { lr_scheduler = other }))
        assert.is_nil(helper.refusal_problem(2, { "another schedule", "0.25", "override_opt_param_scheduler" }, status,
                                             out, errors))
        status, out, errors = train(helper.config(dir, {}))
        assert.is_nil(helper.refusal_problem(2, { "up_and_down", "override_opt_param_scheduler" }, status, out, errors))
        other.override_opt_param_scheduler = true
        trains(helper.config(dir, { lr_scheduler = other }))
        assert.equal(6, #helper.curve(dir))
        -- and the other way round
        trains(helper.config(dir, { lr_scheduler = { override_opt_param_scheduler = true },
                                    step_scheduler = { max_steps = 7 } }))
        status, out, errors = train(helper.config(dir, { lr_scheduler = section, step_scheduler = { max_steps = 8 } }))
        assert.is_nil(helper.refusal_problem(2, { "another schedule" }, status, out, errors))
    end)

    it("is an error when it returns no learning rate", function()
        local own_schedule = require("am.optim.own_schedule")
        for _, value in ipairs { 0 / 0, -1, math.huge, "1e-3" } do
            local ok, e = pcall(own_schedule.new, function() return value end, { _target_ = "x.lua:y" },
                                { lr = 1, total_steps = 5, optimizer = { param_groups = { {} } } })
            assert.is_false(ok)
            assert.is_truthy(tostring(e):find("x.lua:y must return a learning rate", 1, true), tostring(e))
        end
        local schedule = own_schedule.new(function(n, run) return n * run.lr end, { _target_ = "x.lua:y" }, {
            lr = 1, weight_decay = 0.1, total_steps = 5,
            optimizer = { param_groups = { { lr_mult = 3, wd_mult = 2 }, { max_lr = 7 } } },
        })
        schedule:step(2)
        assert.same({ 6, 0.2, 14, 0.1 }, { schedule.param_groups[1].lr, schedule.param_groups[1].weight_decay,
                                           schedule.param_groups[2].lr, schedule.param_groups[2].weight_decay })
        for _, damage in ipairs { { num_steps = -1 }, { num_steps = "2" }, { total_steps = 0.5 } } do
            local state = schedule:state_dict()
            for key, value in pairs(damage) do
                state[key] = value
            end
            local ok, e = pcall(schedule.load_state_dict, schedule, state)
            assert.is_false(ok)
            assert.equal("format", e.code)
            assert.equal(2, schedule.num_steps)
        end
    end)
end)

describe("a collate function of one's own", function()
    teardown(helper.cleanup)

    it("makes the batches that the model sees", function()
        local dir = helper.folder()
        trains(helper.config(dir, {
            step_scheduler = { max_steps = 6, num_epochs = 1 },
            dataloader = { collate_fn = { _target_ = custom .. "/collate.lua:last_tokens", length = 9 } },
        }))
        local rows, expected, seen = require("am.datasets").build_unpacked_dataset {
            num_sentences = 24, vocab_size = 67, mean_len = 14, max_sentence_len = 40 }, 0, 0
        local longer = false
        for i = 1, rows:len() do
            local n = #rows:get(i).input_ids
            expected, longer = expected + math.min(n, 9), longer or n > 9
        end
        for _, record in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
            seen = seen + record.num_tokens_per_step
        end
        assert.is_true(longer)
        assert.equal(expected, seen)

        local batch = dofile("examples/custom/collate.lua").last_tokens({
            { input_ids = { 1, 2, 3 }, labels = { 2, 3, 4 } }, { input_ids = { 5 }, labels = { 6 } },
        }, { length = 2, pad_token_id = 60 })
        assert.same({ 2, 2, 3 }, { batch.B, batch.T, batch.num_label_tokens })
        assert.same({ 2, 3, 5, 60 }, { batch.input_ids[0], batch.input_ids[1], batch.input_ids[2],
                                       batch.input_ids[3] })
        assert.same({ 3, 4, 6, -100 }, { batch.labels[0], batch.labels[1], batch.labels[2], batch.labels[3] })
    end)
end)

describe("a model of one's own", function()
    teardown(helper.cleanup)
    local fields = { architectures = { "ParallelForCausalLM" }, hidden_size = 32, intermediate_size = 48,
                     num_hidden_layers = 2, num_attention_heads = 4, vocab_size = 67, max_position_embeddings = 64,
                     tie_word_embeddings = true }

    -- Of the model section's keys, `from` and the target.
    local function config(dir, more, from)
        local cfg = helper.config(dir, helper.changes({ checkpoint = { save_consolidated = "final" } }, more or {}))
        cfg.model = helper.changes({ _target_ = custom .. "/model.lua:causal_lm" }, from or { config = fields })
        return cfg
    end

    local function curve_of(more, from)
        local dir = helper.folder()
        trains(config(dir, more, from))
        return dir, helper.curve(dir)
    end

    it("is trained from a configuration, resumed, saved and read again", function()
        local dir = resumes(config)
        local records = helper.jsonl(dir .. "/training.jsonl")
        assert.is_true(records[6].loss < records[1].loss)
        -- what was saved goes on, with an adapter
        local saved = helper.latest(dir) .. "/model/consolidated"
        local _, again = curve_of({ peft = { target_modules = "*_proj", dim = 2 } },
                                  { pretrained_model_name_or_path = saved })
        assert.is_true(tonumber(again[1]:match("^%d+ %d+ (%S+)")) < records[1].loss)
        -- where its file is not named nobody knows it
        local status, out, errors = helper.train(helper.config(helper.folder(), {
            model = { pretrained_model_name_or_path = saved } }))
        assert.is_nil(helper.refusal_problem(1, { "ParallelForCausalLM is not supported" }, status, out, errors))
    end)

    it("computes the same with activations made again", function()
        local _, plain = curve_of()
        local _, again = curve_of { distributed = { _target_ = "am.distributed.DDPManager",
                                                    activation_checkpointing = true } }
        assert.same(plain, again)
    end)

    it("sees what stands before a token, and generates", function()
        am.manual_seed(3)
        local model = dofile("examples/custom/model.lua").causal_lm({ config = fields }, {})
        local a = model:forward({ input_ids = { { 4, 9, 1, 30 } } }).logits:totable()[1]
        local b = model:forward({ input_ids = { { 4, 9, 1, 31 }, { 5, 9, 1, 30 } } }).logits:totable()
        assert.same(a[3], b[1][3])
        assert.not_same(a[4], b[1][4])
        assert.not_same(a[3], b[2][3])
        -- a step at a time with a cache, as all at once
        local ids = { 4, 9, 1 }
        for _ = 1, 4 do
            local last = model:forward({ input_ids = { ids } }).logits:totable()[1][#ids]
            local best = 1
            for i, z in ipairs(last) do
                best = z > last[best] and i or best
            end
            ids[#ids + 1] = best - 1
        end
        local new = model:generate({ 4, 9, 1 }, { max_new_tokens = 4, do_sample = false })
        assert.same({ unpack(ids, 4) }, { unpack(new, #new - 3) })
        model:close()
    end)
end)
