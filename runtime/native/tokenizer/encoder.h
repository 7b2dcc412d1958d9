// From a text to token ids: added tokens, normaliser, words, pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "normalizer.h"
#include "unigram.h"
#include "vocabulary.h"

namespace moembed {

// Reads an open vocabulary; safe to share between threads.
class Encoder {
public:
    explicit Encoder(const Vocabulary& vocabulary);

    // What a call works in; one per thread.
    struct Workspace {
        explicit Workspace(const Vocabulary& vocabulary) : unigram(vocabulary) {}
        Unigram unigram;
        Normalized normalized;
        std::vector<uint8_t> word;
        std::vector<Token> tokens;
    };

    // Appends the ids of a text with its two special tokens around.
    void encode(Bytes text, Workspace* work, std::vector<int32_t>* ids) const;

    // Appends the ids of a text without special tokens, and of each the characters [start, end) it comes from.
    void encode_with_spans(Bytes text, Workspace* work, std::vector<int32_t>* ids, std::vector<int64_t>* spans) const;

private:
    struct Sink {
        std::vector<int32_t>* ids;
        std::vector<Span>* origins;  // null if not asked for
    };

    void pieces(Bytes text, Workspace* work, const Sink& sink) const;
    void plain(const uint8_t* text, size_t begin, size_t end, Workspace* work, const Sink& sink) const;
    void word(const uint8_t* text, size_t begin, size_t end, Workspace* work, const Sink& sink) const;
    const AddedToken* added_at(const uint8_t* text, const uint8_t* end) const;

    const Vocabulary& vocabulary_;
    Normalizer normalizer_;
    bool begins_added_[256] = {};
};

}  // namespace moembed
