-- That keys of a configuration reach the run: validation, random numbers, batch sizes, checkpoints, signals,
-- trackers, timers, secrets, seeds and token counts; and that a run learns. What a key's part does is in the specs
-- of the parts.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

require("am.core.ffi").C.am_threads_set(1) -- so small a model only waits for a second one

-- The shapes of `count` rows, all the same.
local function alike(count, shape)
    local shapes = {}
    for i = 1, count do
        shapes[i] = shape
    end
    return shapes
end

-- Rows of token ids in a file, and its section. Row i begins with token i; `learnt` of its tokens have a label,
-- before the last `behind`, which have none.
local function rows_of(shapes)
    local rows, lines = {}, {}
    for i, shape in ipairs(shapes) do
        local row = { input_ids = {}, labels = {} }
        for t = 1, shape.tokens do
            row.input_ids[t] = t == 1 and i or (7 * i + 5 * t) % 67
            row.labels[t] = -100
        end
        for t = shape.tokens - shape.behind - shape.learnt + 1, shape.tokens - shape.behind do
            row.labels[t] = (11 * i + 3 * t) % 67
        end
        rows[i], lines[i] = row, json.encode(row) .. "\n"
    end
    local file = helper.write(helper.folder() .. "/rows.jsonl", table.concat(lines))
    return rows, { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = file }
end

-- Train in this process; returns training.jsonl's lines and what was logged.
local function curve(make, changes)
    local dir = helper.folder()
    helper.log = ""
    helper.train_here(make(dir, changes))
    return helper.curve(dir), helper.log, dir
end

