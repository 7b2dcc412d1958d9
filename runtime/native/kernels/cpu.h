// What is known about this machine's processor.
#pragma once

namespace moembed {

// An instruction set that can be used or not.
struct Support {
    bool usable = false;
    bool refused_here = false;     // refused to this process; another one may have it
    const char* reason = nullptr;  // why not, although the processor has it

    static Support yes() { return {true, false, nullptr}; }
    static Support no(const char* reason) { return {false, false, reason}; }
    static Support refused(const char* reason) { return {false, true, reason}; }
};

struct Cpu {
    // Instruction sets that the processor has and the operating system supports. Each x86 member implies the ones that
    // its kernels use as well.
    Support avx2, avxvnni, avx512f, avx512vnni, amx;
    Support dotprod, i8mm;

    char name[64] = {};    // "" if unknown
    char flags[128] = {};  // the same instruction sets, as Linux names them in /proc/cpuinfo, separated by spaces
};

// Found on the first call; safe to call from any thread.
const Cpu& cpu();

}  // namespace moembed
