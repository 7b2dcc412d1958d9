#include "select.h"

#include <cstring>

#include "cpu.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moembed {
namespace {

// Requests the permission to use AMX tiles, which Linux grants to a whole process.
[[maybe_unused]] bool tiles_granted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

[[maybe_unused]] bool amx_usable() {
#if defined(MOEMBED_AMX_EMULATED)
    return cpu().avx512vnni;
#else
    return cpu().amx && tiles_granted();
#endif
}

}  // namespace

const Choice* choices() {
#if defined(__x86_64__) || defined(_M_X64)
    static const Choice all[] = {{&kAmx, amx_usable()},
                                 {&kAvx512Vnni, cpu().avx512vnni},
                                 {&kAvxVnni, cpu().avxvnni},
                                 {&kAvx2, cpu().avx2},
                                 {&kPlain, true},
                                 {nullptr, false}};
#elif defined(__aarch64__) || defined(_M_ARM64)
    static const Choice all[] = {{&kNeonI8mm, cpu().i8mm}, {&kNeon, cpu().dotprod}, {&kPlain, true}, {nullptr, false}};
#else
    static const Choice all[] = {{&kPlain, true}, {nullptr, false}};
#endif
    return all;
}

const Kernels* kernels_named(const char* name) {
    for (const Choice* choice = choices(); choice->kernels; ++choice) {
        if (choice->usable && !std::strcmp(choice->kernels->name, name)) return choice->kernels;
    }
    return nullptr;
}

}  // namespace moembed
