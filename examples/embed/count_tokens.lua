-- A program for stock LuaJIT that uses one component of amlua: tokens in each line of a file.
--   LUA_PATH="PREFIX/share/amlua/lua/?.lua;PREFIX/share/amlua/lua/?/init.lua;;" \
--       luajit count_tokens.lua MODEL < text

local tokenizers = require("am.tokenizers")

local model = arg[1] or error("usage: luajit count_tokens.lua MODEL < text", 0)
local tokenizer = tokenizers.AutoTokenizer.from_pretrained(model)
local total = 0
for line in io.lines() do
    local count = #tokenizer:encode(line, { add_special_tokens = false })
    total = total + count
    print(count, line)
end
print(total, "in all")
