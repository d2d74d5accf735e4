local M={fields={}}
return M
