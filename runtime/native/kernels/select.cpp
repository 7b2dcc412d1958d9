#include "select.h"

#include <cerrno>
#include <cstring>

#include "x86.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moembed {
namespace {

// Requests the permission to use AMX tiles, which Linux grants to a whole process. Forked children inherit it.
[[maybe_unused]] Support request_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    return tiles_answer(syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno);
#else
    return Support::no("AMX is used on Linux only");
#endif
}

[[maybe_unused]] Support amx() {
#if defined(MOEMBED_AMX_EMULATED)
    return cpu().avx512vnni;
#else
    return cpu().amx.usable ? request_tiles() : cpu().amx;
#endif
}

}  // namespace

const Choice* choices() {
#if defined(__x86_64__) || defined(_M_X64)
    static const Choice all[] = {{&kAmx, amx()},       {&kAvx512Vnni, cpu().avx512vnni}, {&kAvxVnni, cpu().avxvnni},
                                 {&kAvx2, cpu().avx2}, {&kPlain, Support::yes()},        {nullptr, {}}};
#elif defined(__aarch64__) || defined(_M_ARM64)
    static const Choice all[] = {
        {&kNeonI8mm, cpu().i8mm}, {&kNeon, cpu().dotprod}, {&kPlain, Support::yes()}, {nullptr, {}}};
#else
    static const Choice all[] = {{&kPlain, Support::yes()}, {nullptr, {}}};
#endif
    return all;
}

const Kernels* kernels_named(const char* name) {
    for (const Choice* choice = choices(); choice->kernels; ++choice) {
        if (choice->support.usable && !std::strcmp(choice->kernels->name, name)) return choice->kernels;
    }
    return nullptr;
}

}  // namespace moembed
