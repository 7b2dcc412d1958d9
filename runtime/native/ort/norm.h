// AddNormQuantize at the end of another operator: rows of its result are normalized while they are in the cache.
#pragma once

#include "call.h"

namespace moembed::ort {

// Completes a norm over `width` columns; `y` is its result.
inline Norm norm_of(const Call& call, size_t width, const Tensor<float>& gamma, const Tensor<float>& beta, float* y) {
    Norm norm;
    norm.width = width;
    norm.epsilon = call.attributes.epsilon;
    norm.gamma = gamma.data;
    norm.beta = beta.data;
    norm.y = y;
    return norm;
}

// Completes a norm that quantizes: its results are outputs 0 to 2.
inline void quantize_into(Call& call, Norm& norm, const Tensor<float>& smooth, size_t rows) {
    norm.smooth = smooth.data;
    norm.quantized = call.output<uint8_t>(1, {rows, norm.width});
    norm.scale = call.output<float>(2, {rows, 1});
}

class FollowingNorm {
public:
    // Its own inputs begin at `index`, and its results are all outputs.
    FollowingNorm(Call& call, size_t index, size_t rows, size_t width) : kernels_(call.kernels) {
        const auto columns = static_cast<int64_t>(width);
        residual_ = call.input<float>(index, "residual", {static_cast<int64_t>(rows), columns}).data;
        const auto gamma = call.input<float>(index + 1, "gamma", {columns});
        const auto beta = call.input<float>(index + 2, "beta", {columns});
        const auto smooth = call.input<float>(index + 3, "smooth", {columns});
        norm_ = norm_of(call, width, gamma, beta, call.output<float>(0, {rows, width}));
        quantize_into(call, norm_, smooth, rows);
    }

    // Rows `first` to `last`; `x` begins with the first.
    void operator()(const float* x, size_t first, size_t last) const {
        Norm part = norm_;
        part.y += first * part.width;
        part.quantized += first * part.width;
        part.scale += first;
        kernels_.add_norm(x, residual_ + first * part.width, part, 0, last - first);
    }

private:
    const Kernels& kernels_;
    const float* residual_;
    Norm norm_;
};

}  // namespace moembed::ort
