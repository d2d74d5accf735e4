-- How fast a fine-tuning configuration runs on this machine, and in how much memory: the configuration's
-- model, PEFT, optimizer and batch sizes on rows of random ids that are full length. Nothing is saved.
--
--   amlua recipes/benchmark.lua config.yaml [--benchmark.seq_len 512] [--profile [trace.json]]

local am = require("am")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local flops = require("am.recipes.flops")
local hooks = require("am.training.hooks")
local json = require("am.utils.json")
local llm_finetune = require("recipes.llm_finetune")
local memory = require("am.recipes.memory")
local number = require("am.utils.number")
local path = require("am.utils.path")
local profile = require("am.training.profile")
local training = require("am.training")

local Recipe = llm_finetune:extend("benchmark")
Recipe.doc = "Measure the speed and memory of a fine-tuning configuration."

local elsewhere = { type = "any", no_effect = "it belongs to GPUs" }
local settings = {
    warmup_steps = { type = "integer", min = 1, default = 3, doc = "steps that don't count" },
    steps = { type = "integer", min = 1, default = 10, doc = "steps that do" },
    seq_len = { type = "integer", min = 2, doc = "tokens of a row; packed_sequence_size or 512" },
    peak_tflops = { type = "number", above = 0, doc = "of the machine; measured when absent" },
    json_output_path = { type = "string", doc = "write the figures there, too" },
    num_nodes = elsewhere, nsys_start = elsewhere, nsys_end = elsewhere, nsys_ranks = elsewhere,
}

function Recipe.schema()
    local fields = llm_finetune.schema()
    fields.dataset.required = nil -- any will do, and none
    fields.benchmark = { fields = settings, doc = "what is measured" }
    fields.profile = { type = "boolean|string",
                       doc = "what each op takes; with a file's name a trace for Perfetto" }
    return fields
end

-- ---- setup: a training run on other rows, without checkpoints and logs ------------------------

function Recipe:setting(key)
    local value = self.cfg:get("benchmark." .. key)
    return value == nil and settings[key].default or value
end

--- All steps: those that don't count, those that do, and one for the profile.
function Recipe:step_count()
    return self:setting("warmup_steps") + self:setting("steps") + 1
end

Recipe.takes_ranks = false

function Recipe:setup()
    local packed = self.cfg:get("packed_sequence.packed_sequence_size") or 0
    self.seq_len = self:setting("seq_len") or (packed > 0 and packed or 512)
    for _, section in ipairs { "packed_sequence", "validation_dataset", "step_scheduler.num_epochs" } do
        self.cfg:unset(section)
    end
    self.cfg:set("checkpoint.enabled", false)
    self.cfg:set("step_scheduler.max_steps", self:step_count())
    llm_finetune.setup(self)
end

--- Row i: `length` random ids and the ids that follow them.
function Recipe.row(seed, i, length, vocab_size)
    local ids, labels = {}, {}
    for k = 1, length + 1 do
        ids[k] = edge.C.am_rng_u32(seed, i, k) % vocab_size
        labels[k - 1] = ids[k]
    end
    ids[length + 1], labels[0] = nil, nil
    return { input_ids = ids, labels = labels }
end

--- Rows of seq_len random ids, all of them learnt; enough for every step.
function Recipe:build_dataset()
    local rows = self:step_count() * self:batch_rows()
    return {
        len = function() return rows end,
        get = function(_, i) return self.row(self.seed, i, self.seq_len, self.model.config.vocab_size) end,
    }
end

function Recipe:batch_rows()
    local sizes = training.batch_sizes(self:section("step_scheduler"), self.cfg:get("dataloader.batch_size"))
    return sizes.global_batch_size, sizes.local_batch_size
end

function Recipe.claim_folder() end -- nothing is written
function Recipe.open_logs() end

function Recipe.build_hooks() return hooks.new {} end

-- ---- measuring ------------------------------------------------------------------------------

-- Peak resident memory of this process in bytes.
local function peak_resident()
    local status = path.read_file("/proc/self/status") or ""
    return (tonumber(status:match("VmHWM:%s*(%d+) kB")) or 0) * 1024
end

