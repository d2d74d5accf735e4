-- A decoder's layer: attention and feed-forward, each added to what comes in. Two kinds: one after the other, with
-- norms before or after them (nearly all families), and both from the same input (GPT-NeoX, Falcon, Phi).
--
-- Modules are given as {name, module}, the name being that of the checkpoint. Layers are called with
-- x [B, T, C], the rotary table of the positions and ctx {bounds=, cache=, layer=, checkpointing=}.

local autograd = require("am.core.autograd")
local Module = require("am.nn.module")

local M = {}

-- Add the modules under their names, and keep them under their roles: replacing one by name is seen, too.
local function assemble(self, parts, roles)
    self.names = {}
    for _, role in ipairs(roles) do
        if parts[role] then
            self:add(unpack(parts[role]))
            self.names[role] = parts[role][1]
        end
    end
    self.dropout, self.multiplier, self.drop_sum = parts.dropout or 0, parts.multiplier, parts.drop_sum
    self.attention_dropout = parts.attention_dropout or self.dropout
    return self
end

-- A part's output by its role; x itself where the layer has no such part.
local function run(self, role, x, ...)
    local name = self.names[role]
    if name then
        return self[name]:forward(x, ...)
    end
    return x
end

local function drop(self, x, p)
    return self.training and p > 0 and x:dropout(p) or x
end

local Sequential = Module.class("DecoderLayer")
M.DecoderLayer = Sequential

---@class am.DecoderLayerParts
---@field attention table
---@field mlp table
---@field attention_norm table? before attention
---@field attention_post_norm table? after it, before the sum
---@field mlp_norm table? before the feed-forward block
---@field mlp_post_norm table? after it, before the sum
---@field dropout number? of what both give, in training
---@field attention_dropout number? of what attention gives, where that is another
---@field drop_sum boolean? of two parts from the same input, their sum is dropped and not each of them
---@field multiplier number? of what both give

--- x = x + post_norm(attention(norm(x))), then the same with the feed-forward block.
---@param parts am.DecoderLayerParts
function Sequential.new(parts)
    return assemble(Module.init(Sequential), parts, { "attention", "mlp", "attention_norm", "mlp_norm",
                                                      "attention_post_norm", "mlp_post_norm" })
end

local function add(self, x, y, p)
    y = drop(self, y, p)
    return x + (self.multiplier and y * self.multiplier or y)
end

-- The feed-forward part, computed again in backward with "selective" checkpointing.
local function feed(ctx, fn, x)
    if ctx.checkpointing == "selective" then
        return autograd.checkpoint(fn, x)
    end
    return fn(x)
end

--- [B, T, C] -> the same shape; of a layer with experts also the router's logits.
function Sequential:forward(x, rotary, ctx)
    local y = run(self, "attention", run(self, "attention_norm", x), rotary, ctx)
    x = add(self, x, run(self, "attention_post_norm", y), self.attention_dropout)
    local fed, logits = feed(ctx, function(h)
        local out, routed = run(self, "mlp", run(self, "mlp_norm", h))
        return run(self, "mlp_post_norm", out), routed
    end, x)
    return add(self, x, fed, self.dropout), logits
end

local Parallel = Module.class("ParallelDecoderLayer")
M.ParallelDecoderLayer = Parallel

--- x + attention(attention_norm(x)) + mlp(mlp_norm(x)); without mlp_norm the first norm is both's.
---@param parts am.DecoderLayerParts
function Parallel.new(parts)
    return assemble(Module.init(Parallel), parts, { "attention", "mlp", "attention_norm", "mlp_norm" })
end

--- [B, T, C] -> the same shape
function Parallel:forward(x, rotary, ctx)
    local normed = run(self, "attention_norm", x)
    local attended = run(self, "attention", normed, rotary, ctx)
    local fed = feed(ctx, function(h)
        return run(self, "mlp", run(self, "mlp_norm", h))
    end, self.names.mlp_norm and x or normed)
    if self.drop_sum then
        return x + drop(self, attended + fed, self.dropout)
    end
    return x + (drop(self, attended, self.attention_dropout) + drop(self, fed, self.dropout))
end

return M
