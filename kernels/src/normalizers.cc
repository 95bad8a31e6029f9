#include "penstock/normalizers.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "penstock/utf8.h"

namespace penstock {
namespace {

constexpr std::uint32_t kCapitalIWithDot = 0x130, kDotAbove = 0x307;

// Longer runs of marks are no language: they are sorted in n log n, with an allocation.
constexpr std::ptrdiff_t kInsertionSortMarks = 32;

std::vector<std::uint32_t> code_points(std::string_view text, const char* what) {
  if (!is_utf8(text)) throw std::invalid_argument(std::string(what) + " is not UTF-8");
  std::vector<std::uint32_t> found;
  for (std::size_t at = 0; at < text.size();) found.push_back(next_code_point(text, at));
  return found;
}

std::vector<std::uint32_t> some_code_points(std::string_view text, const char* what) {
  if (text.empty()) throw std::invalid_argument(std::string(what) + " is empty: leave the normaliser out");
  return code_points(text, what);
}

// While a form is computed, a part's `begin` is how many characters of the input it replaces, and its `end` its
// combining class.
void push_part(AlignedText& parts, std::uint32_t c, bool replaces, std::uint8_t combining_class) {
  parts.push_back({c, replaces, combining_class});
}

void sort_marks(AlignedText::iterator begin, AlignedText::iterator end) {
  const auto is_before = [](const AlignedChar& a, const AlignedChar& b) { return a.end < b.end; };
  if (end - begin > kInsertionSortMarks) return std::stable_sort(begin, end, is_before);
  for (auto mark = begin; mark < end; ++mark)
    for (auto place = mark; place > begin && is_before(*place, *(place - 1)); --place) std::swap(*place, *(place - 1));
}

void sort_runs_of_marks(AlignedText& parts) {
  for (auto at = parts.begin(); at < parts.end();) {
    if (!at->end) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, parts.end(), [](const AlignedChar& part) { return !part.end; });
    sort_marks(at, end);
    at = end;
  }
}

// Each starter takes in the characters after it that compose with it and are not blocked.
void compose(const UnicodeTables& tables, AlignedText& parts) {
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t size = 0, starter = kNone;
  for (const AlignedChar part : parts) {
    if (starter != kNone && (tables.info(part.code_point).flags & kComposes)) {
      const bool is_next = starter + 1 == size;
      if (is_next || parts[size - 1].end < part.end) {
        if (const std::uint32_t whole = tables.compose(parts[starter].code_point, part.code_point)) {
          parts[starter].code_point = whole;
          parts[starter].begin += part.begin;
          continue;
        }
      }
    }
    if (!part.end) starter = size;
    parts[size++] = part;
  }
  parts.resize(size);
}

// NormalizedString::transform: a part that replaces takes the next input's alignment, and passes over the rest
// of what it replaces; an inserted one copies the alignment before it. The first part is never an inserted one:
// within a decomposition the parts are in order already.
void align(const AlignedText& text, AlignedText& parts) {
  std::size_t taken = 0;
  for (AlignedChar& part : parts) {
    const auto replaced = static_cast<std::size_t>(part.begin);
    const AlignedChar& place = text[replaced || !taken ? taken : taken - 1];
    part.begin = place.begin;
    part.end = place.end;
    taken += replaced;
  }
}

void push_all(const std::vector<std::uint32_t>& content, const AlignedChar& place, AlignedText& out) {
  for (const std::uint32_t c : content) out.push_back({c, place.begin, place.end});
}

}  // namespace

bool is_inert(UnicodeForm form, std::string_view text) noexcept {
  constexpr std::uint64_t kHighBits = 0x8080808080808080U;
  for (std::size_t at = 0; at < text.size();) {
    if (std::uint64_t bytes; at + sizeof bytes <= text.size()) {
      std::memcpy(&bytes, text.data() + at, sizeof bytes);
      if (!(bytes & kHighBits)) {
        at += sizeof bytes;
        continue;
      }
    }
    if (!is_inert(form, next_code_point(text, at))) return false;
  }
  return true;
}

