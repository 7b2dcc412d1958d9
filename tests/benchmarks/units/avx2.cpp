// AVX2: exact products of bytes, widened to 16 bits because the instruction for bytes saturates, and floats.
#include <immintrin.h>

#include "cpu.h"
#include "ymm.h"

namespace moembed::limits {
namespace {

bool usable() { return cpu().avx2.usable; }

// A product and its addition to one of six sums.
#define PAIR(to, sum) "vpmaddwd %[a], %[b], %%ymm" #to "\nvpaddd %%ymm" #to ", %%ymm" #sum ", %%ymm" #sum "\n"

double bytes_in_registers(long rounds) {
    const __m256i a = _mm256_setzero_si256(), b = a;
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) {
            __asm__ volatile(PAIR(4, 10) PAIR(5, 11) PAIR(6, 12) PAIR(7, 13) PAIR(8, 14) PAIR(9, 15)
                             :
                             : [a] "x"(a), [b] "x"(b)
                             : MOEMBED_YMM_SUMS);
        }
    }
    return static_cast<double>(rounds) * 48 * 32;
}

double floats_in_registers(long rounds) {
    const __m256 a = _mm256_setzero_ps(), b = a;
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) {
            __asm__ volatile(MOEMBED_YMM_TWELVE("vfmadd231ps") : : [a] "x"(a), [b] "x"(b) : MOEMBED_YMM_SUMS);
        }
    }
    return static_cast<double>(rounds) * 96 * 16;
}

// Four rows and sixteen columns: eight sums, and 6 loads for 8 products and 8 additions. Rows and weights are in 16 bits: a
// kernel widens them once for many columns and rows.
void tile(const uint8_t* rows, size_t depth, const int8_t* weights, __m256i* out) {
    __m256i sums[4][2];
    MOEMBED_UNROLL
    for (int r = 0; r < 4; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < 2; ++b) sums[r][b] = _mm256_load_si256(out + 2 * r + b);
    }
    for (size_t k = 0; k < depth; k += 2) {
        const auto* w = reinterpret_cast<const __m256i*>(weights + 32 * k);
        const __m256i left = _mm256_load_si256(w), right = _mm256_load_si256(w + 1);
        MOEMBED_UNROLL
        for (int r = 0; r < 4; ++r) {
            const __m256i q = _mm256_set1_epi32(load_int(rows + 2 * (r * depth + k)));
            sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(q, left));
            sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(q, right));
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < 4; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < 2; ++b) _mm256_store_si256(out + 2 * r + b, sums[r][b]);
    }
}

double product(const Operands& o) {
    const size_t depth = hidden(kDepth);
    for (size_t column = 0; column < kColumns; column += 16) {
        for (size_t row = 0; row < kRows; row += 4) {
            tile(o.rows + 2 * row * kDepth, depth, o.weights + 2 * column * kDepth, reinterpret_cast<__m256i*>(o.sums));
        }
    }
    return operations(4, 16);
}

}  // namespace

const Unit kAvx2Unit = {"avx2", usable, bytes_in_registers, product, 0};
const Unit kAvx2Float = {"float32", usable, floats_in_registers, nullptr, 0};

}  // namespace moembed::limits
