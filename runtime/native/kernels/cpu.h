// What is known about this machine's processor.
#pragma once

namespace moembed {

struct Cpu {
    // Instruction sets that the processor has and the operating system supports. Each x86 member implies the ones that
    // its kernels use as well.
    bool avx2 = false, avxvnni = false, avx512f = false, avx512vnni = false, amx = false;
    bool dotprod = false, i8mm = false;

    char name[64] = {};    // "" if unknown
    char flags[128] = {};  // the same instruction sets, as Linux names them in /proc/cpuinfo, separated by spaces
};

// Found on the first call; safe to call from any thread.
const Cpu& cpu();

}  // namespace moembed
