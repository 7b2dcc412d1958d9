// The instruction sets of an x86 processor, by the values of its registers. Nothing here reads a register, so that tests
// can give those of any machine.
#pragma once

#include <cstdint>

#include "cpu.h"

namespace moembed {

struct CpuidLeaf {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

struct X86Registers {
    CpuidLeaf one;                // leaf 1
    CpuidLeaf seven, seven_more;  // leaf 7, subleaves 0 and 1
    CpuidLeaf tiles;              // leaf 0x1d, subleaf 1: the tiles of palette 1
    uint64_t saved = 0;           // XCR0: the state that the operating system saves when it switches threads
};

struct X86Features {
    Support avx2, avxvnni, avx512f, avx512vnni, amx;
};

X86Features x86_features(const X86Registers& registers);

// Linux's answer to the request for tiles: an error number, or 0.
Support tiles_answer(int error);

}  // namespace moembed
