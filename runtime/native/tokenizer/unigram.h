// The best segmentation of a word under a unigram model, as the Rust library `tokenizers` finds it: the same order of
// additions in double precision and the same choice among equals, so that ids agree to the last one.
//
// A word may be megabytes long. What is kept of it is a byte per byte, and that only from where the segmentation is not yet
// certain: all ways to go on share their beginning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "vocabulary.h"

namespace moembed {

struct Token {
    int32_t id;
    size_t start, end;  // bytes of what is kept of the word
    bool is_run;        // of unknown characters
    bool goes_on;       // a run whose beginning was told before, as the last token
};

class Unigram {
public:
    explicit Unigram(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    // Replaces `out` by the tokens of the rest of a word, in order, and is ready for the next one.
    void finish(const uint8_t* word, size_t size, std::vector<Token>* out);

    // Replaces `out` by the tokens of the beginning of a word that do not depend on what follows. Returns the bytes that
    // they cover: later calls are given the word from there on.
    size_t settle(const uint8_t* word, size_t size, std::vector<Token>* out);

    // Forgets a word that was begun.
    void reset();

private:
    static constexpr size_t kLongestPiece = 255;
    static constexpr size_t kNear = 512;  // a power of two of more than kLongestPiece + 1

    void read(const uint8_t* word, size_t size, size_t until);
    size_t common() const;
    void walk_back(const uint8_t* word, size_t end, std::vector<Token>* out) const;
    void forget(size_t count);
    double& score(size_t end) { return scores_[(forgotten_ + end) % kNear]; }

    const Vocabulary& vocabulary_;
    // Of the best way to each end of a piece, the length of its last piece; 0 where none ends.
    std::vector<uint8_t> lengths_;
    double scores_[kNear];  // of these ways, as far as they are still needed
    size_t read_ = 0;       // ways to here are final
    size_t forgotten_ = 0;  // bytes of the word before what is kept
    bool in_run_ = false;   // what was forgotten ends within a run of unknown characters, which is longer than any piece
};

}  // namespace moembed
