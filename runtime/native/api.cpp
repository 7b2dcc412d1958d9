#include "api.h"

#include "kernels/cpu.h"
#include "kernels/select.h"

int32_t moembed_abi() { return moembed::kAbi; }

void moembed_cpu(const char** name, const char** flags) {
    *name = moembed::cpu().name;
    *flags = moembed::cpu().flags;
}

int32_t moembed_kernels_usable(int32_t index, const char** name) {
    const moembed::Choice& choice = moembed::choices()[index];
    *name = choice.kernels ? choice.kernels->name : nullptr;
    return choice.support.usable;
}
