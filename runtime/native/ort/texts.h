// The texts of a batch, whose tokens lie one after the other without padding.
#pragma once

#include "call.h"

namespace moembed::ort {

struct Text {
    size_t row, begin, end;  // row of the mask, tokens
};

// Finds the texts. A token is given as its cell of the mask, counted row by row; the tokens of one row are a text.
inline std::vector<Text> texts_of(const Tensor<int64_t>& tokens, const Tensor<int64_t>& mask) {
    std::vector<Text> texts;
    const int64_t sequence = mask.shape[1], cells = mask.shape[0] * sequence;
    int64_t before = -1;
    for (size_t t = 0; t < tokens[0]; ++t) {
        const int64_t cell = tokens.data[t];
        if (cell <= before || cell >= cells) {
            throw InvalidInput("token " + std::to_string(t) + " is cell " + std::to_string(cell) +
                               " of the mask, expected more than " + std::to_string(before) + " and less than " +
                               std::to_string(cells));
        }
        before = cell;
        const auto row = static_cast<size_t>(cell / sequence);
        if (texts.empty() || texts.back().row != row) texts.push_back({row, t, t});
        texts.back().end = t + 1;
    }
    return texts;
}

// Finds the position of each token in its text, for which a table of rotary angles must have a row.
inline std::vector<int64_t> positions_of(const Tensor<int64_t>& tokens, const Tensor<int64_t>& mask,
                                         const Tensor<float>& cos) {
    std::vector<int64_t> positions(tokens[0]);
    for (size_t t = 0; t < positions.size(); ++t) {
        positions[t] = tokens.data[t] % mask.shape[1];
        if (positions[t] >= cos.shape[0]) {
            throw InvalidInput("position " + std::to_string(positions[t]) + " is out of range (cos has " +
                               std::to_string(cos.shape[0]) + " rows)");
        }
    }
    return positions;
}

inline size_t heads_of(const Call& call) {
    const int64_t heads = call.attributes.num_heads;
    if (heads < 1 || heads > 1 << 16) {
        throw InvalidInput("num_heads is " + std::to_string(heads) + ", expected 1 to 65536");
    }
    return static_cast<size_t>(heads);
}

}  // namespace moembed::ort
