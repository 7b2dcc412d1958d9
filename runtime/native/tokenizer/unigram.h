// The best segmentation of a word under a unigram model, as the Rust library `tokenizers` finds it: the same order of
// additions in double precision and the same choice among equals, so that ids agree to the last one.
//
// A word may be megabytes long. What is kept of it is a byte per byte, and that only from where the segmentation is not yet
// certain: all ways to go on share their beginning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "vocabulary.h"

namespace moembed {

struct Token {
    int32_t id;
    size_t start, end;  // bytes of what is kept of the word
    bool goes_on;       // a run of unknown characters whose beginning was told before, as the last token
};

class Unigram {
public:
    explicit Unigram(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    // Calls `tell` for each token of the rest of a word, in order, and is ready for the next one.
    template <class Tell>
    void finish(const uint8_t* word, size_t size, Tell tell);

    // Calls `tell` for each token of the beginning of a word that does not depend on what follows. Returns the bytes that
    // they cover: later calls are given the word from there on.
    template <class Tell>
    size_t settle(const uint8_t* word, size_t size, Tell tell);

    // Forgets a word that was begun.
    void reset();

private:
    static constexpr size_t kLongestPiece = 255;
    static constexpr size_t kNear = 512;  // a power of two of more than kLongestPiece + 1

    void read(const uint8_t* word, size_t size, size_t until);
    size_t settled(const uint8_t* word, size_t size, bool* in_run);
    size_t common() const;
    int32_t piece(const uint8_t* text, size_t size) const;
    void forget(size_t count);
    template <class Tell>
    void walk(const uint8_t* word, size_t end, Tell tell);
    double& score(size_t end) { return scores_[(forgotten_ + end) % kNear]; }

    const Vocabulary& vocabulary_;
    // Of the best way to each end of a piece, the length of its last piece; 0 where none ends.
    std::vector<uint8_t> lengths_;
    double scores_[kNear];  // of these ways, as far as they are still needed
    size_t read_ = 0;       // ways to here are final
    size_t forgotten_ = 0;  // bytes of the word before what is kept
    bool in_run_ = false;  // what was forgotten ends within a run of unknown characters, which is longer than any piece
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

// Tells the tokens of the best way to `end`. Their lengths are turned round in place: the way is known from its end, and
// told from its start.
template <class Tell>
void Unigram::walk(const uint8_t* word, size_t end, Tell tell) {
    uint8_t length = lengths_[end];
    for (size_t start = end; start > 0;) {
        start -= length;
        std::swap(length, lengths_[start]);
    }
    constexpr size_t kNone = SIZE_MAX;
    size_t run = kNone;  // start of the run of unknown pieces that is being read; they become one token
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