local function checkpoints(dir)
    local out = {}
    for _, name in ipairs(path.list_dir(dir)) do
        out[#out + 1] = name:match("^epoch_.*")
    end
    return out
end

describe("validation", function()
    teardown(helper.cleanup)

    -- Sum of the loss over a row's labels, and their number, from logits.
    local function row_loss(model, row)
        local logits, sum, count = model:forward({ input_ids = { row.input_ids } }).logits:totable()[1], 0, 0
        for t, label in ipairs(row.labels) do
            if label >= 0 then
                local total = 0
                for _, z in ipairs(logits[t]) do
                    total = total + math.exp(z)
                end
                sum, count = sum + math.log(total) - logits[t][label + 1], count + 1
            end
        end
        return sum, count
    end

    -- Validates once: { NAME = its record }, and { NAME = "rows of each batch: first tokens of all rows" }.
    local function validate(changes, see)
        local dir = helper.folder()
        local recipe = helper.recipe(helper.config(dir, changes))
        local loss, evaluate_set, seen, records, set = recipe.loss, recipe.evaluate_set, {}, {}, nil
        recipe.evaluate_set = function(self, s)
            set, seen[s.name] = s.name, { sizes = {}, rows = {} }
            return evaluate_set(self, s)
        end
        recipe.loss = function(self, batch, ...)
            table.insert(seen[set].sizes, batch.B)
            for b = 0, batch.B - 1 do
                table.insert(seen[set].rows, batch.input_ids[b * batch.T])
            end
            return loss(self, batch, ...)
        end
        recipe:evaluate(0, 0)
        if see then
            see(recipe.model)
        end
        helper.close(recipe)
        for name in pairs(seen) do
            local file = name == "default" and "validation.jsonl" or "validation_" .. name .. ".jsonl"
            records[name] = helper.jsonl(path.join(dir, file))[1]
        end
        return records, seen
    end

    it("sees every row once and in order, in batches of its own dataloader's size, weighted by tokens", function()
        local shapes = {}
        for i, tokens in ipairs { 9, 3, 12, 5, 13, 4, 8 } do -- 7 rows: no multiple of 2, 3 or 4
            shapes[i] = { tokens = tokens, learnt = tokens - i % 3, behind = i == 5 and 1 or 0 }
        end
        local rows, section = rows_of(shapes)
        local sum, count, means = 0, 0, 0
        local function reference(model)
            for _, row in ipairs(rows) do
                local loss, labels = row_loss(model, row)
                sum, count, means = sum + loss, count + labels, means + loss / labels / #rows
            end
        end
        local records, seen = validate({
            validation_dataset = section, validation_dataset_one = section, validation_dataset_more = section,
            validation_dataloader = { batch_size = 3, shuffle = true, drop_last = true, group_by_length = true },
            validation_dataloader_one = { batch_size = 1, shuffle = true, drop_last = true },
        }, reference)
        local plain, plainly = validate { validation_dataset = section }
        local packed, in_packs = validate { validation_dataset = section,
                                            packed_sequence = { packed_sequence_size = 48 } } -- for training alone
        assert.is_true(helper.relative(sum / count, means) > 1e-3, "a mean of rows would pass")
        for _, case in ipairs { { records.default, seen.default, { 3, 3, 1 } },
                                { records.one, seen.one, { 1, 1, 1, 1, 1, 1, 1 } },
                                { records.more, seen.more, { 3, 3, 1 } },
                                { plain.default, plainly.default, { 2, 2, 2, 1 } },
                                { packed.default, in_packs.default, { 2, 2, 2, 1 } } } do
            local record, batches, sizes = unpack(case)
            assert.same(sizes, batches.sizes)
            assert.same({ 1, 2, 3, 4, 5, 6, 7 }, batches.rows)
            assert.equal(count, record.num_label_tokens)
            assert.is_true(helper.relative(sum / count, record.val_loss) < 1e-5)
        end
    end)

    it("draws random numbers of its own, the same every time: training does not notice it", function()
        local dir, own = helper.folder(), helper.folder()
        helper.write(own .. "/own.lua", [[return { drawn = function()
            local metric = { name = "drawn" }
            function metric:update() self.number = self.number or require("am").rand({ 3 }):sum():item() end
            function metric:value() return self.number end
            return metric
        end }]])
        local lora = { model = { attention_dropout = 0.1 }, peft = { target_modules = "*_proj", dim = 4,
                                                                     dropout = 0.1 } }
        local status, _, errors = helper.train(helper.config(dir, helper.changes(lora, {
            step_scheduler = { val_every_steps = 1 }, metrics = { { _target_ = own .. "/own.lua:drawn" } },
            validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 3,
                                   vocab_size = 67 },
        })), { "--allow-user-code", "--threads=1" })
        assert.equal(0, status, errors)
        assert.same(curve(helper.config, lora), helper.curve(dir))
        am.manual_seed(1)
        local expected = am.rand({ 3 }):sum():item()
        local records = helper.jsonl(dir .. "/validation.jsonl")
        assert.equal(6, #records)
        for _, record in ipairs(records) do
            assert.equal(expected, record.val_drawn)
        end
    end)
end)

describe("the step scheduler's keys", function()
    teardown(helper.cleanup)

    it("grad_acc_steps and dataloader.batch_size are a global and a local batch size", function()
        local new = curve(helper.config)
        assert.equal(6, #new)
        for _, key in ipairs { "grad_acc_steps", "global_batch_size" } do
            local old = curve(function(dir)
                local cfg = helper.config(dir, { dataloader = { batch_size = 2 } })
                cfg.step_scheduler.global_batch_size, cfg.step_scheduler.local_batch_size = nil, nil
                cfg.step_scheduler[key] = key == "grad_acc_steps" and 2 or 4
                return cfg
            end)
            assert.same(new, old, key)
        end
        assert.not_same(new, curve(helper.config, { step_scheduler = { global_batch_size = 2 } }))
    end)

    it("ckpt_every_steps: null saves once an epoch and at the end", function()
        local _, _, dir = curve(helper.config, { step_scheduler = { ckpt_every_steps = json.null, max_steps = 14 } })
        assert.same({ "epoch_0_step_5", "epoch_1_step_11", "epoch_2_step_13" }, checkpoints(dir))
        _, _, dir = curve(helper.config, { step_scheduler = { max_steps = 14 } }) -- every 100
        assert.same({ "epoch_2_step_13" }, checkpoints(dir))
    end)

    it("preemption_signal: null leaves SIGTERM to the system", function()
        local dir = helper.folder()
        local run = helper.start { helper.finetune, helper.yaml(helper.folder(), helper.config(dir, {
            step_scheduler = { preemption_signal = json.null, max_steps = 1000000 },
        })), "--threads=1" }
        finally(function()
            if run.running() then
                run.stop("KILL")
            end
        end)
        helper.until_true(function() return #helper.curve(dir) >= 2 end, 30, "two steps")
        run.stop("TERM")
        assert.equal(143, run.wait())
        assert.same({}, checkpoints(dir))
        assert.is_nil(helper.latest(dir))
    end)

    it("gc_every_steps runs the collector", function()
        local globals = package.loaded._G -- the specs' own is another
        local collect = globals.collectgarbage
        local function collected(changes)
            local recipe, steps = helper.recipe(helper.config(helper.folder(), changes)), {}
            globals.collectgarbage = function(what, ...)
                local by_loop = debug.getinfo(2, "S").source:find("llm_finetune.lua", 1, true)
                if by_loop and (what or "collect") == "collect" then
                    steps[#steps + 1] = recipe.scheduler.step
                end
                return collect(what, ...)
            end
            local ok, e = pcall(recipe.train, recipe)
            globals.collectgarbage = collect
            helper.close(recipe)
            assert.is_true(ok, tostring(e))
            return steps
        end
        assert.same({ 0, 2, 4 }, collected { step_scheduler = { gc_every_steps = 2 } })
        assert.same({}, collected())
    end)

    it("log_remote_every_steps says which steps a server hears of", function()
        local dir = helper.folder()
        local recipe = helper.recipe(helper.config(dir, {
            step_scheduler = { log_remote_every_steps = 4, max_steps = 7 }, wandb = { mode = "offline" },
            tensorboard = {},
        }))
        recipe:train()
        recipe.hooks:call("finish", recipe, "finished")
        helper.close(recipe)
        local last = helper.jsonl(dir .. "/training.jsonl")[5]
        local summary = json.decode(helper.read(dir .. "/wandb/latest-run/files/wandb-summary.json"))
        assert.equal(4, summary._step) -- of 0 to 6
        assert.equal(last.loss, summary.loss)
        assert.equal(4, recipe.scheduler.log_remote_every_steps)
    end)
end)

describe("the section", function()
    teardown(helper.cleanup)

    it("timers prints where each step's time goes, and tells trackers", function()
        local dir, short = helper.folder(), { step_scheduler = { max_steps = 3 } }
        helper.log = ""
        local recipe = helper.recipe(helper.config(dir, helper.changes(short, {
            timers = { log_level = 1 }, wandb = { mode = "offline" },
        })))
        recipe:train()
        recipe.hooks:call("finish", recipe, "finished")
        helper.close(recipe)
        local summary = json.decode(helper.read(dir .. "/wandb/latest-run/files/wandb-summary.json"))
        for _, name in ipairs { "data", "forward", "backward", "optimizer" } do
            local _, count = helper.log:gsub("am%.timers | +" .. name .. " %.%.%.+: %d+%.%d+\n", "")
            assert.equal(3, count, name .. "\n" .. helper.log)
            assert.is_true((summary[name .. "-time"] or 0) > 0, name)
        end
        for level, count in pairs { 0, 3 } do
            helper.log = ""
            helper.train_here(helper.config(helper.folder(), helper.changes(short, { timers = { log_level = level } })))
            for _, name in ipairs { "clip", "hooks" } do
                assert.equal(count, select(2, helper.log:gsub("am%.timers | +" .. name .. " %.", "")), name)
            end
        end
        local _, log = curve(helper.config, short)
        assert.is_truthy(log:find("Trainable parameters", 1, true))
        assert.is_nil(log:find("am.timers", 1, true))
    end)

    it("that holds a secret is not on the disk with it", function()
        local dir, secret = helper.folder(), "hunter2hunter2"
        local status, out, errors = helper.train(helper.config(dir, {
            step_scheduler = { max_steps = 2, ckpt_every_steps = 1 },
            slurm = { job_name = "qa", wandb_key = secret .. 1, hf_token = secret .. 2 }, -- seen from inside a job
            wandb = { mode = "offline", config = { api_key = secret .. 3 } }, tensorboard = {},
            comet = { url = "https://me:" .. secret .. "4@example.org/" },
        }), { "--threads=1" }, { before = "SLURM_JOB_ID=1" })
        assert.equal(0, status, errors)
        assert.is_nil((out .. errors):find(secret, 1, true))
        local files = helper.tree(dir)
        for i = #files, 1, -1 do
            if path.is_link(path.join(dir, files[i])) then
                table.remove(files, i) -- what it names is there, too
            end
        end
        for _, name in ipairs(files) do
            assert.is_nil(helper.read(path.join(dir, name)):find(secret, 1, true), name)
        end
        for _, name in ipairs(checkpoints(dir)) do
            local text = helper.read(path.join(dir, name, "config.yaml"))
            for _, key in ipairs { "wandb_key", "hf_token", "api_key" } do
                assert.is_truthy(text:find(key .. ': "?<redacted>'), key .. "\n" .. text)
            end
        end
        assert.equal(2, #checkpoints(dir))
        local told = 0 -- those that show the configuration show that something was there
        for _, name in ipairs(files) do
            if name:find("report.html", 1, true) or name:find("tfevents", 1, true)
                or name:find("^wandb/.*/config%.yaml$") then
                told = told + 1
                assert.is_truthy(helper.read(path.join(dir, name)):find("redacted", 1, true), name)
            end
        end
        assert.is_true(told >= 3, table.concat(files, "\n"))
    end)
end)

describe("a run without dataloader sections", function()
    teardown(helper.cleanup)

    it("shuffles the rows for training, anew each epoch, and not those for validation", function()
        local shapes = alike(20, { tokens = 3, learnt = 2, behind = 0 })
        local _, section = rows_of(shapes)
        local function first_tokens(loader)
            local out = {}
            for batch in function() return loader:next() end do
                for b = 0, batch.B - 1 do
                    out[#out + 1] = batch.input_ids[b * batch.T]
                end
            end
            return out
        end
        local function orders(dataloader)
            local cfg = helper.config(helper.folder(), { dataloader = dataloader, validation_dataset = section })
            cfg.dataset = section
            local recipe = helper.recipe(cfg)
            local one, validation = first_tokens(recipe.loader), first_tokens(recipe.validation_sets[1].loader)
            recipe.loader:set_epoch(1)
            local two = first_tokens(recipe.loader)
            helper.close(recipe)
            return one, two, validation
        end
        local in_order = {}
        for i = 1, #shapes do
            in_order[i] = i
        end
        local one, two, validation = orders()
        assert.same({ one, two, validation }, { orders { shuffle = true } })
        assert.same(in_order, validation)
        assert.not_same(in_order, one)
        assert.not_same(in_order, two)
        assert.not_same(one, two)
        table.sort(one)
        assert.same(in_order, one)
        assert.same({ in_order, in_order, in_order }, { orders { shuffle = false } })
    end)
end)

describe("a run without a seed", function()
    teardown(helper.cleanup)

    it("has the seed 42", function()
        local function with(seed)
            return curve(helper.config, helper.changes(helper.lora, { step_scheduler = { max_steps = 3 } },
                                                       { seed = seed }))
        end
        local default, other = with(false), with(7)
        assert.equal(3, #default)
        assert.same(with(42), default)
        assert.not_same(other, default)
    end)
end)

describe("restore_from", function()
    teardown(helper.cleanup)

    it("is gone on from, or with checkpointing off is said to be skipped", function()
        local function go(dir, checkpoint)
            helper.log = ""
            helper.train_here(helper.config(dir, { step_scheduler = { max_steps = 4, ckpt_every_steps = 2 },
                                                   checkpoint = checkpoint }))
            return helper.curve(dir), helper.log
        end
        local skipped = "WARNING | am.llm_finetune | Enable checkpointing to resume from a checkpoint, skipping...\n"
        local first = helper.folder()
        local whole, log = go(first)
        local from = path.join(first, "epoch_0_step_1")
        assert.is_nil(log:find("Loading checkpoint", 1, true))
        assert.is_nil(log:find(skipped, 1, true))

        local resumed
        resumed, log = go(helper.folder(), { restore_from = from })
        assert.is_truthy(log:find("INFO | am.llm_finetune | Loading checkpoint from " .. from .. "\n", 1, true), log)
        assert.is_nil(log:find(skipped, 1, true))
        assert.same({ unpack(whole, 3) }, resumed)

        local dir = helper.folder()
        local fresh
        fresh, log = go(dir, { restore_from = from, enabled = false })
        assert.is_truthy(log:find(skipped, 1, true), log)
        assert.is_nil(log:find("Loading checkpoint", 1, true))
        assert.same(whole, fresh)
        assert.same({}, checkpoints(dir))

        log = select(2, go(helper.folder(), { enabled = false }))
        assert.is_nil(log:find(skipped, 1, true))
    end)
end)

describe("training.jsonl", function()
    teardown(helper.cleanup)

    it("counts tokens, not labels, up to a row's last label, and has them by the second", function()
        local shapes = { { tokens = 9, learnt = 3, behind = 0 }, { tokens = 5, learnt = 1, behind = 0 },
                         { tokens = 12, learnt = 4, behind = 2 }, { tokens = 7, learnt = 2, behind = 0 } }
        local _, section = rows_of(shapes)
        local tokens, labels = 0, 0
        for _, shape in ipairs(shapes) do
            tokens, labels = tokens + shape.tokens - shape.behind, labels + shape.learnt
        end
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { max_steps = 2 } })
        cfg.dataset = section
        local recipe, seconds = helper.recipe(cfg), {}
        local step = recipe.step
        recipe.step = function(...)
            local metrics = step(...)
            seconds[#seconds + 1] = metrics.seconds
            return metrics
        end
        recipe:train()
        helper.close(recipe)
        local records = helper.jsonl(dir .. "/training.jsonl")
        assert.equal(2, #records)
        for i, record in ipairs(records) do -- each step is all rows
            assert.equal(tokens, record.num_tokens_per_step)
            assert.equal(labels, record.num_label_tokens)
            local rate = tokens / seconds[i] -- of the step alone; what is logged counts what lies between, too
            assert.is_true(i == 1 and helper.relative(rate, record.tps) < 0.1 or record.tps < rate)
            assert.is_true(record.tps > labels / seconds[i] / 2)
            assert.equal(record.tps, record.tps_per_gpu)
        end
    end)
end)

describe("a full fine-tuning", function()
    teardown(helper.cleanup)

    it("learns 64 rows by heart", function()
        local _, section = rows_of(alike(64, { tokens = 6, learnt = 5, behind = 1 }))
        local cfg = helper.config(helper.folder(), {
            step_scheduler = { global_batch_size = 64, local_batch_size = 64, max_steps = 60, num_epochs = 60 },
            optimizer = { lr = 1e-2 }, checkpoint = { enabled = false },
        })
        cfg.dataset = section
        cfg.model = { _target_ = "am.AutoModelForCausalLM.from_config", config = {
            architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 64, intermediate_size = 128,
            num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 67,
            max_position_embeddings = 16, rms_norm_eps = 1e-5,
        } }
        helper.train_here(cfg)
        local records = helper.jsonl(cfg.checkpoint.checkpoint_dir .. "/training.jsonl")
        assert.equal(60, #records)
        assert.is_true(records[1].loss > 4, records[1].loss) -- about log(67)
        assert.is_true(records[60].loss < 0.1, records[60].loss)
    end)
end)