--- Steps that count and, behind each of them, the rate of the products alone: both vary from minute to
--- minute, and together. Memory is what there was before the first of those.
function Recipe:train()
    local micro = select(2, self:batch_rows()) * self.seq_len
    local times, rates, before, product_rate, last_loss = {}, {}, nil, nil, nil
    for i = 1, self:step_count() - 1 do
        local metrics = self:step()
        last_loss = metrics.loss
        if i > self:setting("warmup_steps") then
            before = before or { resident = peak_resident(),
                                 tensors = tonumber(am.memory(self.model:device()).peak_bytes) }
            product_rate = product_rate or flops.product_rate(self.model, micro)
            times[#times + 1], rates[#rates + 1] = metrics.seconds, product_rate()
        end
        if self:stop_requested() then
            return
        end
    end
    local profiled = self.cfg:get("profile") and profile.run(function() self:step() end)
    self:report(self:figures(times, rates, before, last_loss), profiled)
end

-- A list's median, least and largest number.
local function spread(list)
    local sorted = {}
    for i, x in ipairs(list) do
        sorted[i] = x
    end
    table.sort(sorted)
    return (sorted[math.ceil(#sorted / 2)] + sorted[math.ceil((#sorted + 1) / 2)]) / 2, sorted[1], sorted[#sorted]
end

--- last_loss: that of the last step that counts; every step before it is in its digits.
function Recipe:figures(times, rates, before, last_loss)
    local rows, micro = self:batch_rows()
    local length = self.seq_len
    local seconds, least, most = spread(times)
    local linear, attention = flops.of_step(self.model, rows, length)
    local kept, needed = memory.kept(self.model, self:optimizer_options(), micro * length), 0
    for _, bytes in pairs(kept) do
        needed = needed + bytes
    end
    local rate, shares = (linear + attention) / seconds, {}
    for i, t in ipairs(times) do
        shares[i] = (linear + attention) / t / rates[i]
    end
    return {
        model = self.model.name_or_path, dtype = self.model:dtype(), peft = self.peft_config ~= nil,
        rows = rows, local_rows = micro, seq_len = length, threads = edge.C.am_threads(),
        isa = ffi.string(edge.C.am_cpu_isa()), steps = #times, last_loss = last_loss,
        seconds = times, seconds_min = least, seconds_median = seconds, seconds_max = most,
        tokens_per_second = rows * length / seconds,
        flops_per_step = linear + attention, flops_per_second = rate,
        gemm_flops_per_second = (spread(rates)), gemm_share = (spread(shares)), gemm_shares = shares,
        mfu = self:setting("peak_tflops") and rate / (self:setting("peak_tflops") * 1e12) or nil,
        peak_resident_bytes = before.resident, peak_tensor_bytes = before.tensors,
        kept_bytes = kept, peak_per_kept = before.resident / needed,
    }
end

function Recipe:report(f, profiled)
    io.write(string.format([[
run        %s, %s, %s; %d rows of %d tokens a step, %d at a time; %d threads, %s
step       min %.3f s, median %.3f s, max %.3f s of %d
speed      %.1f tokens/s
computes   %.1f GFLOP a step, %.1f GFLOP/s
products   %.1f GFLOP/s at this model's shapes, behind each step; the step runs at %.1f %% of it
memory     %.2f GB resident at most, %.2f GB of tensors; resident is %.2f times what must be kept:
kept       %.2f GB of weights, %.2f of gradients, %.2f of optimizer state, %.2f of activations
loss       %s in the last step; equal seeds, equal digits
]], f.model or "(new)", f.dtype, f.peft and "LoRA" or "all weights", f.rows, f.seq_len, f.local_rows, f.threads, f.isa,
        f.seconds_min, f.seconds_median, f.seconds_max, f.steps, f.tokens_per_second, f.flops_per_step / 1e9,
        f.flops_per_second / 1e9, f.gemm_flops_per_second / 1e9, 100 * f.gemm_share, f.peak_resident_bytes / 1e9,
        f.peak_tensor_bytes / 1e9, f.peak_per_kept, f.kept_bytes.weights / 1e9, f.kept_bytes.gradients / 1e9,
        f.kept_bytes.optimizer / 1e9, f.kept_bytes.activations / 1e9, number.float_text(f.last_loss)))
    if f.mfu then
        io.write(string.format("MFU        %.1f %% of %g TFLOP/s\n", 100 * f.mfu, self:setting("peak_tflops")))
    end
    if profiled then
        io.write("\n", profile.table(profiled), "\n")
        local file = self.cfg:get("profile")
        if type(file) == "string" then
            profile.write_trace(profiled, file)
            io.write("\nwrote ", file, "; open it in https://ui.perfetto.dev\n")
        end
    end
    local output = self:setting("json_output_path")
    if output then
        path.write_file(output, json.encode(f, { sort_keys = true }) .. "\n")
    end
end

return Recipe
