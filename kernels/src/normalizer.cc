#include "penstock/normalizer.h"

#include <algorithm>

#include "penstock/utf8.h"

namespace penstock {
namespace {

constexpr std::uint32_t kCapitalIWithDot = 0x130;
constexpr std::uint32_t kDotAbove = 0x307;

// Hangul syllables decompose by arithmetic (Unicode Standard, section 3.12).
constexpr std::uint32_t kHangulFirst = 0xAC00, kHangulCount = 11172;
constexpr std::uint32_t kLeadFirst = 0x1100, kVowelFirst = 0x1161, kTailFirst = 0x11A7;
constexpr std::uint32_t kVowelCount = 21, kTailCount = 28;

}  // namespace

void BertNormalizer::append(std::string_view chunk, AlignedText& out) {
  for (std::size_t at = 0; at < chunk.size(); ++index_) {
    const std::uint32_t c = next_code_point(chunk, at);
    push({c, index_, index_ + 1}, out);
  }
  flush(out);
}

void BertNormalizer::push(const AlignedChar& in, AlignedText& out) {
  std::uint32_t c = in.code_point;
  const Span span{in.begin, in.end};
  const CharInfo* info = &tables_.info(c);
  if (options_.clean_text) {
    if (info->flags & kCleanRemoved) return;
    if (info->flags & kCleanSpace) info = &tables_.info(c = ' ');
  }
  const bool spaced = options_.handle_chinese_chars && (info->flags & kCjk);
  if (spaced) decompose(' ', tables_.info(' '), span, out);
  decompose(c, *info, span, out);
  if (spaced) decompose(' ', tables_.info(' '), span, out);
}

void BertNormalizer::decompose(std::uint32_t c, const CharInfo& info, Span span, AlignedText& out) {
  if (!options_.strip_accents) return finish(c, info, span, out);
  const bool is_hangul = c - kHangulFirst < kHangulCount;
  if (pending_.empty() && !info.combining_class && !info.decomposition && !is_hangul) {
    last_ = span;
    if (!(info.flags & kMark)) finish(c, info, span, out);
    return;
  }
  spans_.push_back(span);
  if (is_hangul) return decompose_hangul(c - kHangulFirst, out);
  if (!info.decomposition) return reorder(c, true, out);
  const Decomposition parts = tables_.decomposition(info.decomposition);
  for (std::size_t i = 0; i < parts.size; ++i)
    reorder(static_cast<std::uint32_t>(parts.code_points[i]), i == 0, out);
}

void BertNormalizer::decompose_hangul(std::uint32_t index, AlignedText& out) {
  reorder(kLeadFirst + index / (kVowelCount * kTailCount), true, out);
  reorder(kVowelFirst + index / kTailCount % kVowelCount, false, out);
  if (index % kTailCount) reorder(kTailFirst + index % kTailCount, false, out);
}

void BertNormalizer::reorder(std::uint32_t c, bool consumes, AlignedText& out) {
  const std::uint8_t combining_class = tables_.info(c).combining_class;
  if (combining_class) {
    pending_.push_back({c, combining_class, consumes});
    return;
  }
  flush(out);
  emit_decomposed(c, consumes, out);
}

void BertNormalizer::flush(AlignedText& out) {
  if (!pending_.empty()) {
    std::stable_sort(pending_.begin(), pending_.end(), [](const Pending& a, const Pending& b) {
      return a.combining_class < b.combining_class;
    });
    for (const Pending& mark : pending_) emit_decomposed(mark.code_point, mark.consumes, out);
    pending_.clear();
  }
  // What a decomposition still in the middle of its characters needs lies at spans_used_ or later.
  if (spans_used_ == spans_.size()) {
    spans_.clear();
    spans_used_ = 0;
  }
}

void BertNormalizer::emit_decomposed(std::uint32_t c, bool consumes, AlignedText& out) {
  if (consumes) last_ = spans_[spans_used_++];
  const CharInfo& info = tables_.info(c);
  if (!(info.flags & kMark)) finish(c, info, last_, out);
}

void BertNormalizer::finish(std::uint32_t c, const CharInfo& info, Span span,
                            AlignedText& out) const {
  if (options_.lowercase) {
    if (c == kCapitalIWithDot) {
      out.push_back({'i', span.begin, span.end});
      c = kDotAbove;
    } else {
      c = static_cast<std::uint32_t>(static_cast<std::int32_t>(c) + info.lower_distance);
    }
  }
  out.push_back({c, span.begin, span.end});
}

}  // namespace penstock
