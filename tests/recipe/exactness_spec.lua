-- A run's numbers: the same however a batch is split, padded or packed, however often the run is
-- interrupted, and with the same seed. What is said to be equal is equal in every bit.
local am = require("am")
local datasets = require("am.datasets")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

-- Rows of token ids whose numbers of tokens and of labels all differ; some have a single label.
local function ragged_rows(file)
    local lines = {}
    for i = 1, 16 do
        local ids, labels = {}, {}
        for t = 1, 3 + (i * 7) % 23 do
            ids[t] = (i * 31 + t * 17) % 67
            labels[t] = t > (i % 5) * 2 and (i * 13 + t * 29) % 67 or -100
        end
        labels[#labels] = 5
        lines[i] = string.format('{"input_ids": [%s], "labels": [%s]}', table.concat(ids, ","),
                                 table.concat(labels, ","))
    end
    return helper.write(file, table.concat(lines, "\n") .. "\n")
end

local function ragged(changes)
    local dir = helper.folder()
    return helper.config(dir, helper.changes({
        dataset = { _target_ = "am.datasets.PretokenizedDataset",
                    path_or_dataset_id = ragged_rows(dir .. "/rows.jsonl") },
        dataloader = { shuffle = false },
        optimizer = { lr = 1e-3 },
        step_scheduler = { global_batch_size = 8, max_steps = 1 },
    }, changes))
end

-- The helper's dataset section is that of random sentences.
local function only_rows(cfg)
    for _, key in ipairs { "num_sentences", "vocab_size", "mean_len", "max_sentence_len" } do
        cfg.dataset[key] = nil
    end
    return cfg
end

local function weights(recipe)
    local out = {}
    for name, t in recipe.model:named_parameters() do
        if t.requires_grad then
            out[#out + 1] = { name, t:to_buffer() }
        end
    end
    return out
end

-- Norm of (a1 - a0) - (b1 - b0), as a fraction of the norm of a1 - a0.
local function update_difference(a0, a1, b0, b1)
    local off, norm = 0, 0
    for i = 1, #a0 do
        local _, n = a0[i][2], ffi.sizeof(a0[i][2]) / 4
        for k = 0, n - 1 do
            local a, b = a1[i][2][k] - a0[i][2][k], b1[i][2][k] - b0[i][2][k]
            off, norm = off + (a - b) ^ 2, norm + a ^ 2
        end
    end
    assert(norm > 0)
    return math.sqrt(off / norm)
end

local function one_step(cfg)
    local recipe = helper.recipe(only_rows(cfg))
    local before = weights(recipe)
    recipe.model:train()
    local metrics
    for _ in recipe.scheduler:epochs() do
        for window in recipe.scheduler:windows(recipe.loader) do
            metrics = recipe:step(window)
        end
    end
    local after = weights(recipe)
    helper.close(recipe)
    return metrics, before, after
end

describe("exactness", function()
    teardown(helper.cleanup)

    for _, kind in ipairs { "full", "lora" } do
        it("splits a batch of 8 as 8x1, 4x2 and 1x8 alike: " .. kind, function()
            local peft = kind == "lora" and { peft = { target_modules = "*_proj", dim = 4 } } or {}
            local function run(rows)
                return one_step(ragged(helper.changes(peft, { step_scheduler = { local_batch_size = rows } })))
            end
            local whole, w0, w1 = run(8)
            for _, rows in ipairs { 4, 1 } do
                local parts, p0, p1 = run(rows)
                assert.equal(whole.num_label_tokens, parts.num_label_tokens)
                assert.is_true(helper.relative(whole.loss, parts.loss) <= 1e-5)
                assert.is_true(helper.relative(whole.grad_norm, parts.grad_norm) <= 1e-5)
                local off = update_difference(w0, w1, p0, p1)
                assert.is_true(off <= 1e-4, "the update differs by " .. off)
            end
        end)
    end

    it("trains on packs as on padded rows", function()
        local padded, w0, w1 = one_step(ragged { step_scheduler = { global_batch_size = 16, local_batch_size = 16 } })
        local cfg = ragged { packed_sequence = { packed_sequence_size = 61 },
                             step_scheduler = { global_batch_size = 16, local_batch_size = 4 } }
        local packed, p0, p1 = one_step(cfg)
        assert.equal(padded.num_label_tokens, packed.num_label_tokens)
        assert.is_true(helper.relative(padded.loss, packed.loss) <= 1e-5)
        assert.is_true(helper.relative(padded.grad_norm, packed.grad_norm) <= 1e-5)
        local off = update_difference(w0, w1, p0, p1)
        assert.is_true(off <= 1e-4, "the update differs by " .. off)
    end)

    it("learns samples that packs cut as the pieces would be learnt alone", function()
        local size = 11
        local recipe = helper.recipe(only_rows(ragged {
            packed_sequence = { packed_sequence_size = size, split_across_pack = true },
            step_scheduler = { local_batch_size = 2 },
        }))
        local function loss(rows)
            local batch = datasets.default_collater(rows)
            return am.scope(function() return recipe:loss(batch):item() end), batch.num_label_tokens
        end
        local pieces, uncut, at, cut = {}, 0, 0, 0 -- pieces: of each pack; at: tokens so far
        for _, row in ipairs(helper.jsonl(recipe.cfg:get("dataset.path_or_dataset_id"))) do
            uncut = uncut + loss { row }
            for t = 1, #row.input_ids do
                local pack = math.floor(at / size) + 1
                pieces[pack] = pieces[pack] or {}
                if t == 1 or at % size == 0 then
                    table.insert(pieces[pack], { input_ids = {}, labels = {}, position_ids = {} })
                    cut = cut + (t == 1 and 0 or 1)
                end
                local piece = pieces[pack][#pieces[pack]]
                table.insert(piece.input_ids, row.input_ids[t])
                table.insert(piece.labels, row.labels[t])
                table.insert(piece.position_ids, (t - 1) % size)
                at = at + 1
            end
        end
        local total, first = 0, 1
        for batch in recipe.loader:batches() do
            local sum, labels = 0, 0
            for pack = first, first + batch.B - 1 do
                for _, piece in ipairs(pieces[pack]) do
                    local l, n = loss { piece }
                    sum, labels = sum + l, labels + n
                end
            end
            local packed = am.scope(function() return recipe:loss(batch):item() end)
            assert.equal(labels, batch.num_label_tokens)
            assert.is_true(helper.relative(sum, packed) <= 1e-5, string.format("packs from %d: %.9g, alone %.9g",
                                                                               first, packed, sum))
            total, first = total + sum, first + batch.B
        end
        helper.close(recipe)
        assert.equal(#pieces, first - 1)
        assert.is_true(cut > 8, cut)
        assert.is_true(helper.relative(total, uncut) > 1e-4, "a piece that saw the one before would pass")
    end)
end)

-- Runs of twelve steps, three epochs, with everything random switched on; one state a step is kept.
local kinds = {
    { name = "LoRA with dropout and packing", every = 1, changes = helper.lora },
    { name = "full", every = 5, changes = { model = { attention_dropout = 0.1 } } },
    { name = "full, recomputing layers", every = 5,
      changes = { model = { attention_dropout = 0.1, activation_checkpointing = true } } },
    { name = "full, recomputing feed-forward blocks", every = 5,
      changes = { model = { attention_dropout = 0.1 }, distributed = { activation_checkpointing = "selective" } } },
    { name = "bfloat16 with masters", every = 5,
      changes = { model = { torch_dtype = "bfloat16", attention_dropout = 0.1 } } },
    { name = "bfloat16 moments, WSD, growing weight decay", every = 5, changes = {
        optimizer = { state_dtype = "bfloat16" },
        lr_scheduler = { lr_decay_style = "WSD", wsd_decay_steps = 4, lr_wsd_decay_style = "linear",
                         start_wd = 0.01, end_wd = 0.1, wd_incr_style = "linear" } } },
    { name = "SGD with momentum", every = 5, changes = {
        optimizer = { _target_ = "am.optim.SGD", momentum = 0.9, lr = 0.05 } } },
    { name = "8-bit moments", every = 5, changes = { optimizer = { state_dtype = "int8" } } },
    { name = "8-bit momentum, bfloat16", every = 5, changes = {
        model = { torch_dtype = "bfloat16" },
        optimizer = { _target_ = "am.optim.SGD", momentum = 0.9, lr = 0.05, state_dtype = "int8" } } },
    { name = "Lion in 8 bits, groups of parameters", every = 5, changes = {
        optimizer = { _target_ = "lion_pytorch.Lion", lr = 1e-3, state_dtype = "int8", weight_decay = 0.1,
                      param_group_overrides = json.array { { pattern = "norm", lr_mult = 0.5, wd_mult = 0 } } } } },
    { name = "Adafactor", every = 5, changes = { optimizer = { _target_ = "torch.optim.Adafactor", lr = 0.1 } } },
    { name = "Muon in bfloat16", every = 5, changes = {
        model = { torch_dtype = "bfloat16" }, optimizer = { _target_ = "dion.Muon", lr = 1e-2, scalar_lr = 1e-3 } } },
    { name = "SOAP, updates inside backward", every = 5, changes = {
        optimizer = { _target_ = "am.optim.SOAP", lr = 1e-2, precondition_frequency = 3, fuse_backward = true },
        clip_grad_norm = { max_norm = json.null },
        step_scheduler = { global_batch_size = 3, local_batch_size = 3 }, dataset = { num_sentences = 13 } } },
    { name = "Shampoo", every = 5, changes = {
        optimizer = { _target_ = "am.optim.Shampoo", lr = 1e-2, momentum = 0.5, max_precond_dim = 40 } } },
    { name = "updates inside backward", every = 5, changes = {
        model = { torch_dtype = "bfloat16", activation_checkpointing = true, attention_dropout = 0.1 },
        optimizer = { fuse_backward = true, state_dtype = "int8" },
        clip_grad_norm = { max_norm = json.null },
        step_scheduler = { global_batch_size = 3, local_batch_size = 3 }, dataset = { num_sentences = 13 } } },
}

local function long(dir, changes)
    return helper.config(dir, helper.changes({
        step_scheduler = { global_batch_size = 6, local_batch_size = 2, max_steps = 12, ckpt_every_steps = 1,
                           num_epochs = 20 },
        lr_scheduler = { lr_decay_style = "cosine", lr_warmup_steps = 3 },
        -- 25 rows are 13 micro-batches: windows of three leave a shorter one at the epoch's end
        dataset = { num_sentences = 25 },
    }, changes))
end

describe("an interrupted run", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("equals the unbroken one: " .. kind.name, function()
            local whole = helper.folder()
            helper.train_here(long(whole, kind.changes))
            local curve = helper.curve(whole)
            assert.equal(12, #curve)
            local states = {}
            for _, name in ipairs(path.list_dir(whole)) do
                local step = tonumber(name:match("^epoch_%d+_step_(%d+)$"))
                if step then
                    states[step] = name
                end
            end
            assert.is_true(tonumber(states[11]:match("epoch_(%d+)")) >= 2, "the run is shorter than three epochs")
            for step = 0, 10, kind.every do
                local dir = helper.folder()
                local cfg = long(dir, helper.changes(kind.changes, {
                    step_scheduler = { ckpt_every_steps = 100 },
                    checkpoint = { restore_from = path.join(whole, states[step]) },
                }))
                helper.train_here(cfg)
                assert.same({ unpack(curve, step + 2) }, helper.curve(dir))
                assert.is_nil(helper.checkpoint_difference(path.join(whole, states[11]), helper.latest(dir)))
            end
        end)
    end

    it("is no other than the seed says", function()
        local curves, dirs = {}, {}
        local before = edge.C.am_threads()
        for i, run in ipairs { { 1, 11 }, { 1, 11 }, { 1, 12 }, { 2, 11 }, { 2, 11 } } do
            edge.check(edge.C.am_threads_set(run[1]))
            dirs[i] = helper.folder()
            helper.train_here(long(dirs[i], helper.changes(helper.lora, {
                seed = run[2], step_scheduler = { max_steps = 5, ckpt_every_steps = 100 },
            })))
            curves[i] = helper.curve(dirs[i])
        end
        edge.check(edge.C.am_threads_set(before))
        assert.same(curves[1], curves[2])
        assert.not_same(curves[1], curves[3])
        assert.same(curves[4], curves[5])
        assert.is_nil(helper.checkpoint_difference(helper.latest(dirs[1]), helper.latest(dirs[2])))
        assert.is_nil(helper.checkpoint_difference(helper.latest(dirs[4]), helper.latest(dirs[5])))
    end)
end)

-- `fence` stands for a GPU: its memory faults when the host touches it, and its kernels are `ref`'s.
describe("a run on another device", function()
    teardown(helper.cleanup)

    for _, kind in ipairs { kinds[1], kinds[4], kinds[7], kinds[9] } do
        it("touches no memory that is not the host's: " .. kind.name, function()
            local latest, curves = {}, {}
            for _, device in ipairs { "ref", "fence" } do
                local dir = helper.folder()
                local cfg = long(dir, helper.changes(kind.changes, {
                    device = device, step_scheduler = { max_steps = 5, ckpt_every_steps = 2 },
                    validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 3 },
                    checkpoint = { save_consolidated = "every" },
                }))
                helper.train_here(cfg)
                assert(os.execute(string.format("rm -rf %s/epoch_*_step_4 %s/LATEST", dir, dir)) == 0)
                helper.train_here(cfg) -- from step 3
                latest[device], curves[device] = helper.latest(dir), helper.curve(dir)
            end
            assert.same(curves.ref, curves.fence)
            assert.equal(5, #curves.ref)
            assert.is_nil(helper.checkpoint_difference(latest.ref, latest.fence))
        end)
    end
end)

describe("a run in bfloat16", function()
    teardown(helper.cleanup)

    -- Master bits of every parameter, as helper.tensors gives those of a file.
    local function masters(name)
        local recipe = helper.recipe(helper.config(helper.folder(), { model = {
            torch_dtype = "bfloat16", pretrained_model_name_or_path = name,
        } }))
        local file, list = helper.folder() .. "/masters.safetensors", {}
        for parameter, what, t in recipe.optimizer:state_tensors() do
            if what == "master" then
                list[#list + 1] = { parameter, t }
            end
        end
        require("am.core.io").save_safetensors(file, list)
        helper.close(recipe)
        return helper.tensors(file)
    end

    it("begins with masters that were never rounded", function()
        assert.same(helper.tensors(helper.tiny .. "/model.safetensors"), masters(helper.tiny))
    end)

    it("keeps what was changed since the weights were read", function()
        local model = am.AutoModelForCausalLM.from_pretrained(helper.tiny, { torch_dtype = "bfloat16" })
        local optimizer = am.optim.new("adamw", model:named_parameters(), {})
        optimizer:load_masters(function(name)
            return name == "model.norm.weight" and am.full({ 32 }, 7.03125) or nil
        end)
        local before = model:get("model.norm").weight:to("float32"):totable()
        for name, what, t in optimizer:state_tensors() do
            if name == "model.norm.weight" and what == "master" then
                assert.same(before, t:totable())
            end
        end
        optimizer:close()
        model:close()
    end)
end)

-- A weight is updated while backward still runs; nothing of it may show.
describe("optimizer.fuse_backward", function()
    teardown(helper.cleanup)

    local untied = { model = { config_overrides = { tie_word_embeddings = false } } }
    local recomputing = { model = { activation_checkpointing = true } }
    for name, changes in pairs {
        ["full"] = {},
        ["an untied head, recomputing layers"] = helper.changes(untied, recomputing),
        ["bfloat16, recomputing layers, a head with an adapter"] = {
            model = { torch_dtype = "bfloat16", activation_checkpointing = true },
            peft = { target_modules = { "*_proj", "lm_head" }, dim = 4, dropout = 0.1 },
        },
        ["bfloat16 without masters, 8-bit moments"] = {
            model = { torch_dtype = "bfloat16" }, optimizer = { master_weights = false, state_dtype = "int8" },
        },
        ["SGD, packed"] = { optimizer = { _target_ = "am.optim.SGD", momentum = 0.9 },
                            packed_sequence = { packed_sequence_size = 48 } },
        ["LoRA"] = helper.lora,
    } do
        it("gives the run that updates after backward: " .. name, function()
            local curves, latest = {}, {}
            for _, fused in ipairs { false, true } do
                local dir = helper.folder()
                helper.train_here(helper.config(dir, helper.changes(changes, {
                    optimizer = { fuse_backward = fused }, clip_grad_norm = { max_norm = json.null },
                    step_scheduler = { global_batch_size = 4, local_batch_size = 4 },
                })))
                curves[fused], latest[fused] = helper.curve(dir), helper.latest(dir)
            end
            assert.equal(6, #curves[true])
            assert.same(curves[false], curves[true])
            assert.is_nil(helper.checkpoint_difference(latest[false], latest[true]))
        end)
    end

    it("is refused beside what needs all gradients", function()
        for _, case in ipairs {
            { {}, { "config.yaml:", "clip_grad_norm.max_norm, which is 1 by default", "max_norm: null" } },
            { { clip_grad_norm = { max_norm = 0.5 } }, { "clip_grad_norm.max_norm, which is 0.5." } },
            { { clip_grad_norm = { max_norm = json.null } },
              { "config.yaml:", "step_scheduler.global_batch_size (4)", "local_batch_size (2)" } },
        } do
            table.insert(case[2], "optimizer.fuse_backward: false")
            local changes = helper.changes(case[1], { optimizer = { fuse_backward = true } })
            assert.is_nil(helper.refusal_problem(2, case[2], helper.train(helper.config(helper.folder(), changes))))
        end
    end)
end)

describe("8-bit moments", function()
    teardown(helper.cleanup)

    -- Losses of a run with moments of a dtype, learning the same rows over and over.
    local function curve(dtype, threads)
        local dir, losses, before = helper.folder(), {}, edge.C.am_threads()
        edge.check(edge.C.am_threads_set(threads or before))
        helper.train_here(helper.config(dir, {
            optimizer = { state_dtype = dtype, lr = 5e-3 },
            step_scheduler = { global_batch_size = 24, local_batch_size = 24, max_steps = 40, num_epochs = 40 },
        }))
        edge.check(edge.C.am_threads_set(before))
        for i, record in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
            losses[i] = record.loss
        end
        return losses
    end

    it("learn as 32-bit ones do, within 2 % of the loss at every step", function()
        local wide, narrow, off = curve("float32"), curve("int8"), 0
        assert.is_true(wide[40] < 0.5 * wide[1], "nothing is learnt")
        assert.not_same(wide, narrow)
        for i = 1, 40 do
            off = math.max(off, helper.relative(wide[i], narrow[i]))
        end
        print("# losses differ by at most " .. off)
        assert.is_true(off <= 0.02, "losses differ by " .. off)
    end)

    it("have the same bits on one thread and on two", function()
        assert.same(curve("int8", 1), curve("int8", 2))
    end)
end)

describe("a merged adapter", function()
    teardown(helper.cleanup)

    it("gives the logits that the adapter gave", function()
        local dir = helper.folder()
        helper.train_here(helper.config(dir, helper.changes(helper.lora, { step_scheduler = { max_steps = 8 } })))
        local from = path.join(helper.latest(dir), "model")
        local ids = { { 3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9 } }
        local function logits(model)
            return am.no_grad(function() return model:forward { input_ids = ids }.logits:to_buffer() end)
        end
        local n = 11 * 67
        local model = am.AutoModelForCausalLM.from_pretrained(helper.tiny)
        local plain = logits(model)
        am.peft.load_adapter(model, from)
        local adapted = logits(model)
        am.peft.merge(model)
        local merged = logits(model)
        local saved = helper.folder()
        model:save_pretrained(saved)
        local again = logits(am.AutoModelForCausalLM.from_pretrained(saved))
        local largest, off, moved = 0, 0, 0
        for i = 0, n - 1 do
            largest = math.max(largest, math.abs(adapted[i]))
            off = math.max(off, math.abs(adapted[i] - merged[i]))
            moved = math.max(moved, math.abs(adapted[i] - plain[i]))
            assert.equal(merged[i], again[i])
        end
        assert.is_true(moved > 0.1 * largest, "the adapter does next to nothing")
        assert.is_true(off <= 1e-5 * largest, "off by " .. off / largest)
    end)
end)

describe("the rows of this suite", function()
    teardown(helper.cleanup)

    it("are ragged in tokens and labels", function()
        local file = ragged_rows(helper.folder() .. "/rows.jsonl")
        local ds = datasets.PretokenizedDataset { path_or_dataset_id = file }
        local labels, distinct = {}, 0
        for i = 1, ds:len() do
            local count = 0
            for _, label in ipairs(ds:get(i).labels) do
                count = count + (label ~= -100 and 1 or 0)
            end
            distinct = distinct + (labels[count] and 0 or 1)
            labels[count] = true
        end
        assert.is_true(labels[1] and distinct >= 8)
    end)
end)
