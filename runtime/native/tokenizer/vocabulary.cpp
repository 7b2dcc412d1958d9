#include "vocabulary.h"

namespace moembed {
namespace {

constexpr char kMagic[8] = {'M', 'O', 'E', 'V', 'O', 'C', 'A', 'B'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMostPieces = 1u << 22;
constexpr uint32_t kPiecesPerStart = 16;

enum Section : uint32_t { kScores, kStarts, kLengths, kTexts, kTrie, kCharsmap, kAdded, kSections };

struct Range {
    uint64_t offset, size;
};

struct Header {
    char magic[8];
    uint32_t version, pieces;
    uint64_t file_size;
    uint8_t source[32];
    int32_t bos, eos, pad, unknown;
    double unknown_score;
    Range sections[kSections];
};

struct AddedRecord {
    int32_t id;
    uint32_t strips_left;
};

static_assert(sizeof(Header) == 80 + kSections * sizeof(Range), "the header must not have gaps");

bool is_id(int32_t id, uint32_t pieces) { return id >= 0 && static_cast<uint32_t>(id) < pieces; }

}  // namespace

const char* Vocabulary::open(Bytes file) {
    Header header;
    if (file.size < sizeof header) return "it is shorter than its header";
    std::memcpy(&header, file.data, sizeof header);
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return "it does not start with MOEVOCAB";
    if (header.version != kVersion) return "it has another version of the format";
    if (header.file_size != file.size) return "its size differs from the one in its header";
    file_ = file;
    pieces_ = header.pieces;
    bos_ = header.bos;
    eos_ = header.eos;
    pad_ = header.pad;
    unknown_ = header.unknown;
    unknown_score_ = header.unknown_score;
    source_ = file.data + offsetof(Header, source);
    Bytes charsmap, added;
    if (!(section(kScores, &scores_) && section(kStarts, &starts_) && section(kLengths, &lengths_) &&
          section(kTexts, &texts_) && section(kTrie, &trie_) && section(kCharsmap, &charsmap) &&
          section(kAdded, &added))) {
        return "a section is outside the file";
    }
    const uint64_t starts = (uint64_t{pieces_} + kPiecesPerStart - 1) / kPiecesPerStart;
    if (pieces_ == 0 || pieces_ > kMostPieces || scores_.size != uint64_t{pieces_} * sizeof(double) ||
        lengths_.size != pieces_ || starts_.size != starts * sizeof(uint32_t) || trie_.size % sizeof(uint32_t) != 0 ||
        trie_.size == 0 || added.size % sizeof(AddedRecord) != 0) {
        return "the sizes of its sections contradict each other";
    }
    for (const int32_t id : {bos_, eos_, pad_, unknown_}) {
        if (!is_id(id, pieces_)) return "a special token is not in its vocabulary";
    }
    if (!charsmap_.open(charsmap)) return "its normalizer is damaged";
    for (size_t i = 0; i < added.size / sizeof(AddedRecord); ++i) {
        const auto record = read<AddedRecord>(added, i);
        const Bytes text = is_id(record.id, pieces_) ? piece(static_cast<uint32_t>(record.id)) : Bytes{nullptr, 0};
        if (text.size == 0) return "an added token is not in its vocabulary";
        added_.push_back({text, record.id, record.strips_left != 0});
    }
    return nullptr;
}

bool Vocabulary::section(uint32_t number, Bytes* found) const {
    Range range;
    std::memcpy(&range, file_.data + offsetof(Header, sections) + number * sizeof range, sizeof range);
    if (range.offset < sizeof(Header) || range.offset > file_.size || range.size > file_.size - range.offset)
        return false;
    *found = {file_.data + range.offset, static_cast<size_t>(range.size)};
    return true;
}

Bytes Vocabulary::piece(uint32_t id) const {
    if (id >= pieces_) return {nullptr, 0};
    size_t start = read<uint32_t>(starts_, id / kPiecesPerStart);
    for (uint32_t before = id / kPiecesPerStart * kPiecesPerStart; before < id; ++before)
        start += lengths_.data[before];
    const size_t length = lengths_.data[id];
    if (start > texts_.size || length > texts_.size - start) return {nullptr, 0};
    return {texts_.data + start, length};
}

int64_t Vocabulary::find(const uint8_t* text, size_t size) const {
    int64_t id = -1;
    prefixes(text, size, [&](size_t length, uint32_t found) {
        if (length == size) id = found;
    });
    return id;
}

}  // namespace moembed
