// NEON: dot products of signed bytes, and floats.
#include <arm_neon.h>

#include "cpu.h"
#include "unit.h"

namespace moembed::limits {
namespace {

bool usable() { return cpu().dotprod.usable; }
bool always() { return true; }

// Twelve sums in turn hide the latency of an instruction.
#define TWELVE(op, rest)                                                                                               \
    op " v4." rest "\n" op " v5." rest "\n" op " v6." rest "\n" op " v7." rest "\n" op " v8." rest "\n" op " v9." rest \
       "\n" op " v10." rest "\n" op " v11." rest "\n" op " v12." rest "\n" op " v13." rest "\n" op " v14." rest        \
       "\n" op " v15." rest "\n"
#define SUMS "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15"

double bytes_in_registers(long rounds) {
    const int8x16_t a = vdupq_n_s8(0);
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) __asm__ volatile(TWELVE("sdot", "4s, %[a].16b, %[a].16b") : : [a] "w"(a) : SUMS);
    }
    return static_cast<double>(rounds) * 96 * 32;
}

double floats_in_registers(long rounds) {
    const float32x4_t a = vdupq_n_f32(0);
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) __asm__ volatile(TWELVE("fmla", "4s, %[a].4s, %[a].4s") : : [a] "w"(a) : SUMS);
    }
    return static_cast<double>(rounds) * 96 * 8;
}

// Four rows and sixteen columns: sixteen sums, and 5 loads for 16 products that read a row's values by lane.
double product(const Operands& o) {
    const size_t depth = hidden(kDepth);
    constexpr int kHeight = 4;
    for (size_t column = 0; column < kColumns; column += 16) {
        const int8_t* weights = o.weights + column * depth;
        for (size_t row = 0; row < kRows; row += kHeight) {
            const auto* rows = reinterpret_cast<const int8_t*>(o.rows + row * depth);
            int32x4_t sums[kHeight][4];
            MOEMBED_UNROLL
            for (int i = 0; i < 4 * kHeight; ++i) sums[i / 4][i % 4] = vdupq_n_s32(0);
            for (size_t k = 0; k < depth; k += 4) {
                int8x16_t w[4];
                MOEMBED_UNROLL
                for (int part = 0; part < 4; ++part) w[part] = vld1q_s8(weights + 16 * k + 16 * part);
                // Rows lie as a kernel packs them: four values of each of four rows side by side.
                const int8x16_t q = vld1q_s8(rows + 4 * k);
                MOEMBED_UNROLL
                for (int part = 0; part < 4; ++part) {
                    sums[0][part] = vdotq_laneq_s32(sums[0][part], w[part], q, 0);
                    sums[1][part] = vdotq_laneq_s32(sums[1][part], w[part], q, 1);
                    sums[2][part] = vdotq_laneq_s32(sums[2][part], w[part], q, 2);
                    sums[3][part] = vdotq_laneq_s32(sums[3][part], w[part], q, 3);
                }
            }
            MOEMBED_UNROLL
            for (int i = 0; i < 4 * kHeight; ++i) vst1q_s32(o.sums + 4 * i, sums[i / 4][i % 4]);
            __asm__ volatile("" : : : "memory");
        }
    }
    return operations(kHeight, 16);
}

}  // namespace

const Unit kNeonUnit = {"neon", usable, bytes_in_registers, product, 0};
const Unit kNeonFloat = {"float32", always, floats_in_registers, nullptr, 0};

}  // namespace moembed::limits
