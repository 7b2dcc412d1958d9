#include "x86.h"

#include <cerrno>
#include <initializer_list>

namespace moembed {
namespace {

bool has(uint32_t bits, std::initializer_list<int> wanted) {
    for (const int bit : wanted) {
        if (!(bits >> bit & 1)) return false;
    }
    return true;
}

// What CPUID names is unusable unless the system saves the registers: the first instruction would end the process.
Support saved(bool named, uint64_t state, uint64_t needed, const char* reason) {
    if (!named) return {};
    if ((state & needed) != needed) return Support::no(reason);
    return Support::yes();
}

// The tiles that the kernels configure: eight with 16 rows of 64 bytes.
bool has_tiles(const CpuidLeaf& palette) {
    const uint32_t row_bytes = palette.b & 0xffff, tiles = palette.b >> 16, rows = palette.c & 0xffff;
    return tiles >= 8 && rows >= 16 && row_bytes >= 64;
}

}  // namespace

X86Features x86_features(const X86Registers& r) {
    constexpr uint64_t kVectors = 0x6, kMasks = 0xe0, kTiles = 0x60000;
    const uint64_t state = has(r.one.c, {27}) ? r.saved : 0;              // the system offers XCR0
    const bool avx2 = has(r.one.c, {12, 28, 29}) && has(r.seven.b, {5});  // with FMA, AVX and F16C
    const bool avx512f = avx2 && has(r.seven.b, {16});
    const bool avx512vnni = avx512f && has(r.seven.b, {17, 30, 31}) && has(r.seven.c, {11});  // with DQ, BW and VL
    const char *no_vectors = "the operating system or hypervisor does not save AVX registers",
               *no_masks = "the operating system or hypervisor does not save AVX-512 registers";
    X86Features found;
    found.avx2 = saved(avx2, state, kVectors, no_vectors);
    found.avxvnni = saved(avx2 && has(r.seven_more.a, {4}), state, kVectors, no_vectors);
    found.avx512f = saved(avx512f, state, kVectors | kMasks, no_masks);
    found.avx512vnni = saved(avx512vnni, state, kVectors | kMasks, no_masks);
    found.amx = saved(has(r.seven.d, {24, 25}), state, kVectors | kMasks | kTiles,
                      "the operating system or hypervisor does not save AMX tiles");
    if (found.amx.usable && !avx512vnni) found.amx = Support::no("AMX kernels need AVX512-VNNI, which is hidden here");
    if (found.amx.usable && !has_tiles(r.tiles)) {
        found.amx = Support::no("the hypervisor does not describe the AMX tiles (CPUID leaf 0x1d)");
    }
    return found;
}

Support tiles_answer(int error) {
    switch (error) {
        case 0:
            return Support::yes();
        case ENOSPC:
            return Support::refused(
                "Linux refused AMX tiles: a signal stack (sigaltstack) of this process is too small to save them. Use "
                "12 KB or more, or open the first model before it is installed");
        case EPERM:
        case EACCES:
            return Support::refused("a sandbox or seccomp filter refused AMX tiles (arch_prctl)");
        case ENOSYS:
            return Support::no("this sandbox or system has no request for AMX tiles (arch_prctl)");
        case EINVAL:
            return Support::no("this Linux cannot grant AMX tiles: 5.16 or newer can");
        case EOPNOTSUPP:
            return Support::no("this Linux does not support AMX tiles on this machine");
        default:
            return Support::no("Linux refused AMX tiles");
    }
}

}  // namespace moembed
