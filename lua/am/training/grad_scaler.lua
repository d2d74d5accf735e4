-- The loss scale of training in float16, as torch.amp.GradScaler has it: the loss is multiplied by `scale` before
-- backward, so that small gradients are not 0 in float16, and gradients are divided by it before they are used. A step
-- with a gradient that is infinite or NaN is left out and makes the scale smaller; enough clean steps make it larger.
-- Holds the numbers alone: the step itself is the recipe's (lua/am/recipes/update.lua).

local ffi = require("ffi")
local err = require("am.core.error")

local M = {}

--- What the `grad_scaler` section may hold.
M.fields = {
    enabled = { type = "boolean", doc = "scale the loss; by default where the model is in float16" },
    init_scale = { type = "number", above = 0, max = 2 ^ 127, default = 65536, doc = "the first scale" },
    growth_factor = { type = "number", above = 1, default = 2, doc = "of the scale after growth_interval clean steps" },
    backoff_factor = { type = "number", above = 0, below = 1, default = 0.5,
                       doc = "of the scale after a step with a gradient that is no number" },
    growth_interval = { type = "integer", min = 1, default = 2000, doc = "clean steps one after the other" },
    device = { type = "string", no_effect = "gradients are where the model is" },
}

-- The least scale that is worth going on with: float16's smallest number times it is far below what float32 keeps of a
-- gradient's sum, so a gradient that still overflows comes from the forward pass. It is 30 halvings below 65536.
local LEAST = 2 ^ -14

---@class am.GradScaler
---@field scale number what the next step's loss is multiplied by
---@field growth_tracker integer clean steps since the scale changed
local GradScaler = {}
GradScaler.__index = GradScaler

-- A number as float32 has it, which torch keeps its scale in.
local function rounded(x)
    return tonumber(ffi.new("float", x))
end

--- A scaler; opts: the keys of `fields`.
---@return am.GradScaler
function M.GradScaler(opts)
    local self = setmetatable({ growth_tracker = 0, enabled = opts.enabled }, GradScaler)
    for _, key in ipairs { "growth_factor", "backoff_factor", "growth_interval" } do
        self[key] = opts[key] or M.fields[key].default
    end
    self.scale = rounded(opts.init_scale or M.fields.init_scale.default)
    return self
end

--- Behind a step: grow after enough clean ones, or back off where it was `skipped`.
function GradScaler:update(skipped)
    if skipped then
        self.scale, self.growth_tracker = rounded(self.scale * self.backoff_factor), 0
        return
    end
    self.growth_tracker = self.growth_tracker + 1
    if self.growth_tracker == self.growth_interval then
        local grown = rounded(self.scale * self.growth_factor)
        self.scale, self.growth_tracker = grown < math.huge and grown or self.scale, 0
    end
end

--- Is the scale so small that it can't be what keeps gradients from being finite?
function GradScaler:is_used_up()
    return self.scale < LEAST
end

function GradScaler:state_dict()
    return { scale = self.scale, growth_tracker = self.growth_tracker }
end

--- Go on from a saved state; how fast the scale changes is the configuration's.
function GradScaler:load_state_dict(state)
    local scale, tracker = state.scale, state.growth_tracker
    if type(scale) ~= "number" or not (scale > 0 and scale < math.huge) then
        err.raise("format", "grad scaler state: scale must be a finite number above 0, not %s", tostring(scale))
    elseif type(tracker) ~= "number" or tracker < 0 or tracker % 1 ~= 0 or tracker > 2 ^ 53 then
        err.raise("format", "grad scaler state: growth_tracker must be a whole number of at least 0, not %s",
                  tostring(tracker))
    end
    self.scale, self.growth_tracker = rounded(scale), tracker
end

return M
