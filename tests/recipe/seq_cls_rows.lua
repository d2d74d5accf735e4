-- Rows with a class, for seq_cls_spec.lua: the class is that of the last token.
local M = {}

function M.rows(args)
    return {
        len = function() return args.count end,
        get = function(_, i)
            local ids = {}
            for k = 1, 3 + i % 5 do
                ids[k] = 10 + (i * 7 + k * 3) % 50
            end
            ids[#ids + 1] = 3 + i % 3
            return { input_ids = ids, labels = { i % 3 } }
        end,
    }
end

return M
