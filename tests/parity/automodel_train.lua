-- Trains a tiny Llama (from files for images a tiny Gemma 3, Qwen2.5-VL or LLaVA) from every example file of NeMo
-- Automodel that resolves, the file untouched: the models and data sets that it names lie in a Hugging Face cache made
-- here (a tiny random model, some rows in the data set's columns), those it names by a path in the folder where the run
-- starts. What is of another architecture trains its configuration all the same. Takes some minutes; reads a checkout,
-- leaves nothing.
-- usage: tests/automodel_examples.sh CHECKOUT --train [TEXT]     TEXT: only files whose name holds it

local files = require("tests.parity.automodel_files")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local vlm = require("tests.recipe.vlm_helper")

local TRAIN_ROWS, VALIDATION_ROWS = 24, 6
local MINUTES = 10 -- for one file

-- Files that cannot, and why.
local left_out = {
    ["llm_pretrain/megatron_pretrain_gpt2.yaml"] = "18500 steps of half a million tokens",
    ["llm_seq_cls/glue/mrpc_roberta_lora.yaml"] = "adapts modules of BERT's names",
    ["vlm_finetune/gemma4/gemma4_4b_te.yaml"] = "attention of transformer_engine",
    ["vlm_finetune/muse_glimmer/muse_glimmer_30b_medpix.yaml"] = "a causal model that sees",
    ["vlm_finetune/muse_glimmer/muse_glimmer_30b_medpix_lora.yaml"] = "a causal model that sees",
}

-- ---- rows in the columns of the data sets ---------------------------------------------------------

local function squad(i)
    return { id = "row" .. i, title = "days", context = "The sky of day " .. i .. " is blue.",
             question = "How is the sky of day " .. i .. "?",
             answers = { text = json.array { "blue" }, answer_start = json.array { 19 } } }
end

local function hellaswag(i)
    return { ind = i, ctx = "On day " .. i .. " a man sits", activity_label = "Sitting", label = tostring(i % 4),
             endings = json.array { "down.", "up.", "in.", "on." } }
end

local function chat(i)
    return { messages = json.array { { role = "user", content = "What is " .. i .. " and one?" },
                                     { role = "assistant", content = "It is " .. i + 1 .. "." } } }
end

local weather = '[{"name": "weather", "description": "The weather", '
    .. '"parameters": {"day": {"type": "int", "description": "which day"}}}]'

local function xlam(i)
    return { id = i, query = "How is the weather on day " .. i .. "?", tools = weather,
             answers = string.format('[{"name": "weather", "arguments": {"day": %d}}]', i) }
end

local function glaive(i)
    return { tools = weather, conversations = json.array {
        { from = "human", value = "How is the weather on day " .. i .. "?" },
        { from = "function_call", value = string.format('{"name": "weather", "arguments": {"day": %d}}', i) },
        { from = "observation", value = '{"sky": "blue"}' }, { from = "gpt", value = "It is fine." },
    } }
end

local function instruction(i)
    return { definition = "Add one to the number.", inputs = tostring(i), targets = tostring(i + 1) }
end

local function completion(i)
    return { prompt = "What is " .. i .. " and one?", completion = tostring(i + 1) }
end

-- Rows with a picture in a column, of PICTURES files beside them.
local PICTURES = 8

local function with_picture(column, fields)
    return function(i)
        local row = { [column] = i % PICTURES + 1 .. ".png" }
        for key, value in pairs(fields) do
            row[key] = value
        end
        return row
    end
end

local on_hub = {
    ["naver-clova-ix/cord-v2"] = with_picture("image", { ground_truth = '{"gt_parse": {"total": {"price": "12"}}}' }),
    ["quintend/rdr-items"] = with_picture("image", { text = "A thing of one colour." }),
    ["mmoukouba/MedPix-VQA"] = with_picture("image_id", { question = "What is it?", answer = "Nothing grave." }),
    ["Shopify/product-catalogue"] = with_picture("product_image", { ground_truth_category = "Paint" }),
    ["medpix-dataset/medpix-dataset"] = with_picture("image_id", { question = "What is it?", answer = "Nothing." }),
    ["rajpurkar/squad"] = squad, ["rowan/hellaswag"] = hellaswag, ["Salesforce/xlam-function-calling-60k"] = xlam,
    ["llamafactory/glaive_toolcall_en"] = glaive, ["Muennighoff/natural-instructions"] = instruction,
    ["allenai/tulu-3-sft-mixture"] = chat,
    ["lm-provers/FineProofs-SFT"] = chat, -- has rows enough for split: train[1024:1152]
}
local row_count = { ["lm-provers/FineProofs-SFT"] = 1152 }

local beside_the_run = { ["sample-datasets/prompt_completion"] = completion, ["sample-datasets/chat"] = chat,
                         ["your/path/to"] = chat }

local function write_rows(folder, row, count)
    for split, first_last in pairs { train = { 1, count }, validation = { count + 1, count + VALIDATION_ROWS },
                                     test = { 1, VALIDATION_ROWS } } do
        local lines = {}
        for i = first_last[1], first_last[2] do
            lines[#lines + 1] = json.encode(row(i))
        end
        helper.write(path.join(folder, split .. ".jsonl"), table.concat(lines, "\n") .. "\n")
    end
end

local function write_pictures(folder)
    for i = 1, PICTURES do
        helper.write(path.join(folder, i .. ".png"), (vlm.picture(i, 40, 30)))
    end
end

-- ---- the cache ------------------------------------------------------------------------------------

-- A repository's folder in a cache's hub folder; nil when it is there already.
local function new_snapshot(hub, kind, repo)
    local folder = path.join(hub, kind .. "--" .. repo:gsub("/", "--"))
    if path.is_dir(folder) then
        return nil
    end
    local commit = ("ab"):rep(20)
    helper.write(folder .. "/refs/main", commit)
    return path.mkdir_p(folder .. "/snapshots/" .. commit)
end

-- Puts a copy of `model` where each model is looked for that a part of a configuration names.
local function add_models(hub, node, model)
    for key, value in pairs(node) do
        if type(value) == "table" then
            add_models(hub, value, model)
        elseif key == "pretrained_model_name_or_path" then
            local folder = new_snapshot(hub, "models", value)
            if folder then
                helper.copy(model .. "/.", folder)
            end
        end
    end
end

-- The tiny model of images and text that a file's processor section has the keys of.
local function seeing(name)
    local family = name:find("gemma", 1, true) and "gemma3" or name:find("qwen", 1, true) and "qwen2_5_vl" or "llava"
    return vlm.model(family, { max_position_embeddings = 8192 },
                     family == "qwen2_5_vl" and { patch_size = 14, window_size = 56 } or nil)
end

-- ---- training -------------------------------------------------------------------------------------

-- Trains from a file in a folder of its own, in which examples/ is there as in the checkout; nil when that went well,
-- else what it printed.
local function problem_of(root, file, recipe, home)
    local dir = helper.folder()
    posix.symlink(path.absolute(root), dir .. "/examples")
    for folder, row in pairs(beside_the_run) do
        write_rows(path.join(dir, folder), row, TRAIN_ROWS)
    end
    local status, out, errors = helper.shell(string.format(
        "cd %s && HF_HUB_OFFLINE=1 HF_TOKEN=none HF_HOME=%s timeout %d %s %s %s", helper.quote(dir), helper.quote(home),
        MINUTES * 60, helper.quote(path.absolute(helper.amlua)),
        helper.quote(path.absolute("recipes/" .. recipe .. ".lua")), helper.quote(file)))
    if status ~= 0 then
        return string.format("status %d\n%s", status, out:sub(-2000) .. errors:sub(-2000))
    end
    local step = recipe == "benchmark" and "\nloss +%d" or "step %d+ | epoch"
    if not (out .. errors):find(step) then
        return "no step was taken\n" .. errors:sub(-2000)
    end
end

local function main()
    local root = files.root(arg[1])
    local home = helper.folder()
    local hub = path.join(home, "hub")
    local text = helper.model({ max_position_embeddings = 8192 }, helper.text_model())
    for repo, row in pairs(on_hub) do
        local folder = new_snapshot(hub, "datasets", repo)
        write_rows(folder, row, row_count[repo] or TRAIN_ROWS)
        write_pictures(folder)
    end
    local trained, failed, skipped = 0, 0, 0
    for _, name in ipairs(files.list(root)) do
        local file = path.absolute(path.join(root, name))
        local verdict, cfg, recipe = files.judge(file)
        if verdict == "resolved" and name:find(arg[2] or "", 1, true) then
            if left_out[name] then
                skipped = skipped + 1
                print("left out " .. name .. ": " .. left_out[name])
            else
                add_models(hub, cfg:to_table(), name:find("^vlm") and seeing(name) or text)
                local start = posix.time()
                local problem = problem_of(root, file, recipe, home)
                trained, failed = trained + (problem and 0 or 1), failed + (problem and 1 or 0)
                print(string.format("%s %s (%.0f s)", problem and "failed" or "trained", name, posix.time() - start))
                if problem then
                    print("  " .. problem:gsub("\n", "\n  "))
                end
            end
        end
    end
    helper.cleanup()
    print(string.format("%d trained, %d failed, %d left out", trained, failed, skipped))
    return failed == 0 and 0 or 1
end

return main()
