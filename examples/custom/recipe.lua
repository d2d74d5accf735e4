-- A recipe of one's own: llm_finetune that freezes the lower half of the layers and says after each
-- step how far the loss has come. Everything else is inherited.
--   amlua examples/custom/recipe.lua examples/custom/recipe.yaml

local parent = require("recipes.llm_finetune")
local Recipe = parent:extend("half_frozen")

function Recipe:build_model()
    local model = parent.build_model(self)
    local half = math.floor(model.config.num_hidden_layers / 2)
    for name, t in model:named_parameters() do
        local layer = tonumber(name:match("%.layers%.(%d+)%."))
        if layer and layer < half then
            t.requires_grad = false
        end
    end
    return model
end

function Recipe:step(window)
    local metrics = parent.step(self, window)
    self.first_loss = self.first_loss or metrics.loss
    self.log:info("loss has come down by %.4f", self.first_loss - metrics.loss)
    return metrics
end

return Recipe
