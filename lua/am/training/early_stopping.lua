-- Early stopping: ends a run whose validation gets no better. Measures nothing itself; see hooks.lua.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

--- What the `early_stopping` section may hold.
M.fields = {
    patience = { type = "integer", min = 1, default = 3, doc = "validations without a better one" },
    min_delta = { type = "number", min = 0, default = 0, doc = "less than this is no improvement" },
    metric = { type = "string", default = "val_loss", doc = "a key of validation.jsonl" },
    mode = { type = "string", default = "min", enum = { "min", "max" }, doc = "whether less or more is better" },
    validation = { type = "string", doc = "name of the validation set; the first by default" },
}

local EarlyStopping = { name = "early_stopping" }
EarlyStopping.__index = EarlyStopping

--- A hook; opts: the keys of `fields`. It asks the recipe to stop(reason).
function M.new(opts)
    return setmetatable({ patience = opts.patience or M.fields.patience.default, metric = opts.metric or "val_loss",
                          min_delta = opts.min_delta or 0, sign = opts.mode == "max" and -1 or 1,
                          set = opts.validation, waited = 0 }, EarlyStopping)
end

function EarlyStopping:setup(recipe)
    self.set = self.set ~= "default" and self.set or recipe:validation_names()[1]
    local keys = recipe:validation_keys()
    if not keys[self.metric] then
        err.raise("usage", 'early_stopping.metric: validation has no "%s"; it has %s', self.metric,
                  table.concat(strings.sorted_keys(keys), ", "))
    elseif self.waited >= self.patience then
        recipe:stop(self:reason())
    end
end

local function is_finite(value)
    return value - value == 0
end

function EarlyStopping:reason()
    local what = self.best and string.format("a better %s than %.6g", self.metric, self.best)
        or string.format("a finite %s", self.metric)
    return string.format("early_stopping: %d validations without %s; raise early_stopping.patience to go on",
                         self.waited, what)
end

function EarlyStopping:validation(recipe, name, record)
    if name ~= self.set then
        return
    end
    local value = record[self.metric]
    if type(value) ~= "number" then
        err.raise("usage", 'early_stopping.metric: validation has no number "%s"', self.metric)
    end
    if is_finite(value) and (not self.best or self.sign * (self.best - value) > self.min_delta) then
        self.best, self.waited = value, 0
        return
    end
    self.waited = self.waited + 1
    if self.waited >= self.patience then
        recipe:stop(self:reason())
    end
end

function EarlyStopping:state_dict()
    return { best = self.best, waited = self.waited }
end

function EarlyStopping:load_state_dict(state)
    for _, key in ipairs { "best", "waited" } do
        local value = state[key]
        if value ~= nil and (type(value) ~= "number" or not is_finite(value)) or (key == "waited" and value == nil) then
            err.raise("format", "early stopping state: %s must be a finite number, not %s", key, tostring(value))
        end
    end
    self.best, self.waited = state.best, state.waited
end

return M
