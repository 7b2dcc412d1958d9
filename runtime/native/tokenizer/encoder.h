// From a text to token ids: added tokens, normaliser, words, pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "normalizer.h"
#include "unigram.h"
#include "vocabulary.h"

namespace moembed {

// Which tokens of a text are wanted.
struct Wanted {
    size_t most = std::numeric_limits<size_t>::max();
    bool last = false;  // the last ones of the text rather than the first
};

// Reads an open vocabulary; safe to share between threads. A text is read part by part: no more memory is used than the
// wanted tokens and the longest word need, and nothing is read behind the last token that is wanted.
class Encoder {
public:
    explicit Encoder(const Vocabulary& vocabulary);

    // What a call works in; one per thread.
    struct Workspace {
        explicit Workspace(const Vocabulary& vocabulary) : unigram(vocabulary) {}
        Unigram unigram;
        Normalized part;
        Normalized word;        // what is kept of the word that is being read
        size_t word_limit = 0;  // bytes of it after which tokens are settled
    };

    // Appends the ids of a text with its two special tokens around.
    void encode(Bytes text, Wanted wanted, Workspace* work, std::vector<int32_t>* ids) const;

    // Appends the ids of a text without special tokens, and of each the characters [start, end) it comes from.
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
