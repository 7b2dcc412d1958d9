// The router: float scores of every expert, their softmax, and the indices of the largest.
#pragma once

#include "lanes_math.h"
#include "table.h"

namespace moembed {
namespace {

template <int N>
inline void scores_of(const float* x, size_t width, const float* weight, float* out) {
    Lanes sums[N];
    for (int e = 0; e < N; ++e) sums[e] = fill(0.0f);
    along(width, [&](size_t i, size_t n) {
        const Lanes v = load(x + i, n);
        MOEMBED_UNROLL
        for (int e = 0; e < N; ++e) sums[e] = fma(v, load(weight + e * width + i, n), sums[e]);
    });
    for (int e = 0; e < N; ++e) out[e] = sum_of(sums[e]);
}

inline void route(const float* x, size_t width, const float* weight, size_t experts, size_t top_k, size_t first_row,
                  size_t last_row, float* weights, int64_t* expert_indices, float* scratch) {
    for (size_t t = first_row; t < last_row; ++t) {
        size_t e = 0;
        for (; e + 4 <= experts; e += 4) scores_of<4>(x + t * width, width, weight + e * width, scratch + e);
        for (; e < experts; ++e) scores_of<1>(x + t * width, width, weight + e * width, scratch + e);
        float largest = scratch[0];
        for (e = 1; e < experts; ++e) largest = scratch[e] > largest ? scratch[e] : largest;
        Lanes sum = fill(0.0f);
        along(experts, [&](size_t i, size_t n) {
            const Lanes p = first(exp_of(load(scratch + i, n) - fill(largest)), n);
            store(scratch + i, p);
            sum = sum + p;
        });
        const Lanes total = fill(sum_of(sum));
        along(experts, [&](size_t i, size_t) { store(scratch + i, load(scratch + i) / total); });
        for (size_t k = 0; k < top_k; ++k) {
            size_t best = experts;
            for (e = 0; e < experts; ++e) {
                bool taken = false;
                for (size_t before = 0; before < k; ++before)
                    taken |= expert_indices[t * top_k + before] == static_cast<int64_t>(e);
                if (!taken && (best == experts || scratch[e] > scratch[best])) best = e;
            }
            weights[t * top_k + k] = scratch[best];
            expert_indices[t * top_k + k] = static_cast<int64_t>(best);
        }
    }
}

}  // namespace
}  // namespace moembed
