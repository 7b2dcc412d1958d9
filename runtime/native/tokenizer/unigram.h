// The best segmentation of a word under a unigram model, as the Rust library `tokenizers` finds it: additions in the
// same order in double precision, and the same choice between equal scores, so that all ids are the same.
//
// A word may have megabytes. One byte is kept per byte of the word,
// and only from where its segmentation is not yet certain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "vocabulary.h"

namespace moembed {

struct Token {
    int32_t id;
    size_t start, end;  // bytes of the part of the word that is kept
    bool goes_on;       // continues the previous token, a run of unknown characters
};

class Unigram {
public:
    explicit Unigram(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    // Calls `tell` for each token of the rest of a word, in order, and resets for the next word.
    template <class Tell>
    void finish(const uint8_t* word, size_t size, Tell tell);

    // Calls `tell` for each token at the start of a word that does not depend on the rest. Returns the number of their
    // bytes: pass the word from there on to later calls.
    template <class Tell>
    size_t settle(const uint8_t* word, size_t size, Tell tell);

    // Discards a started word.
    void reset();

private:
    static constexpr size_t kLongestPiece = 255;
    static constexpr size_t kNear = 512;  // a power of two above kLongestPiece + 1

    void read(const uint8_t* word, size_t size, size_t until);
    size_t settled(const uint8_t* word, size_t size, bool* in_run);
    size_t common() const;
    int32_t piece(const uint8_t* text, size_t size) const;
    void forget(size_t count);
    template <class Tell>
    void walk(const uint8_t* word, size_t end, Tell tell);
    double& score(size_t end) { return scores_[(forgotten_ + end) % kNear]; }

    const Vocabulary& vocabulary_;
    // The length of the last piece in the best segmentation up to each byte; 0 where no piece ends.
    std::vector<uint8_t> lengths_;
    double scores_[kNear];  // of these segmentations, as far as they are still needed
    size_t read_ = 0;       // segmentations up to here are final
    size_t forgotten_ = 0;  // bytes of the word that are no longer kept
    bool in_run_ = false;   // the forgotten part ends in a run of unknown characters that is longer than any piece
};

template <class Tell>
void Unigram::finish(const uint8_t* word, size_t size, Tell tell) {
    read(word, size, size);
    walk(word, size, tell);
    reset();
}

template <class Tell>
size_t Unigram::settle(const uint8_t* word, size_t size, Tell tell) {
    bool in_run = false;
    const size_t end = settled(word, size, &in_run);
    if (end == 0) return 0;
    walk(word, end, tell);
    in_run_ = in_run;
    forget(end);
    return end;
}

// Calls `tell` for the tokens of the best segmentation up to `end`. It is stored from its end, so the lengths are
// reversed in place first.
template <class Tell>
void Unigram::walk(const uint8_t* word, size_t end, Tell tell) {
    uint8_t length = lengths_[end];
    for (size_t start = end; start > 0;) {
        start -= length;
        std::swap(length, lengths_[start]);
    }
    constexpr size_t kNone = SIZE_MAX;
    size_t run = kNone;  // start of the current run of unknown pieces, which become one token
    const auto flush = [&](size_t run_end) {
        if (run == kNone) return;
        const bool goes_on = in_run_ && run == 0;
        const int64_t id = goes_on ? -1 : vocabulary_.find(word + run, run_end - run);
        tell(Token{id < 0 ? vocabulary_.unknown() : static_cast<int32_t>(id), run, run_end, goes_on});
        run = kNone;
    };
    for (size_t start = 0; start < end; start += lengths_[start]) {
        const int32_t id = piece(word + start, lengths_[start]);
        if (id == vocabulary_.unknown()) {
            if (run == kNone) run = start;
        } else {
            flush(start);
            tell(Token{id, start, start + lengths_[start], false});
        }
    }
    flush(end);
}

}  // namespace moembed
