// NEON with i8mm: products of matrices of two by eight bytes.
#include <arm_neon.h>

#include "cpu.h"
#include "unit.h"

namespace moembed::limits {
namespace {

bool usable() { return cpu().i8mm.usable; }

#define USMMLA(sum) "usmmla v" #sum ".4s, %[a].16b, %[b].16b\n"

double registers(long rounds) {
    const uint8x16_t a = vdupq_n_u8(0);
    const int8x16_t b = vdupq_n_s8(0);
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) {
            __asm__ volatile(USMMLA(4) USMMLA(5) USMMLA(6) USMMLA(7) USMMLA(8) USMMLA(9) USMMLA(10) USMMLA(11)
                                 USMMLA(12) USMMLA(13) USMMLA(14) USMMLA(15)
                             :
                             : [a] "w"(a), [b] "w"(b)
                             : "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15");
        }
    }
    return static_cast<double>(rounds) * 96 * 64;
}

// Eight rows and eight columns, eight values deep: sixteen sums of two by two, and 8 loads for 16 products.
double product(const Operands& o) {
    const size_t depth = hidden(kDepth);
    constexpr int kHeight = 8;
    for (size_t column = 0; column < kColumns; column += 8) {
        const int8_t* weights = o.weights + column * depth;
        for (size_t row = 0; row < kRows; row += kHeight) {
            const uint8_t* rows = o.rows + row * depth;
            int32x4_t sums[4][4];
            MOEMBED_UNROLL
            for (int i = 0; i < 16; ++i) sums[i / 4][i % 4] = vdupq_n_s32(0);
            for (size_t k = 0; k < depth; k += 8) {
                int8x16_t w[4];
                MOEMBED_UNROLL
                for (int part = 0; part < 4; ++part) w[part] = vld1q_s8(weights + 8 * k + 16 * part);
                MOEMBED_UNROLL
                for (int pair = 0; pair < 4; ++pair) {
                    const uint8x16_t q = vld1q_u8(rows + 8 * k + 16 * pair);
                    MOEMBED_UNROLL
                    for (int part = 0; part < 4; ++part) {
                        sums[pair][part] = vusmmlaq_s32(sums[pair][part], q, w[part]);
                    }
                }
            }
            MOEMBED_UNROLL
            for (int i = 0; i < 16; ++i) vst1q_s32(o.sums + 4 * i, sums[i / 4][i % 4]);
            __asm__ volatile("" : : : "memory");
        }
    }
    return operations(kHeight, 8);
}

}  // namespace

const Unit kNeonI8mmUnit = {"neoni8mm", usable, registers, product, 0};

}  // namespace moembed::limits
