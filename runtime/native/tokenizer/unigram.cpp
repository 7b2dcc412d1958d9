#include "unigram.h"

#include <algorithm>

#include "utf8.h"

namespace moembed {

void Unigram::finish(const uint8_t* word, size_t size, std::vector<Token>* out) {
    read(word, size, size);
    out->clear();
    walk_back(word, size, out);
    reset();
}

void Unigram::reset() {
    lengths_.clear();
    read_ = forgotten_ = 0;
    in_run_ = false;
}

size_t Unigram::settle(const uint8_t* word, size_t size, std::vector<Token>* out) {
    out->clear();
    if (size <= kLongestPiece) return 0;
    read(word, size, size - kLongestPiece);
    walk_back(word, common(), out);
    if (out->empty()) return 0;
    const Token last = out->back();
    size_t covered = last.end;
    bool in_run = false;
    if (last.is_run) {
        // More unknown characters may follow, and together they are one token: of a short run, which may be a piece, all
        // has to be seen.
        in_run = last.goes_on || last.end - last.start > kLongestPiece;
        if (!in_run) {
            covered = last.start;
            out->pop_back();
        }
    }
    if (covered == 0) return 0;
    in_run_ = in_run;
    forget(covered);
    return covered;
}

// Finds the best ways over the pieces that begin before `until`.
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
            if (best != 0 && !(added + so_far > best_score)) return;  // among equals, the first found
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

// The last end that every way to go on has passed.
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

// Appends the tokens of the best way to `end`.
void Unigram::walk_back(const uint8_t* word, size_t end, std::vector<Token>* out) const {
    size_t unknown_end = 0;  // end of the run of unknown pieces that is being walked back; they become one token
    const auto flush = [&](size_t start) {
        if (unknown_end == 0) return;
        const bool goes_on = in_run_ && start == 0;
        const int64_t id = goes_on ? -1 : vocabulary_.find(word + start, unknown_end - start);
        out->push_back({id < 0 ? vocabulary_.unknown() : static_cast<int32_t>(id), start, unknown_end, true, goes_on});
        unknown_end = 0;
    };
    while (end > 0) {  // every character's end has a way
        const size_t length = lengths_[end];
        const int64_t id = vocabulary_.find(word + end - length, length);
        if (id < 0 || id == vocabulary_.unknown()) {
            if (unknown_end == 0) unknown_end = end;
        } else {
            flush(end);
            out->push_back({static_cast<int32_t>(id), end - length, end, false, false});
        }
        end -= length;
    }
    flush(0);
    std::reverse(out->begin(), out->end());
}

void Unigram::forget(size_t count) {
    lengths_.erase(lengths_.begin(), lengths_.begin() + static_cast<std::ptrdiff_t>(count));
    lengths_.front() = 0;
    read_ -= count;
    forgotten_ += count;
}

}  // namespace moembed
