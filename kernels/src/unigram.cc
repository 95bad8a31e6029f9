#include "penstock/unigram.h"

#include <algorithm>
#include <stdexcept>

#include "penstock/utf8.h"

namespace penstock {
namespace {

// Buffers of a longer word than this are given back after it.
constexpr std::size_t kBytesKept = std::size_t{1} << 16;

std::size_t char_size(char first) noexcept {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

template <typename T>
void give_back_if_large(std::vector<T>& items) {
  if (items.capacity() > kBytesKept) items = std::vector<T>();
}

}  // namespace

std::size_t UnigramScratch::bytes() const noexcept {
  return cuts.capacity() * sizeof(UnigramCut) + nodes_.capacity() * sizeof(Node) + text_.capacity() +
         char_of_byte_.capacity() * sizeof(std::uint32_t);
}

void UnigramScratch::give_back_if_large() {
  penstock::give_back_if_large(cuts);
  penstock::give_back_if_large(nodes_);
  penstock::give_back_if_large(char_of_byte_);
  if (text_.capacity() > kBytesKept) text_ = std::string();
}

Unigram::Unigram(const BlobView& blob)
    : vocabulary_(blob.records<DoubleArray::Node>(Section::kVocabularyTrie)),
      scores_(blob.records<double>(Section::kScores)),
      unknown_id_(blob.config().unknown_id),
      unknown_score_(blob.config().unknown_score),
      byte_fallback_((blob.config().model_flags & kByteFallback) != 0) {
  if (vocabulary_.empty()) throw std::invalid_argument("the compiled tokenizer has no vocabulary; compile it anew");
  if (unknown_id_ < 0 || static_cast<std::size_t>(unknown_id_) >= scores_.size())
    throw std::invalid_argument("the Unigram model has no unknown token: set unk_id in tokenizer.json");
  const auto ids = blob.records<std::int32_t>(Section::kByteIds);
  if (byte_fallback_ && ids.size() != byte_ids_.size())
    throw std::invalid_argument("the compiled tokenizer lacks the ids of bytes; compile it anew");
  byte_ids_.fill(-1);
  if (byte_fallback_) std::copy(ids.begin(), ids.end(), byte_ids_.begin());
}

std::unique_ptr<Scratch> Unigram::make_scratch() const { return std::make_unique<UnigramScratch>(); }

inline void Unigram::offer(UnigramScratch::Node& node, double score, std::size_t begin,
                           std::int32_t id) const noexcept {
  if (node.begin < 0 || score > node.score) node = {score, static_cast<std::int32_t>(begin), id};
}

void Unigram::search(std::string_view word, std::vector<UnigramScratch::Node>& nodes) const {
  if (nodes.size() < word.size() + 1) nodes.resize(word.size() + 1);
  std::fill_n(nodes.begin(), word.size() + 1, UnigramScratch::Node{0.0, -1, unknown_id_});
  for (std::size_t begin = 0; begin < word.size();) {
    const double before = nodes[begin].score;
    const std::size_t next = begin + char_size(word[begin]);
    bool is_piece = false;
    DoubleArray::State state = DoubleArray::kRoot;
    for (std::size_t end = begin; end < word.size();) {
      state = vocabulary_.step(state, static_cast<unsigned char>(word[end]));
      if (state == DoubleArray::kNone) break;
      ++end;
      const std::int32_t id = vocabulary_.value(state);
      if (id < 0 || static_cast<std::size_t>(id) >= scores_.size()) continue;
      // A sum without a product: nothing that a compiler could contract, so it is rounded as the reference's.
      offer(nodes[end], scores_[static_cast<std::size_t>(id)] + before, begin, id);
      is_piece |= end == next;
    }
    if (!is_piece) offer(nodes[next], unknown_score_ + before, begin, unknown_id_);
    begin = next;
  }
}

void Unigram::spell_backwards(std::string_view word, std::uint32_t begin, std::uint32_t end,
                              std::vector<UnigramCut>& out) const {
  const std::string_view piece = word.substr(begin, end - begin);
  const std::int32_t id = vocabulary_.get(piece);
  const auto byte_id = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  const bool in_bytes =
      id < 0 && byte_fallback_ && std::all_of(piece.begin(), piece.end(), [&](char c) { return byte_id(c) >= 0; });
  if (!in_bytes) {
    out.push_back({id < 0 ? unknown_id_ : id, begin, end});
    return;
  }
  for (auto c = piece.rbegin(); c != piece.rend(); ++c) out.push_back({byte_id(*c), begin, end});
}

void Unigram::cut_text(std::string_view word, UnigramScratch& scratch) const {
  search(word, scratch.nodes_);
  std::vector<UnigramCut>& cuts = scratch.cuts;
  cuts.clear();
  for (auto end = static_cast<std::uint32_t>(word.size()); end > 0;) {
    const UnigramScratch::Node& node = scratch.nodes_[end];
    auto begin = static_cast<std::uint32_t>(node.begin);
    if (node.id != unknown_id_) {
      cuts.push_back({node.id, begin, end});
    } else {
      while (begin > 0 && scratch.nodes_[begin].id == unknown_id_)
        begin = static_cast<std::uint32_t>(scratch.nodes_[begin].begin);
      spell_backwards(word, begin, end, cuts);
    }
    end = begin;
  }
  std::reverse(cuts.begin(), cuts.end());
}

void Unigram::cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
                  TokenBuffer& out) const {
  auto& room = static_cast<UnigramScratch&>(scratch);
  room.text_.clear();
  room.char_of_byte_.clear();
  for (const AlignedChar* c = begin; c != end; ++c) {
    append_utf8(room.text_, c->code_point);
    room.char_of_byte_.resize(room.text_.size(), static_cast<std::uint32_t>(c - begin));
  }
  cut_text(room.text_, room);
  out.grow(room.cuts.size());
  for (const UnigramCut& cut : room.cuts)
    out.push(cut.id, begin[room.char_of_byte_[cut.begin]].begin, begin[room.char_of_byte_[cut.end - 1]].end, word);
  room.give_back_if_large();
}

}  // namespace penstock
