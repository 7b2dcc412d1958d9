// The best segmentation of a word under a unigram model, as the Rust library `tokenizers` finds it: the same order of
// additions in double precision and the same choice among equals, so that ids agree to the last one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "vocabulary.h"

namespace moembed {

struct Token {
    int32_t id;
    size_t start, end;  // bytes of the word
};

class Unigram {
public:
    explicit Unigram(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    // Replaces `out` by the tokens of `word`, in order.
    void segment(const uint8_t* word, size_t size, std::vector<Token>* out);

private:
    // The best way to an end of a piece, and its last piece; length 0 where none ends.
    struct Step {
        double score;
        uint32_t id;
        uint32_t length;
    };

    const Vocabulary& vocabulary_;
    std::vector<Step> steps_;
};

}  // namespace moembed
