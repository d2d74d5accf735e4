-- An exponential moving average of the trained weights: average = decay average + (1 - decay) weight after
-- every step, in f32, as torch.optim.swa_utils.get_ema_multi_avg_fn has it. A hook (hooks.lua); what a file
-- of a model looks like is the recipe's.
--
-- Where weights of 16 bits have f32 masters, the masters are averaged. Validation is of the averaged
-- weights (unless validate is false), and every checkpoint has a folder ema/: averages.safetensors to go on
-- from, and the averaged model as the recipe exports it, when it exports the trained one too.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local path = require("am.utils.path")
local scope = require("am.core.scope")

local M = {}

--- What the `ema` section may hold.
M.fields = {
    decay = { type = "number", min = 0, below = 1, default = 0.999, doc = "weight of the average so far" },
    validate = { type = "boolean", default = true, doc = "validate the averaged weights, not the trained ones" },
}

local EMA = { name = "ema", every_rank = true }
EMA.__index = EMA

-- The tensor that holds a weight most exactly: its master, or itself.
local function sources(recipe)
    local masters, list = {}, {}
    for name, what, t in recipe.optimizer:state_tensors() do
        if what == "master" then
            masters[name] = t
        end
    end
    for name, t in recipe.layout:named_parameters() do
        if t.requires_grad then
            list[#list + 1] = { name = name, weight = t, source = masters[name] or t }
        end
    end
    return list
end

--- A hook; opts: the keys of `fields`. The recipe writes and reads lists of { name, tensor, name } by write_tensors and
--- read_tensors, as its ranks share them.
function M.new(opts)
    return setmetatable({ decay = opts.decay or M.fields.decay.default, validate = opts.validate ~= false }, EMA)
end

-- The averages, which begin as the weights are.
function EMA:begin(recipe)
    self.list = sources(recipe)
    for _, item in ipairs(self.list) do
        local wide = item.weight:dtype() == "float64" and "float64" or "float32"
        item.average = scope.escape(item.source:detach():to(wide):clone())
    end
end

local function named_averages(self)
    local out = {}
    for i, item in ipairs(self.list) do
        out[i] = { item.name, item.average, item.name }
    end
    return out
end

function EMA:load(recipe, dir)
    self:begin(recipe)
    if path.is_dir(dir .. "/ema") then -- else the run had no averages before
        recipe:read_tensors(dir .. "/ema", "averages", named_averages(self))
    end
end

function EMA:setup(recipe)
    if not self.list then
        self:begin(recipe)
    end
end

function EMA:updated()
    autograd.no_grad(function()
        for _, item in ipairs(self.list) do
            scope.scope(function()
                local average = item.average
                average:copy_(average * self.decay + item.source:detach():to(average:dtype()) * (1 - self.decay))
            end)
        end
    end)
end

-- Put the averages into the model, and keep what was there.
function EMA:exchange(recipe)
    if self.swapped then
        err.raise("internal", "the averaged weights are in the model already")
    end
    self.swapped = {}
    recipe:release_weights()
    autograd.no_grad(function()
        for i, item in ipairs(self.list) do
            self.swapped[i] = scope.escape(item.weight:detach():clone())
            item.weight:detach():copy_(item.average)
        end
    end)
end

function EMA:exchange_back(recipe)
    recipe:release_weights()
    autograd.no_grad(function()
        for i, kept in ipairs(self.swapped) do
            self.list[i].weight:detach():copy_(kept)
            kept:release()
        end
    end)
    self.swapped = nil
end

function EMA:before_validation(recipe)
    if self.validate then
        self:exchange(recipe)
    end
end

function EMA:after_validation(recipe)
    if self.swapped then
        self:exchange_back(recipe)
    end
end

function EMA:save(recipe, dir, is_last)
    recipe:write_tensors(dir .. "/ema", "averages", named_averages(self))
    if recipe:exports(is_last) then
        self:exchange(recipe)
        local ok, e = pcall(recipe.export_model, recipe, dir .. "/ema/model")
        self:exchange_back(recipe)
        if not ok then
            error(e, 0)
        end
    end
end

return M
