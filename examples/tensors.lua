-- Tensors by example, for those who know PyTorch. The text around it is docs/tensors.md.
--   amlua examples/tensors.lua

local am = require("am")

-- Making them
local x = am.tensor { { 1, 2, 3 }, { 4, 5, 6 } }                    -- float32 on the CPU
local ids = am.tensor({ 2, 0 }, { dtype = "int64" })
local noise = am.randn({ 2, 3 }, { dtype = "float64", device = "cpu" })
print(x, x:size(0), am.arange(0, 10, 2), noise:float():dtype(), am.zeros_like(x):sum():item())

-- Arithmetic broadcasts; numbers may stand on either side
local y = (2 * x - 1) / x ^ 2 + am.tensor { 10, 20, 30 }
local centred = x - x:mean(1, true)
print(y:round():totable()[1][1], centred:abs():sum { 0, 1 }:item())

-- Comparisons are methods and give bool
local positive = x:gt(3):logical_and(x:ne(5))
print(x:masked_fill(positive, 0):totable()[2][1], am.where(positive, x, -1):min():item(), positive:any():item())

-- Indexing: a table with an item for each dim
print(x[{ 0 }]:totable()[3])                 -- x[0]
print(x[{ -1, 0 }]:item())                   -- x[-1, 0]
print(x[{ {}, { 1 } }]:size(1))              -- x[:, 1:]
print(x[{ "...", { 0, nil, 2 } }]:size(1))   -- x[..., ::2]
local edited = x:clone()
edited[{ {}, 0 }] = am.tensor { -1, -2 }     -- a copy into a view
edited[{ 1, { 1 } }] = 0
print(edited:totable()[2][1], edited:sum():item())

-- Reductions, orders, picks
local largest, where_at = x:max(1)
local values, order = x:topk(2, 1)
print(largest:totable()[1], where_at:totable()[1], values:size(1), order:totable()[2][1])
print(x:index_select(1, ids):totable()[1][1], x:gather(1, ids:unsqueeze(1)):totable()[1][1])
print(am.zeros({ 3 }):scatter_add(0, ids, am.ones { 2 }):totable()[3])

-- Shapes
local heads = x:reshape(2, 3, 1):expand(2, 3, 4):permute(0, 2, 1)
local both = am.cat({ x, x:flip(1) }, 0)
print(heads:size(1), both:size(0), #both:split(3), am.stack({ x, x }):dim(), x:t():flatten():totable()[2])

-- Products
local scores = am.einsum("bqd,bkd->bqk", heads, heads)
print(scores:size(2), x:matmul(x:t()):totable()[1][2], x:mv(am.ones { 3 }):totable()[2])

-- Gradients: a loss of one's own
local w = am.tensor { 0.1, -0.2, 0.3 }
w.requires_grad = true
local target = am.tensor { 1, 0 }
for _ = 1, 50 do
    am.scope(function() -- what is made inside is freed at the end
        local margin = x:mv(w)
        local loss = (margin:softplus() - margin * target):mean() + 0.01 * w:norm() ^ 2
        loss:backward()
    end)
    am.no_grad(function() w:sub_(w.grad, 0.1) end)
    w.grad = nil
end
print(x:mv(w):sigmoid():gt(0.5):totable()[1])
