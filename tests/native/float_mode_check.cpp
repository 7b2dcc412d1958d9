// DefaultFloatMode in threads with other modes; prints "ok". test_float_mode.py compiles it, for other processors too.
#include <cstdio>
#include <stdexcept>

#include "../../runtime/native/float_mode.h"

using namespace moembed;

namespace {

#if defined(__x86_64__)
constexpr uint64_t kModes[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9fc0, 0xffc0};  // MXCSR: to -inf, +inf, 0; FTZ and DAZ
#else
constexpr uint64_t kModes[] = {0, 1u << 22, 2u << 22, 3u << 22, 1u << 24, 7u << 22};  // FPCR: the same
#endif

// Results that show the mode: 1 + 2^-24 to even, 1 + 3 * 2^-25 up, half of the smallest normal number, and twice that.
bool computes_by_default() {
    volatile float one = 1, tiny = 0x1p-126f, half = 0.5f, two = 2;
    volatile float even = one + 0x1p-24f, up = one + 0x1.8p-24f, denormal = tiny * half, normal = denormal * two;
    return even == 1.0f && up == 1 + 0x1p-23f && denormal == 0x1p-127f && normal == tiny;
}

const char* checked(uint64_t mode) {
    set_float_mode(mode);
    if (float_mode() != mode) return "the mode was not set";
    if (mode != kDefaultFloatMode && computes_by_default())
        return "the mode changes nothing, so the test shows nothing";
    {
        const DefaultFloatMode guard;
        if (!computes_by_default()) return "not the default inside";
        const DefaultFloatMode nested;
        if (!computes_by_default()) return "not the default in a nested scope";
    }
    if ((float_mode() ^ mode) & kFloatModeBits) return "not restored";
    try {
        const DefaultFloatMode guard;
        throw std::runtime_error("");
    } catch (const std::runtime_error&) {
        if ((float_mode() ^ mode) & kFloatModeBits) return "not restored after an exception";
    }
    return nullptr;
}

}  // namespace

int main() {
    for (const uint64_t mode : kModes) {
        const char* wrong = checked(mode);
        set_float_mode(kDefaultFloatMode);
        if (wrong) {
            std::printf("mode %llx: %s\n", static_cast<unsigned long long>(mode), wrong);
            return 1;
        }
    }
    std::printf("ok\n");
    return 0;
}
