// async_copy.cpp — cp.async: copies are queued with their thread and take effect when it waits for
// them (late), when they are issued (early), or either, at random: a kernel must not see a
// difference.
#include "async_copy.h"

#include <cstring>

#include "am_emu.h"
#include "flavour.h"
#include "options.h"
#include "report.h"
#include "shadow.h"
#include "shared.h"

namespace emu
{
namespace
{
void perform(const PendingCopy &c, const void *pc)
{
    check_access(c.global, c.bytes, Access::read, nullptr, pc);
    memcpy(c.shared, c.global, size_t(c.bytes));
    memset(static_cast<char *>(c.shared) + c.bytes, 0, size_t(c.size - c.bytes));
    check_access(c.shared, c.size, Access::write, nullptr, pc);
}
} // namespace

void check_no_copies(Thread *t)
{
    if (t->copies.empty())
        return;
    t->copies.clear();
    fault(After::go_on, "a thread returns without having waited for its cp.async copies");
}
} // namespace emu

using namespace emu;

void am_emu_cp_async(const char *site, void *shared, const void *global, int size, int bytes)
{
    if (!in_shared_memory(shared))
        fault(After::stop, format("cp.async at %s: the destination is not in shared memory", site));
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) %
        unsigned(size))
        fault(After::stop, format("cp.async at %s: an address is not %d-byte aligned", site, size));
    if (bytes < 0 || bytes > size)
        fault(After::stop, format("cp.async at %s: %d bytes of %d", site, bytes, size));
    if (is_poisoned(shared, size_t(size)) || (bytes && is_poisoned(global, size_t(bytes))))
        fault(After::stop, format("cp.async at %s: out of bounds", site));
    const void *pc = __builtin_return_address(0);
    // From now on the destination may change: nobody may still read it, or read it before the wait.
    check_access(shared, size, Access::write, site, pc);
    mark_uninitialised(shared, size_t(size));
    PendingCopy c = {shared, global, size, bytes, current->copy_group};
    if (options().copies == Copies::early || (options().copies == Copies::random && random_bit()))
        perform(c, pc);
    else
        current->copies.push_back(c);
}

void am_emu_cp_commit(void)
{
    current->copy_group++;
}

void am_emu_cp_wait(int groups)
{
    std::vector<PendingCopy> &q = current->copies;
    size_t n = 0;
    for (; n < q.size() && q[n].group < current->copy_group - groups; n++)
        perform(q[n], __builtin_return_address(0));
    q.erase(q.begin(), q.begin() + std::vector<PendingCopy>::difference_type(n));
}
