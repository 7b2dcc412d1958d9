#include "unigram.h"

#include <algorithm>

#include "utf8.h"

namespace moembed {

void Unigram::reset() {
    lengths_.clear();
    read_ = forgotten_ = 0;
    in_run_ = false;
}

// Extends the best segmentations by the pieces that start before `until`.
void Unigram::read(const uint8_t* word, size_t size, size_t until) {
    if (lengths_.empty()) score(0) = 0.0;
    lengths_.resize(size + 1);
    while (read_ < until) {
        const double so_far = score(read_);
        const size_t character = character_at(word + read_, word + size).length;
        bool covered = false;
        const auto offer = [&](size_t length, double added) {
            uint8_t& best = lengths_[read_ + length];
            double& best_score = score(read_ + length);
            if (best != 0 && !(added + so_far > best_score)) return;  // of equal scores, the first found
            best = static_cast<uint8_t>(length);
            best_score = added + so_far;
        };
        vocabulary_.prefixes(word + read_, std::min(size - read_, kLongestPiece), [&](size_t length, uint32_t id) {
            offer(length, vocabulary_.score(id));
            covered = covered || length == character;
        });
        if (!covered) offer(character, vocabulary_.unknown_score());
        read_ += character;
    }
}

// Returns the end of the part of a word whose tokens do not depend on the rest. `in_run` tells whether that is within a
// run of unknown characters, which all together become one token.
// A short run is not settled, because it may be a piece.
size_t Unigram::settled(const uint8_t* word, size_t size, bool* in_run) {
    if (size <= kLongestPiece) return 0;
    read(word, size, size - kLongestPiece);
    const size_t end = common();
    size_t start = end;
    while (start > 0 && piece(word + start - lengths_[start], lengths_[start]) == vocabulary_.unknown()) {
        start -= lengths_[start];
    }
    *in_run = end > start && (end - start > kLongestPiece || (start == 0 && in_run_));
    return *in_run ? end : start;
}

// Returns the last end of a piece that all segmentations in progress have in common.
size_t Unigram::common() const {
    bool met[kNear] = {};
    size_t ways = 0, end = std::min(read_ + kLongestPiece, lengths_.size() - 1);
    for (size_t ahead = read_; ahead <= end; ++ahead) {
        if (lengths_[ahead] == 0) continue;
        met[ahead % kNear] = true;
        ++ways;
    }
    if (ways == 0) return 0;
    for (;; --end) {
        bool& here = met[end % kNear];
        if (!here) continue;
        if (ways == 1) return end;
        here = false;
        bool& before = met[(end - lengths_[end]) % kNear];
        if (before) --ways;
        before = true;
    }
}

int32_t Unigram::piece(const uint8_t* text, size_t size) const {
    const int64_t id = vocabulary_.find(text, size);
    return id < 0 ? vocabulary_.unknown() : static_cast<int32_t>(id);
}

void Unigram::forget(size_t count) {
    lengths_.erase(lengths_.begin(), lengths_.begin() + static_cast<std::ptrdiff_t>(count));
    lengths_.front() = 0;
    read_ -= count;
    forgotten_ += count;
}

}  // namespace moembed