void UnicodeFormStage::decompose(const AlignedText& text, AlignedText& parts) const {
  using namespace hangul;
  const UnicodeTables& tables = UnicodeTables::get();
  const bool is_compatible = form_ == UnicodeForm::kNfkc || form_ == UnicodeForm::kNfkd;
  parts.clear();
  for (const AlignedChar& c : text) {
    const CharInfo& info = tables.info(c.code_point);
    if (info.flags & kHangul) {
      const std::uint32_t index = c.code_point - kSyllableFirst;
      push_part(parts, kLeadFirst + index / (kVowelCount * kTailCount), true, 0);
      push_part(parts, kVowelFirst + index / kTailCount % kVowelCount, false, 0);
      if (index % kTailCount) push_part(parts, kTailFirst + index % kTailCount, false, 0);
      continue;
    }
    const std::uint16_t which = is_compatible && info.compatibility ? info.compatibility : info.decomposition;
    if (!which) {
      push_part(parts, c.code_point, true, info.combining_class);
      continue;
    }
    const Decomposition whole = tables.decomposition(which);
    for (std::size_t i = 0; i < whole.size; ++i) {
      const auto part = static_cast<std::uint32_t>(whole.code_points[i]);
      push_part(parts, part, i == 0, tables.info(part).combining_class);
    }
  }
}

void UnicodeFormStage::apply(AlignedText& text, AlignedText& spare, std::int32_t) const {
  if (std::all_of(text.begin(), text.end(), [&](const AlignedChar& c) { return is_inert(form_, c.code_point); }))
    return;
  decompose(text, spare);
  sort_runs_of_marks(spare);
  if (form_ == UnicodeForm::kNfc || form_ == UnicodeForm::kNfkc) compose(UnicodeTables::get(), spare);
  align(text, spare);
  text.swap(spare);
}

void LowercaseStage::apply(AlignedText& text, AlignedText& spare, std::int32_t) const {
  const UnicodeTables& tables = UnicodeTables::get();
  spare.clear();
  for (AlignedChar c : text) {
    if (c.code_point == kCapitalIWithDot) {
      spare.push_back({'i', c.begin, c.end});
      c.code_point = kDotAbove;
    } else {
      c.code_point += static_cast<std::uint32_t>(tables.info(c.code_point).lower_distance);
    }
    spare.push_back(c);
  }
  text.swap(spare);
}

void StripAccentsStage::apply(AlignedText& text, AlignedText&, std::int32_t) const {
  const UnicodeTables& tables = UnicodeTables::get();
  std::erase_if(text, [&](const AlignedChar& c) { return (tables.info(c.code_point).flags & kAnyMark) != 0; });
}

void StripStage::apply(AlignedText& text, AlignedText&, std::int32_t) const {
  const UnicodeTables& tables = UnicodeTables::get();
  const auto stays = [&](const AlignedChar& c) { return !(tables.info(c.code_point).flags & kWhitespace); };
  if (right_) text.erase(std::find_if(text.rbegin(), text.rend(), stays).base(), text.end());
  if (left_) text.erase(text.begin(), std::find_if(text.begin(), text.end(), stays));
}

ReplaceStage::ReplaceStage(std::string_view pattern, std::string_view content)
    : pattern_(some_code_points(pattern, "the pattern of Replace")),
      content_(code_points(content, "the content of Replace")),
      fallback_(pattern_.size()) {
  std::size_t matched = 0;
  for (std::size_t i = 1; i < pattern_.size(); ++i) {
    while (matched && pattern_[i] != pattern_[matched]) matched = fallback_[matched - 1];
    if (pattern_[i] == pattern_[matched]) ++matched;
    fallback_[i] = matched;
  }
}

void ReplaceStage::apply(AlignedText& text, AlignedText& spare, std::int32_t) const {
  spare.clear();
  std::size_t matched = 0;
  for (const AlignedChar& c : text) {
    spare.push_back(c);
    while (matched && c.code_point != pattern_[matched]) matched = fallback_[matched - 1];
    if (c.code_point == pattern_[matched]) ++matched;
    if (matched == pattern_.size()) {
      spare.resize(spare.size() - matched);
      push_all(content_, c, spare);
      matched = 0;
    }
  }
  text.swap(spare);
}

ReplaceSpaceRunsStage::ReplaceSpaceRunsStage(std::string_view content)
    : content_(code_points(content, "the content of Replace")) {}

void ReplaceSpaceRunsStage::apply(AlignedText& text, AlignedText& spare, std::int32_t) const {
  spare.clear();
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && text[end].code_point == ' ') ++end;
    if (end - at >= 2) {
      push_all(content_, text[end - 1], spare);
      at = end;
    } else {
      spare.push_back(text[at++]);
    }
  }
  text.swap(spare);
}

PrependStage::PrependStage(std::string_view text) : text_(some_code_points(text, "the text of Prepend")) {}

void PrependStage::apply(AlignedText& text, AlignedText& spare, std::int32_t) const {
  if (text.empty()) return;
  spare.clear();
  push_all(text_, text.front(), spare);
  spare.insert(spare.end(), text.begin(), text.end());
  text.swap(spare);
}

}  // namespace penstock
