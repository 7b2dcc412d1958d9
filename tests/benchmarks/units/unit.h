// What limits.cpp measures of an arithmetic unit: its rate out of registers, and in a product of matrices.
//
// Every source of this folder is compiled with the flags of its instruction set (limits.py), so that nothing here may use
// templates or inline functions of the C++ library: the linker would keep one copy, for all processors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common.h"

namespace moembed::limits {

// The product that is measured: as many rows as a task of the kernels has, the depth of the published model, and weights
// that fit the second-level cache beside the rows.
constexpr size_t kRows = 256, kDepth = 768, kColumns = 1024;

// Operations of a product. Numbers of rows and columns are rounded up to what a unit computes at once.
constexpr double operations(size_t height, size_t width) {
    return 2.0 * kDepth * static_cast<double>((kRows + height - 1) / height * height) *
           static_cast<double>((kColumns + width - 1) / width * width);
}

// A number that the compiler does not know: with a constant depth, GCC 12 stores the sums of a tile in each step.
static inline size_t hidden(size_t x) {
    __asm__ volatile("" : "+r"(x));
    return x;
}

// Memory of one thread, aligned to 4096 bytes. Units lay out rows and weights as it suits them: values do not matter.
struct Operands {
    uint8_t* rows;    // 4 * kRows * kDepth bytes
    int8_t* weights;  // 4 * kColumns * kDepth bytes
    int32_t* sums;    // 64 KB
};

struct Unit {
    const char* name;  // as the kernels that use it are called
    bool (*usable)();
    // Does `rounds` rounds without memory, and gives the number of operations; a round is 64 to 256 instructions.
    double (*registers)(long rounds);
    // Multiplies rows and weights and gives the number of operations; null where only registers are measured.
    double (*product)(const Operands& operands);
    double peak_per_cycle;  // operations that no core of this kind exceeds, or 0 if that differs among processors
};

extern const Unit kAmxUnit, kAvx512VnniUnit, kAvx512Float, kAvxVnniUnit, kAvx2Unit, kAvx2Float;
extern const Unit kNeonUnit, kNeonI8mmUnit, kNeonFloat;

}  // namespace moembed::limits
