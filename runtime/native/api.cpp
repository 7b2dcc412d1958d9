#include "api.h"

#include "kernels/cpu.h"
#include "kernels/select.h"

int32_t moembed_abi() { return moembed::kAbi; }

void moembed_cpu(const char** name, const char** flags) {
    *name = moembed::cpu().name;
    *flags = moembed::cpu().flags;
}

int32_t moembed_kernels_usable(int32_t index, const char** name, const char** reason) {
    const moembed::Choice& choice = moembed::choices()[index];
    *name = choice.kernels ? choice.kernels->name : nullptr;
    *reason = choice.support.reason;
    return choice.support.usable ? 1 : choice.support.refused_here ? -1 : 0;
}
