-- recipes/llm_finetune.lua that compares, after every step, all ranks' weights, bit for bit. For ddp_spec.lua.

local ffi = require("ffi")
local parent = require("recipes.llm_finetune")

local Recipe = parent:extend("replicas")

function Recipe:step(window)
    local metrics, bytes = parent.step(self, window), {}
    for _, t in self.model:named_parameters() do
        local buffer, n = t:detach():to("float32"):to_buffer()
        bytes[#bytes + 1] = ffi.string(buffer, 4 * n)
    end
    self.world:check_equal("the weights after step " .. self.scheduler.step, table.concat(bytes))
    return metrics
end

return Recipe
