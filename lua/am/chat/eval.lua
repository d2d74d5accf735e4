-- Runs a parsed template: brings the runtime, the expressions and the statements together.

local Runtime = require "am.chat.runtime"

-- these two add eval() and run() to Runtime
require "am.chat.expressions"
require "am.chat.statements"

local M = {}

--- Renders a syntax tree (parser.lua). `vars` maps names to values, `env` is Runtime.new's. Returns the
--- text, the spans of generation blocks, and with env.messages the regions {message =, first =, last =}
--- that a message's round of a loop wrote.
function M.render(tree, vars, env)
    local rt = Runtime.new(env)
    rt:run(tree, Runtime.inner_scope { vars = vars })
    return table.concat(rt.root), rt.spans, rt.regions
end

return M
