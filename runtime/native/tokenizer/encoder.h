// Tokenization: added tokens, normalizer, words, pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "normalizer.h"
#include "unigram.h"
#include "vocabulary.h"

namespace moembed {

// The tokens of a text to return.
struct Wanted {
    size_t most = std::numeric_limits<size_t>::max();
    bool last = false;  // the last ones, not the first ones
};

// Encodes texts with an open vocabulary; safe to share between threads. A text is read part by part, so that memory
// grows only with the wanted tokens and the longest word. Reading stops after the last wanted token.
class Encoder {
public:
    explicit Encoder(const Vocabulary& vocabulary);

    // Working memory of a call; one per thread.
    struct Workspace {
        explicit Workspace(const Vocabulary& vocabulary) : unigram(vocabulary) {}
        Unigram unigram;
        Normalized part;
        Normalized word;        // the part in memory of the current word
        size_t word_limit = 0;  // bytes of it at which its first tokens are settled
    };

    // Appends the ids of a text, between the two special tokens.
    void encode(Bytes text, Wanted wanted, Workspace* work, std::vector<int32_t>* ids) const;

    // Appends the ids of a text without special tokens, and the range of characters [start, end) that each comes from.
    void encode_with_spans(Bytes text, Wanted wanted, Workspace* work, std::vector<int32_t>* ids,
                           std::vector<int64_t>* spans) const;

private:
    class Sink;

    void pieces(Bytes text, Workspace* work, Sink* sink) const;
    void plain(const uint8_t* text, size_t begin, size_t end, Workspace* work, Sink* sink) const;
    void words(size_t known, Workspace* work, Sink* sink) const;
    void extend_word(size_t begin, size_t end, Workspace* work, Sink* sink) const;
    void end_word(Workspace* work, Sink* sink) const;
    const AddedToken* added_at(const uint8_t* text, const uint8_t* end) const;

    const Vocabulary& vocabulary_;
    Normalizer normalizer_;
    bool begins_added_[256] = {};
};

}  // namespace moembed
