-- Self-attention, causal unless it says otherwise, with grouped key/value heads, rotary positions and an optional
-- key/value cache. What each query may see comes as key ranges (`bounds`), see engine/backend.h. Families that project
-- to queries, keys and values in another way, or place them otherwise, derive a class from this one and give it
-- `project` or `rotate`.

local ops = require("am.core.ops")
local eager = require("am.nn.eager_attention")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local Attention = Module.class("Attention")
Attention.kernel = "attention" -- nn/kernels.lua

---@class am.AttentionOptions
---@field hidden_size integer
---@field num_heads integer
---@field num_kv_heads integer
---@field head_dim integer
---@field bias boolean? of q_proj, k_proj and v_proj
---@field output_bias boolean? of the last map
---@field dropout number? of probabilities, in training
---@field causal boolean? false: a query sees what comes after it, too, as in encoders
---@field output string? what the last map is called, o_proj by default
---@field window integer? keys that a query sees, itself among them; all before it by default
---@field scale number? of the products, 1 / sqrt(head_dim) by default
---@field softcap number? products s become softcap tanh(s / softcap)
---@field rotary boolean? false: without positions
---@field interleaved boolean? rotated pairs are neighbours, not halves
---@field norm fun(width: integer): table? makes q_norm and k_norm, of each head
---@field norm_all boolean? these norms are of all heads together, before they are parted
---@field clip number? queries, keys and values stay within -clip and clip
---@field sinks boolean? a learned logit for each head that takes part of the probability (GPT-OSS)
---@field alibi boolean? positions by a bias of the products (Press et al. 2022), not by rotation

--- Give an instance of a class its numbers.
---@param opts am.AttentionOptions
function Attention.configure(class, opts)
    local self = Module.init(class)
    self.heads, self.kv_heads, self.head_dim = opts.num_heads, opts.num_kv_heads, opts.head_dim
    self.dropout, self.window, self.scale = opts.dropout or 0, opts.window, opts.scale
    self.softcap, self.clip, self.interleaved = opts.softcap, opts.clip, opts.interleaved
    self.rotary = opts.rotary ~= false and not opts.alibi
    self.slopes = opts.alibi and eager.slopes(opts.num_heads) or nil
    self.output, self.causal = opts.output or "o_proj", opts.causal ~= false
    return self
end

--- class: of the instance, Attention by default.
---@param opts am.AttentionOptions
function Attention.new(opts, class)
    local self = Attention.configure(class or Attention, opts)
    local width, kv_width = opts.num_heads * opts.head_dim, opts.num_kv_heads * opts.head_dim
    self:add("q_proj", Linear.new(opts.hidden_size, width, opts.bias))
    self:add("k_proj", Linear.new(opts.hidden_size, kv_width, opts.bias))
    self:add("v_proj", Linear.new(opts.hidden_size, kv_width, opts.bias))
    self:add(self.output, Linear.new(width, opts.hidden_size, opts.output_bias))
    if opts.norm then
        self.norm_all = opts.norm_all
        self:add("q_norm", opts.norm(opts.norm_all and width or opts.head_dim))
        self:add("k_norm", opts.norm(opts.norm_all and kv_width or opts.head_dim))
    end
    if opts.sinks then
        self:declare("sinks", { opts.num_heads })
    end
    return self
end

--- x [B, T, C] -> queries [B, T, H, D], keys and values [B, T, K, D], not rotated yet.
function Attention:project(x)
    local b, t, norm_all, clip = x:size(0), x:size(1), self.norm_all, self.clip
    local function heads(projection, n, norm)
        local y = self[projection]:forward(x)
        y = norm and norm_all and norm:forward(y) or y
        y = (clip and y:clamp(-clip, clip) or y):reshape(b, t, n, self.head_dim)
        return norm and not norm_all and norm:forward(y) or y
    end
    return heads("q_proj", self.heads, self.q_norm), heads("k_proj", self.kv_heads, self.k_norm),
        heads("v_proj", self.kv_heads)
end

--- Queries and keys as their positions make them.
function Attention:rotate(q, k, rotary)
    if self.rotary then
        return q:rope(rotary, self.interleaved), k:rope(rotary, self.interleaved)
    end
    return q, k
end

--- x [B, T, C], rotary [B or 1, T, D] (ops.rope_table), ctx {bounds=, cache=, layer=, position_ids=} -> [B, T, C].
--- With a cache (nn.cache) keys and values of earlier calls are seen too. self.eager: the scores are stored.
--- ctx.part: see models/causal_lm.lua.
--- ctx.causal = false: the key ranges alone say what is seen, ctx.window_bounds in a layer with a window, which they
--- have in them. ctx.samples: how many samples ctx.bounds are of, where these are samples in rows. self.library: a
--- library of a GPU may compute it.
function Attention:forward(x, rotary, ctx)
    local b, t = x:size(0), x:size(1)
    local q, k, v = self:project(x)
    q, k = self:rotate(q, k, rotary, ctx)
    if ctx.cache then
        k, v = ctx.cache:append(ctx.layer, k, v)
    end
    local attend = ctx.part and ctx.part.attend or (self.eager or self.slopes) and eager.attention or ops.attention
    local ranges = ctx.causal == false
    local out = attend(q, k, v, ranges and self.window and ctx.window_bounds or ctx.bounds, {
        causal = self.causal and not ranges,
        window = not ranges and self.window or nil,
        scale = self.scale,
        softcap = self.softcap,
        sinks = self.sinks,
        slopes = self.slopes,
        library = self.library,
        samples = not ranges and not ctx.part and ctx.samples or nil,
        dropout = self.training and self.dropout or 0,
    })
    return self[self.output]:forward(out:reshape(b, t, self.heads * self.head_dim))
end

return Attention
