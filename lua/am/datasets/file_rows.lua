-- Rows of files, in whatever format they are: what datasets read. Holds no format itself; a format's file
-- has open(names), which gives an object with
--   len()  get(i) -> table   name(i) what messages call row i   place(i) -> file's number, row's number
--   close()

local json_rows = require("am.datasets.json_rows")

return {
    --- The names of files as a list, each of them there: `names` is one or a list.
    files = json_rows.files,
    --- The rows of the files of such a list, in order.
    open = json_rows.open,
    --- What messages call row `number` of a file.
    row_name = json_rows.row_name,
}
