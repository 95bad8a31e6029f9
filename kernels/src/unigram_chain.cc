#include "unigram_chain.h"

#include <algorithm>

#include "penstock/unicode.h"
#include "penstock/utf8.h"

namespace penstock {
namespace {

bool is_whitespace(std::uint32_t c) { return (UnicodeTables::get().info(c).flags & kWhitespace) != 0; }

GraphemeClass grapheme_of(std::uint32_t c) { return UnicodeTables::get().info(c).grapheme; }

// What a character becomes if it is a cluster of its own; none if it stays as it is.
std::optional<std::string_view> replacement(const std::optional<Charsmap>& charsmap, std::uint32_t c) {
  if (!charsmap) return std::nullopt;
  std::string text;
  append_utf8(text, c);
  return charsmap->replacement(text);
}

std::optional<std::uint32_t> only_char(std::string_view text) {
  std::size_t at = 0;
  if (text.empty()) return std::nullopt;
  const std::uint32_t c = next_code_point(text, at);
  return at == text.size() ? std::optional(c) : std::nullopt;
}

}  // namespace

void AddedTexts::add(std::string_view text) {
  starts_.add(text);
  trie_.insert(text, 0);
  is_empty_ = false;
}

bool AddedTexts::lie_in(std::string_view text) const noexcept {
  for (std::size_t at = starts_.next(text, 0); at < text.size(); at = starts_.next(text, at + 1))
    if (trie_.longest(text.substr(at)).size) return true;
  return false;
}

std::optional<UnigramChain> UnigramChain::of(const BlobView& blob) {
  UnigramChain chain;
  if (blob.config().model_kind != static_cast<std::int32_t>(ModelKind::kUnigram)) return std::nullopt;
  if (!chain.take_pre_tokenizers(blob) || !chain.take_normalizers(blob)) return std::nullopt;
  if (!chain.is_separable() || !chain.take_added_tokens(blob)) return std::nullopt;
  return chain;
}

bool UnigramChain::take_pre_tokenizers(const BlobView& blob) {
  auto records = blob.records<StageRecord>(Section::kPreTokenizers);
  const auto is = [](const StageRecord& record, PreTokenizerKind kind) {
    return record.kind == static_cast<std::int32_t>(kind);
  };
  if (!records.empty() && is(records.front(), PreTokenizerKind::kWhitespaceSplit)) {
    cuts_at_whitespace = true;
    records = records.subspan(1);
  }
  if (records.size() != 1 || !is(records.front(), PreTokenizerKind::kMetaspace) || !(records.front().flags & 1))
    return false;
  const StageRecord& metaspace = records.front();
  prepend = static_cast<MetaspaceStage::Prepend>(metaspace.number);
  mark_text = blob.text(metaspace.text);
  mark = only_char(mark_text).value_or(0);
  return mark >= 0x80 && metaspace.number >= 0 && metaspace.number <= 2 && !is_whitespace(mark);
}

bool UnigramChain::take_normalizers(const BlobView& blob) {
  const auto records = blob.records<StageRecord>(Section::kNormalizers);
  return std::all_of(records.begin(), records.end(),
                     [&](const StageRecord& record) { return take_normalizer(blob, record); });
}

bool UnigramChain::take_normalizer(const BlobView& blob, const StageRecord& record) {
  switch (static_cast<NormalizerKind>(record.kind)) {
    case NormalizerKind::kStrip:
      if (collapses || !forms_.empty() || !replaced_.empty() || strips_accents_) return false;
      if (charsmap) {
        strips_normalized |= (record.flags & 2) != 0;
        return !(record.flags & 1);
      }
      strips_left |= (record.flags & 1) != 0;
      strips_right |= (record.flags & 2) != 0;
      return true;
    case NormalizerKind::kPrecompiled:
      if (charsmap || collapses) return false;
      charsmap.emplace(blob);
      return true;
    case NormalizerKind::kReplaceSpaceRuns: {
      const std::string_view content = blob.text(record.other);
      collapses = true;
      // The mark would join what WhitespaceSplit is to cut.
      return content == " " || (content == mark_text && !cuts_at_whitespace);
    }
    default: return !charsmap && !collapses && !strips_left && !strips_right && take_stage(blob, record);
  }
}

bool UnigramChain::take_stage(const BlobView& blob, const StageRecord& record) {
  switch (static_cast<NormalizerKind>(record.kind)) {
    case NormalizerKind::kUnicodeForm:
      if (record.number < 0 || record.number > 3) return false;
      forms_.push_back(static_cast<UnicodeForm>(record.number));
      stages.push_back(std::make_unique<UnicodeFormStage>(forms_.back()));
      return true;
    case NormalizerKind::kLowercase:
      lowercases_ = true;
      stages.push_back(std::make_unique<LowercaseStage>());
      return true;
    case NormalizerKind::kStripAccents:
      strips_accents_ = true;
      stages.push_back(std::make_unique<StripAccentsStage>());
      return true;
    case NormalizerKind::kReplace: {
      const std::string_view pattern = blob.text(record.text);
      for (std::size_t at = 0; at < pattern.size();) replaced_.push_back(next_code_point(pattern, at));
      stages.push_back(std::make_unique<ReplaceStage>(pattern, blob.text(record.other)));
      return true;
    }
    default: return false;
  }
}

bool UnigramChain::stages_keep(std::uint32_t c) const {
  const CharInfo& info = UnicodeTables::get().info(c);
  if (strips_accents_ && (info.flags & kAnyMark)) return false;
  if (lowercases_ && (info.lower_distance || c == 0x130)) return false;
  return std::find(replaced_.begin(), replaced_.end(), c) == replaced_.end() &&
         std::all_of(forms_.begin(), forms_.end(), [c](UnicodeForm form) { return is_inert(form, c); });
}

// Whether words between spaces are normalised alike wherever they are: a space begins no key, and the two
// characters that are one cluster become spaces together or not at all.
bool UnigramChain::is_separable() const {
  if (charsmap && charsmap->has_keys(' ')) return false;
  return class_of('\r') == class_of('\n') && class_of(' ') == BlockClass::kSpace;
}

bool UnigramChain::take_added_tokens(const BlobView& blob) {
  for (const AddedTokenRecord& record : blob.records<AddedTokenRecord>(Section::kAddedTokens)) {
    if (!(record.flags & kNormalized)) continue;
    const auto content = normalize_added(blob.text(record.content));
    if (!content) return false;
    added.add(*content);
  }
  return true;
}

std::optional<std::string> UnigramChain::normalize_added(std::string_view content) const {
  AlignedText chars, spare;
  for (std::size_t at = 0; at < content.size();) chars.push_back({next_code_point(content, at), 0, 0});
  for (const auto& stage : stages) stage->apply(chars, spare, 0);
  if (charsmap) PrecompiledStage(*charsmap).apply(chars, spare, 0);
  std::string text;
  for (const AlignedChar& c : chars) {
    if (c.code_point == mark || is_whitespace(c.code_point)) return std::nullopt;
    append_utf8(text, c.code_point);
  }
  return text.empty() ? std::nullopt : std::optional(std::move(text));
}

BlockClass UnigramChain::class_of(std::uint32_t c) const {
  const GraphemeClass grapheme = grapheme_of(c);
  const bool is_apart = grapheme == GraphemeClass::kOther || grapheme == GraphemeClass::kControl ||
                        grapheme == GraphemeClass::kCr || grapheme == GraphemeClass::kLf;
  if (!is_apart || !stages_keep(c)) return BlockClass::kWord;
  const auto text = replacement(charsmap, c);
  const auto becomes = text ? only_char(*text) : c;
  const bool is_space = becomes && (*becomes == ' ' || (cuts_at_whitespace && is_whitespace(*becomes)));
  return is_space ? BlockClass::kSpace : BlockClass::kWord;
}

// The map takes the shortest key that a cluster begins with.
bool UnigramChain::is_fixed_separator(std::uint32_t c) const { return c == ' ' || replacement(charsmap, c); }

bool UnigramChain::keeps(std::uint32_t c) const {
  switch (grapheme_of(c)) {
    case GraphemeClass::kOther:
    case GraphemeClass::kControl:
    case GraphemeClass::kPictographic:
    case GraphemeClass::kConsonant:
    case GraphemeClass::kSyllable: return c != mark && !is_whitespace(c) && stages_keep(c) && !replacement(charsmap, c);
    default: return false;
  }
}

KeptChars::KeptChars(const UnigramChain& chain) : bits_(kCodePoints / 64) {
  for (std::uint32_t c = 0; c < kCodePoints; ++c)
    if (c >> 11 != 0x1B && chain.keeps(c)) bits_[c / 64] |= std::uint64_t{1} << c % 64;
  for (std::uint32_t c = 0; c < ascii_.size(); ++c) ascii_[c] = bits_[c / 64] >> c % 64 & 1;
}

bool KeptChars::all(std::string_view text) const noexcept {
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) {
      if (!ascii_[byte]) return false;
      ++at;
      continue;
    }
    const std::uint32_t c = next_code_point(text, at);
    if (c >= kCodePoints || !(bits_[c / 64] >> c % 64 & 1)) return false;
  }
  return true;
}

}  // namespace penstock
