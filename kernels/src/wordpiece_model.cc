#include "penstock/wordpiece_model.h"

#include <string_view>

#include "penstock/utf8.h"

namespace penstock {
namespace {

struct Spelling final : Scratch {
  std::string word;

  std::size_t bytes() const noexcept override { return word.capacity(); }
};

}  // namespace

WordPieceModel::WordPieceModel(const BlobView& blob)
    : vocabulary_(blob.records<DoubleArray::Node>(Section::kVocabularyTrie)),
      continuation_(DoubleArray::kRoot),
      unknown_id_(blob.config().unknown_id),
      word_chars_max_(blob.config().word_chars_max) {
  if (vocabulary_.empty()) throw std::invalid_argument("the compiled tokenizer has no vocabulary");
  const std::string_view prefix = blob.text(blob.config().continuing_prefix);
  if (!prefix.empty()) continuation_ = vocabulary_.find(prefix);
}

std::unique_ptr<Scratch> WordPieceModel::make_scratch() const { return std::make_unique<Spelling>(); }

void WordPieceModel::cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
                         TokenBuffer& out) const {
  const auto push_unknown = [&] { out.push(unknown_id_, begin->begin, (end - 1)->end, word); };
  if (end - begin > word_chars_max_) return push_unknown();
  std::string& spelling = static_cast<Spelling&>(scratch).word;
  spelling.clear();
  for (const AlignedChar* c = begin; c != end; ++c) append_utf8(spelling, c->code_point);
  const std::size_t tokens_before = out.size();
  const AlignedChar* piece = begin;
  for (std::size_t at = 0; at < spelling.size();) {
    const DoubleArray::State start = at ? continuation_ : DoubleArray::kRoot;
    const std::string_view rest = std::string_view(spelling).substr(at);
    const DoubleArray::Match match =
        start == DoubleArray::kNone ? DoubleArray::Match{DoubleArray::kNoValue, 0} : vocabulary_.longest(rest, start);
    if (!match.size) {
      out.shrink(tokens_before);
      return push_unknown();
    }
    const AlignedChar* next = piece + count_code_points(rest.substr(0, match.size));
    out.push(match.value, piece->begin, (next - 1)->end, word);
    piece = next;
    at += match.size;
  }
}

}  // namespace penstock
