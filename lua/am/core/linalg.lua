-- Matrix decompositions, as torch.linalg names them. Nothing is recorded: there are no gradients of them.

local args = require("am.core.args")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")

local C = edge.C
local M = {}
local box, second = edge.box("am_tensor"), edge.box("am_tensor")

--- Eigenvalues [n], ascending, and eigenvectors [n, n], its columns, of a symmetric matrix a [n, n]. Computed in
--- float64. Raises "argument" for numbers that are not finite.
function M.eigh(a)
    edge.check_retry(C.am_eigh, box, second, args.tensor("eigh", a))
    return tensor.own(box[0]), tensor.own(second[0])
end

--- The orthogonal Q of a square matrix's QR decomposition a = Q R. Computed in float64.
function M.qr(a)
    edge.check_retry(C.am_qr, box, args.tensor("qr", a))
    return tensor.own(box[0])
end

return M
