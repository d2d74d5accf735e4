-- Causal self-attention with grouped key/value heads, rotary positions and an optional key/value
-- cache. What each query may see comes as key ranges (`bounds`), see engine/backend.h.

local ops = require("am.core.ops")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local Attention = Module.class("Attention")

---@param opts {hidden_size: integer, num_heads: integer, num_kv_heads: integer, head_dim: integer,
---  bias: boolean?, output_bias: boolean?, dropout: number?, window: integer?}
function Attention.new(opts)
    local self = Module.init(Attention)
    self.heads, self.kv_heads, self.head_dim = opts.num_heads, opts.num_kv_heads, opts.head_dim
    self.dropout, self.window = opts.dropout or 0, opts.window
    self:add("q_proj", Linear.new(opts.hidden_size, opts.num_heads * opts.head_dim, opts.bias))
    self:add("k_proj", Linear.new(opts.hidden_size, opts.num_kv_heads * opts.head_dim, opts.bias))
    self:add("v_proj", Linear.new(opts.hidden_size, opts.num_kv_heads * opts.head_dim, opts.bias))
    self:add("o_proj", Linear.new(opts.num_heads * opts.head_dim, opts.hidden_size,
                                  opts.output_bias))
    return self
end

--- x [B, T, C], rotary [B or 1, T, D] (ops.rope_table), ctx {bounds=, cache=, layer=} -> [B, T, C].
--- With a cache (nn.cache) keys and values of earlier calls are seen too.
function Attention:forward(x, rotary, ctx)
    local b, t = x:size(0), x:size(1)
    local q = self.q_proj:forward(x):reshape(b, t, self.heads, self.head_dim):rope(rotary)
    local k = self.k_proj:forward(x):reshape(b, t, self.kv_heads, self.head_dim):rope(rotary)
    local v = self.v_proj:forward(x):reshape(b, t, self.kv_heads, self.head_dim)
    if ctx.cache then
        k, v = ctx.cache:append(ctx.layer, k, v)
    end
    local out = ops.attention(q, k, v, ctx.bounds, {
        causal = true,
        window = self.window,
        dropout = self.training and self.dropout or 0,
    })
    return self.o_proj:forward(out:reshape(b, t, self.heads * self.head_dim))
end

return Attention
