-- Several ranks learn what one learns: the recipe under mpirun on 1, 2 and 4 ranks, the same global batch in the same
-- order. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

-- Of f32 sums in another order: 20 steps with a learning rate of 1e-2 let it grow.
local LOSS, NORM, LATER = 1e-6, 1e-5, 2e-5

local can_run = os.execute("command -v mpirun >/dev/null 2>&1") == 0
    and path.is_file(path.join(path.dirname(helper.amlua), "amlua_mpi.so"))

local function mpirun(n)
    return "OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        .. "mpirun --oversubscribe -n " .. n
end

-- Train on n ranks; the records of training.jsonl, and the folder.
local function train(n, changes, overrides)
    local dir = helper.folder()
    local cfg = helper.config(dir, helper.changes({
        step_scheduler = { global_batch_size = 8, local_batch_size = 2, max_steps = 20 },
        validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 7, vocab_size = 67,
                               mean_len = 14, max_sentence_len = 40 },
    }, changes or {}))
    local status, out, errors = helper.train(cfg, overrides, { before = n > 1 and mpirun(n) or nil, limit = 100 })
    assert.equal(0, status, out .. errors)
    return helper.jsonl(dir .. "/training.jsonl"), dir, errors
end

local function close(a, b, tolerance, what)
    assert.is_true(math.abs(a - b) <= tolerance * math.max(1, math.abs(a)),
        ("%s: %.9g and %.9g differ by more than %g"):format(what, a, b, tolerance))
end

local function compare(one, many)
    assert.equal(#one, #many)
    close(one[1].loss, many[1].loss, LOSS, "the first loss")
    close(one[1].grad_norm, many[1].grad_norm, NORM, "the first gradient norm")
    for i, r in ipairs(one) do
        close(r.loss, many[i].loss, LATER, "loss of step " .. i)
        assert.equal(r.num_label_tokens, many[i].num_label_tokens)
        assert.equal(r.num_tokens_per_step, many[i].num_tokens_per_step)
    end
end

local cases = {
    ["full, an epoch that does not fill its last step"] = {},
    ["LoRA"] = { peft = { target_modules = "*_proj", dim = 4 } },
    ["frozen and tied embeddings"] = { freeze_config = { freeze_embeddings = true } },
    ["packed rows"] = { packed_sequence = { packed_sequence_size = 48 } },
    ["small buckets"] = { distributed = { strategy = "ddp", bucket_cap_mb = 0.001 } },
}

describe("data parallel", function()
    if not can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    for name, changes in pairs(cases) do
        it("learns what one rank learns: " .. name, function()
            local one = train(1, changes)
            for _, n in ipairs { 2, 4 } do
                local many, dir = train(n, changes)
                compare(one, many)
                assert.is_true(path.is_file(helper.latest(dir) .. "/rng/rng_dp_rank_" .. n - 1 .. ".json"))
            end
        end)
    end

    it("goes on from a checkpoint with another number of ranks", function()
        local whole = train(1)
        for _, ranks in ipairs { { 2, 1 }, { 1, 4 } } do
            local dir = helper.folder()
            local words = { "--checkpoint.checkpoint_dir", dir }
            train(ranks[1], nil, { "--step_scheduler.max_steps", "7", unpack(words) })
            train(ranks[2], nil, words)
            compare(whole, helper.jsonl(dir .. "/training.jsonl"))
        end
    end)

    it("ends all ranks with the message of the one that fails", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8 } })
        local file = helper.yaml(helper.folder(), cfg)
        local status, _, errors = helper.shell(("%s sh -c 'exec timeout 60 %s %s %s --seed $OMPI_COMM_WORLD_RANK'")
            :format(mpirun(2), helper.amlua, helper.finetune, file))
        assert.not_equal(0, status)
        assert.matches("the configuration of rank %d and rank %d differ", errors)
    end)
end)
