#include "cpu.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "x86.h"

#if defined(__x86_64__) || defined(_M_X64)
#define MOEMBED_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif (defined(__aarch64__) || defined(_M_ARM64)) && defined(__APPLE__)
#define MOEMBED_ARM_APPLE 1
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#define MOEMBED_ARM_LINUX 1
#include <sys/auxv.h>
#elif (defined(__aarch64__) || defined(_M_ARM64)) && defined(_WIN32)
#define MOEMBED_ARM_WINDOWS 1
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#endif

namespace moembed {
namespace {

#if defined(MOEMBED_X86)

CpuidLeaf cpuid(uint32_t leaf, uint32_t subleaf = 0) {
    CpuidLeaf r;
#if defined(_MSC_VER)
    int out[4];
    __cpuid(out, static_cast<int>(leaf & 0x80000000u));  // the highest leaf of this range
    if (static_cast<uint32_t>(out[0]) < leaf) return r;
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<uint32_t>(out[0]), static_cast<uint32_t>(out[1]), static_cast<uint32_t>(out[2]),
         static_cast<uint32_t>(out[3])};
#else
    if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) return {};
#endif
    return r;
}

// XCR0; 0 if the operating system does not offer it.
uint64_t saved_state() {
    if (!(cpuid(1).c >> 27 & 1)) return 0;
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
#endif
}

void identify(Cpu& cpu) {
    const X86Features found = x86_features({cpuid(1), cpuid(7), cpuid(7, 1), cpuid(0x1d, 1), saved_state()});
    cpu.avx2 = found.avx2;
    cpu.avxvnni = found.avxvnni;
    cpu.avx512f = found.avx512f;
    cpu.avx512vnni = found.avx512vnni;
    cpu.amx = found.amx;
    // The brand string: 48 characters in three leaves, often padded with spaces.
    char brand[49] = {};
    for (uint32_t leaf = 0; leaf < 3; ++leaf) {
        const CpuidLeaf r = cpuid(0x80000002u + leaf);
        std::memcpy(brand + 16 * leaf, &r, sizeof r);
    }
    const char* start = brand;
    while (*start == ' ') ++start;
    std::snprintf(cpu.name, sizeof cpu.name, "%s", start);
    for (size_t end = std::strlen(cpu.name); end && cpu.name[end - 1] == ' '; --end) cpu.name[end - 1] = 0;
}

#elif defined(MOEMBED_ARM_APPLE)

bool flag(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
}

void identify(Cpu& cpu) {
    cpu.dotprod.usable = flag("hw.optional.arm.FEAT_DotProd");
    cpu.i8mm.usable = cpu.dotprod.usable && flag("hw.optional.arm.FEAT_I8MM");
    size_t size = sizeof cpu.name;
    if (sysctlbyname("machdep.cpu.brand_string", cpu.name, &size, nullptr, 0) != 0) cpu.name[0] = 0;
}

#elif defined(MOEMBED_ARM_LINUX)

constexpr unsigned kHwcapDotprod = 20, kHwcapCpuid = 11, kHwcap2I8mm = 13;  // bits of asm/hwcap.h

// Part numbers of processors by Arm in servers and small computers.
struct Part {
    unsigned number;
    const char* name;
};
constexpr Part kParts[] = {{0xd03, "Cortex-A53"},  {0xd07, "Cortex-A57"},  {0xd08, "Cortex-A72"},
                           {0xd0b, "Cortex-A76"},  {0xd0c, "Neoverse N1"}, {0xd40, "Neoverse V1"},
                           {0xd49, "Neoverse N2"}, {0xd4f, "Neoverse V2"}, {0xd84, "Neoverse V3"},
                           {0xd8e, "Neoverse N3"}};

void identify(Cpu& cpu) {
    const unsigned long capabilities = getauxval(AT_HWCAP);
    cpu.dotprod.usable = capabilities >> kHwcapDotprod & 1;
    cpu.i8mm.usable = cpu.dotprod.usable && (getauxval(26 /* AT_HWCAP2 */) >> kHwcap2I8mm & 1);
    if (!(capabilities >> kHwcapCpuid & 1)) return;
    uint64_t id;  // MIDR_EL1, which Linux emulates for programs
    __asm__("mrs %0, MIDR_EL1" : "=r"(id));
    const auto implementer = static_cast<unsigned>(id >> 24 & 0xff), number = static_cast<unsigned>(id >> 4 & 0xfff);
    std::snprintf(cpu.name, sizeof cpu.name, "ARM implementer 0x%02x part 0x%03x", implementer, number);
    for (const Part& part : kParts) {
        if (implementer == 0x41 && part.number == number) std::snprintf(cpu.name, sizeof cpu.name, "%s", part.name);
    }
}

#elif defined(MOEMBED_ARM_WINDOWS)

// PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE and PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE, which older headers do not have.
constexpr DWORD kDotprodPresent = 43, kI8mmPresent = 66;

void identify(Cpu& cpu) {
    cpu.dotprod.usable = IsProcessorFeaturePresent(kDotprodPresent);
    cpu.i8mm.usable = cpu.dotprod.usable && IsProcessorFeaturePresent(kI8mmPresent);
}

#else

void identify(Cpu&) {}

#endif

Cpu identified() {
    Cpu cpu;
    identify(cpu);
    const struct {
        Support support;
        const char* name;
    } flags[] = {
        {cpu.avx2, "avx2"},    {cpu.avxvnni, "avx_vnni"}, {cpu.avx512f, "avx512f"}, {cpu.avx512vnni, "avx512_vnni"},
        {cpu.amx, "amx_int8"}, {cpu.dotprod, "asimddp"},  {cpu.i8mm, "i8mm"}};
    size_t size = 0;
    for (const auto& flag : flags) {
        if (!flag.support.usable) continue;
        size += static_cast<size_t>(
            std::snprintf(cpu.flags + size, sizeof cpu.flags - size, size ? " %s" : "%s", flag.name));
    }
    return cpu;
}

}  // namespace

const Cpu& cpu() {
    static const Cpu found = identified();
    return found;
}

}  // namespace moembed
