#include "api.h"

#include "float_mode.h"
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

uint64_t moembed_float_mode_enter() {
    const uint64_t before = moembed::float_mode();
    moembed::set_float_mode(moembed::kDefaultFloatMode);
    return before;
}

void moembed_float_mode_leave(uint64_t mode) { moembed::set_float_mode(mode); }
