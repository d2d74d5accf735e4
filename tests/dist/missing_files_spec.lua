-- A rank that lacks the model or the data: one message that names the rank, its host and the file, and all end.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local ranks = require("tests.dist.ranks")

ranks.describe("a rank without a file", function()
    -- Ranks of which each sees, under one name, a folder of its own.
    local function run(n, changes, own)
        local dir = helper.folder()
        local link = dir .. "/seen"
        local cfg = helper.config(dir .. "/ck", { step_scheduler = { global_batch_size = 6 } })
        for key, section in pairs(changes(link)) do
            cfg[key] = section
        end
        local file = helper.yaml(dir, cfg)
        for rank = 0, n - 1 do
            own(path.mkdir_p(dir .. "/of" .. rank), rank)
        end
        path.mkdir_p(link)
        local mount = ("mount --bind %s/of$OMPI_COMM_WORLD_RANK %s"):format(dir, link)
        return helper.shell(("%s unshare -m sh -c '%s && exec timeout 60 %s %s %s'")
            :format(ranks.mpirun(n), mount, helper.amlua, helper.finetune, file))
    end

    local can = os.execute("unshare -m true 2>/dev/null") == 0
    local function check(name, wanted, changes, own, n)
        it(name, function()
            if not can then
                pending("root is needed, for folders of each rank's own")
                return
            end
            local status, out, errors = run(n or 3, changes, own)
            local text = out .. errors
            assert.is_true(status == 1 or status == 2, text)
            local _, messages = text:gsub("| ERROR |", "")
            assert.equal(1, messages, text)
            assert.matches(wanted, text)
            assert.is_nil(text:find("traceback", 1, true), text)
        end)
    end

    local function with_model(link)
        return { model = { _target_ = "am.AutoModelForCausalLM.from_pretrained",
                           pretrained_model_name_or_path = link .. "/model" } }
    end
    check("of the model says so", "rank 1 %(host [^)]+%): [^\n]*/seen/model", with_model, function(dir, rank)
        if rank ~= 1 then
            helper.copy(helper.tiny, dir .. "/model")
        end
    end)
    check("of the model's weights says so, with how many others", "rank 1 %(host [^)]+%), and 1 more ranks?: [^\n]*"
          .. "/seen/model", with_model, function(dir, rank)
        helper.copy(helper.tiny, dir .. "/model")
        if rank > 0 then
            os.remove(dir .. "/model/model.safetensors")
        end
    end)
    local function with_rows(link)
        return { dataset = { _target_ = "am.datasets.PretokenizedDataset",
                             path_or_dataset_id = link .. "/rows.jsonl" } }
    end
    local row = '{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}\n'
    check("of rows says so", "rank 2 %(host [^)]+%): [^\n]*/seen/rows.jsonl", with_rows, function(dir, rank)
        if rank < 2 then
            helper.write(dir .. "/rows.jsonl", row:rep(20))
        end
    end)
    check("is not named where all lack it", "| ERROR | am.recipe | /[^\n]*/seen/rows.jsonl", with_rows,
          function() end)

    check("that has more rows is named before a step", "the data of rank 0 and rank 2 differ %(dataset: 20 rows",
          with_rows, function(dir, rank)
        helper.write(dir .. "/rows.jsonl", row:rep(rank < 2 and 20 or 40))
    end)
    check("that has other rows is named before a step", "the data of rank 0 and rank 1 differ %(dataset: 20 rows",
          with_rows, function(dir, rank)
        helper.write(dir .. "/rows.jsonl", row:rep(19) .. (rank == 1 and row:gsub("4", "5") or row))
    end)
    check("that has another folder of checkpoints is named before a step",
          "checkpoint.checkpoint_dir: rank 1 %(host [^)]+%) wrote [^\n]*/seen/ck/[^\n]* which is not there",
          function(link) return { checkpoint = { checkpoint_dir = link .. "/ck" } } end,
          function(dir) path.mkdir_p(dir .. "/ck") end)

    local function said_once(wanted, words)
        local status, _, errors = helper.shell(("%s sh -c 'exec timeout 60 %s %s %s'")
            :format(ranks.mpirun(3), helper.amlua, helper.finetune, words))
        assert.equal(2, status, errors)
        local _, messages = errors:gsub("| ERROR |[^\n]*" .. wanted, "")
        assert.equal(1, messages, errors)
        assert.is_nil(errors:find("amlua:", 1, true), errors)
    end

    it("of its configuration says so", function()
        local dir = helper.folder()
        for rank = 0, 2 do
            helper.yaml(path.mkdir_p(dir .. "/" .. rank), helper.config(dir .. "/ck"))
        end
        os.remove(dir .. "/1/config.yaml")
        said_once("rank 1 %(host [^)]+%): cannot read the configuration: [^\n]*/1/config.yaml",
                  dir .. "/$OMPI_COMM_WORLD_RANK/config.yaml")
    end)

    it("is one message as a mistake in the configuration is", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder()))
        said_once("did you mean \"seed\"", file .. " --seedd 3")
    end)

    it("is one message as a time-out below 0 is", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder()))
        said_once("dist_env.timeout_minutes: must be at least 0", file .. " --dist_env.timeout_minutes -1")
    end)

    it("is one message as what a configuration is warned of is", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder()))
        local _, _, errors = helper.shell(("%s sh -c 'exec timeout 60 %s %s %s --step_scheduler.val_every_steps 50'")
            :format(ranks.mpirun(2), helper.amlua, helper.finetune, file))
        local _, warnings = errors:gsub("so nothing is validated", "")
        assert.equal(1, warnings, errors)
    end)

    it("is one message as what a model cannot do on so many ranks is", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder()))
        said_once("tp_size: 3 does not divide num_attention_heads", file .. " --distributed.tp_size 3")
        said_once("tp_size asks for a multiple of 2 processes", file .. " --distributed.tp_size 2")
    end)

    it("is one message as sizes that do not fit are, whatever finds them", function()
        for words, wanted in pairs {
            ["tp_size 2"] = "tp_size asks for a multiple of 2 processes, but this run has 3 ranks",
            ["pp_size 3"] = "3 stages are more than the model's 2 layers",
            ["ep_size 2"] = "ep_size: 2 does not divide the 3 ranks",
            ["tp_size 3"] = "tp_size: 3 does not divide num_",
            ["mp_policy.param_dtype float99"] = "distributed.mp_policy.param_dtype: unknown dtype",
        } do
            local cfg = helper.config(helper.folder(), { step_scheduler = { global_batch_size = 6 } })
            said_once(wanted, helper.yaml(helper.folder(), cfg) .. " --distributed." .. words)
        end
    end)

    it("is one message where ranks have other configurations, also of who shares what", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder(),
            { step_scheduler = { global_batch_size = 6 }, distributed = { strategy = "fsdp2" } }))
        said_once("the configuration of rank 0 and rank 1 differ %(tp_size: 3, tp_size: 1%)",
                  file .. " --distributed.tp_size $((OMPI_COMM_WORLD_RANK == 1 ? 1 : 3))")
    end)
end)
