#include "select.h"

#include <cstring>
#include <initializer_list>

#if defined(__x86_64__) || defined(_M_X64)
#define MOEMBED_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define MOEMBED_ARM 1
#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moembed {
namespace {

#if defined(MOEMBED_X86)

struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(uint32_t leaf, uint32_t sub) {
    Registers r;
#if defined(_MSC_VER)
    int out[4];
    __cpuid(out, 0);
    if (static_cast<uint32_t>(out[0]) < leaf) return r;
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(sub));
    r = {static_cast<uint32_t>(out[0]), static_cast<uint32_t>(out[1]), static_cast<uint32_t>(out[2]),
         static_cast<uint32_t>(out[3])};
#else
    if (!__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d)) return {};
#endif
    return r;
}

// What the system saves when it switches threads.
uint64_t saved_state() {
    if (!(cpuid(1, 0).c >> 27 & 1)) return 0;
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
#endif
}

bool has(uint32_t bits, std::initializer_list<int> wanted) {
    for (int bit : wanted) {
        if (!(bits >> bit & 1)) return false;
    }
    return true;
}

// Linux hands out the tiles on request only, for the whole process.
bool tiles_granted() {
#if defined(MOEMBED_AMX_EMULATED)
    return true;
#elif defined(__linux__) && defined(SYS_arch_prctl)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

struct Machine {
    bool avx2, avxvnni, avx512vnni, amx;

    Machine() {
        const Registers one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
        const uint64_t saved = saved_state();
        avx2 = (saved & 0x6) == 0x6 && has(one.c, {12, 28}) && has(seven.b, {5});
        avxvnni = avx2 && has(more.a, {4});
        avx512vnni = avx2 && (saved & 0xe6) == 0xe6 && has(seven.b, {16, 17, 30, 31}) && has(seven.c, {11});
        amx = avx512vnni && tile_instructions(seven, saved) && tiles_granted();
    }

    static bool tile_instructions(const Registers& seven, uint64_t saved) {
#if defined(MOEMBED_AMX_EMULATED)
        (void)seven, (void)saved;
        return true;
#else
        return (saved & 0x60000) == 0x60000 && has(seven.d, {24, 25});
#endif
    }
};

#elif defined(MOEMBED_ARM)

struct Machine {
    bool neon = false, i8mm = false;

    Machine() {
#if defined(__APPLE__)
        neon = flag("hw.optional.arm.FEAT_DotProd");
        i8mm = neon && flag("hw.optional.arm.FEAT_I8MM");
#elif defined(__linux__)
        neon = getauxval(AT_HWCAP) >> 20 & 1;
        i8mm = neon && (getauxval(26 /* AT_HWCAP2 */) >> 13 & 1);
#endif
    }

#if defined(__APPLE__)
    static bool flag(const char* name) {
        int value = 0;
        size_t size = sizeof value;
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
    }
#endif
};

#endif

}  // namespace

const Choice* choices() {
#if defined(MOEMBED_X86)
    static const Machine machine;
    static const Choice all[] = {{&kAmx, machine.amx},
                                 {&kAvx512Vnni, machine.avx512vnni},
                                 {&kAvxVnni, machine.avxvnni},
                                 {&kAvx2, machine.avx2},
                                 {&kPlain, true},
                                 {nullptr, false}};
#elif defined(MOEMBED_ARM)
    static const Machine machine;
    static const Choice all[] = {{&kNeonI8mm, machine.i8mm}, {&kNeon, machine.neon}, {&kPlain, true}, {nullptr, false}};
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
