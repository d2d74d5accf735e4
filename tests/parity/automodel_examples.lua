-- Which of NeMo Automodel's example configurations are understood. Reads a checkout of it, trains nothing and
-- needs no model: a file is
--   resolved      every section, key and target passes validation by the schema of its recipe
--   unsupported   valid, and something in it is named as not there yet
--   failed        anything else
-- Files of the families below resolve, or are in automodel_examples.tsv with the reason why not.
-- usage: amlua tests/parity/automodel_examples.lua CHECKOUT [-v]

local files = require("tests.parity.automodel_files")
local path = require("am.utils.path")
local strings = require("am.utils.strings")

local families = { "llm_pretrain/*", "llm_kd/*", "llm_seq_cls/*", "vlm_finetune/gemma3/*", "vlm_finetune/qwen2_5/*" }
for family in ("llama3_1 llama3_2 llama3_3 qwen gemma mistral phi granite olmo starcoder falcon"):gmatch("%S+") do
    families[#families + 1] = "llm_finetune/" .. family .. "/*"
end

local function must_resolve(name)
    for _, family in ipairs(families) do
        if strings.wildcard(family, name) then
            return true
        end
    end
    return false
end

-- Files that are known not to resolve: name -> reason.
local function known_exceptions()
    local known = {}
    for line in assert(path.read_file("tests/parity/automodel_examples.tsv")):gmatch("[^\n]+") do
        local name, reason = line:match("^([^#\t]+)\t(.+)$")
        if name then
            known[name] = reason
        end
    end
    return known
end

local root = files.root(assert(arg[1], "usage: amlua tests/parity/automodel_examples.lua CHECKOUT [-v]"))
local known, verbose = known_exceptions(), arg[2] == "-v"
local count, problems = { resolved = 0, unsupported = 0, failed = 0 }, {}
for _, name in ipairs(files.list(root)) do
    local verdict, msg = files.judge(path.join(root, name))
    count[verdict] = count[verdict] + 1
    msg = verdict ~= "resolved" and msg:gsub(root:gsub("%p", "%%%0") .. "/", "")
    print(verdict .. " " .. name)
    if msg and (verbose or verdict == "failed") then
        print("  " .. msg:gsub("\n", "\n  "))
    end
    if verdict == "failed" then
        problems[#problems + 1] = name .. " fails"
    elseif verdict == "unsupported" and must_resolve(name) and not known[name] then
        problems[#problems + 1] = name .. " does not resolve, and has no reason in automodel_examples.tsv"
    elseif verdict == "resolved" and known[name] then
        problems[#problems + 1] = name .. " resolves: take it out of automodel_examples.tsv"
    end
    known[name] = nil
end
for name in pairs(known) do
    problems[#problems + 1] = name .. " of automodel_examples.tsv is no file"
end
print(string.format("%d resolved, %d named as unsupported, %d failed", count.resolved, count.unsupported, count.failed))
for _, problem in ipairs(problems) do
    print("problem: " .. problem)
end
return #problems == 0 and 0 or 1
