#include "unigram_run.h"

#include <algorithm>
#include <utility>

#include "penstock/graphemes.h"
#include "penstock/unicode.h"
#include "penstock/utf8.h"

namespace penstock {
namespace {

using Prepend = MetaspaceStage::Prepend;

// Buffers of a longer word than this are given back after its piece.
constexpr std::size_t kCharsKept = std::size_t{1} << 16;

}  // namespace

void UnigramRun::add_separators(std::string_view text, std::int32_t end) {
  if (chain_.cuts_at_whitespace) return;
  std::int32_t begin = end - static_cast<std::int32_t>(count_code_points(text));
  for (std::size_t at = 0; at < text.size(); ++begin) {
    const std::uint32_t c = next_code_point(text, at);
    scratch_.run.push_back({' ', begin, begin + 1});
    // These two are one cluster, and become one space that stands for the first.
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at, ++begin;
  }
}

bool UnigramRun::is_cacheable(const RawWord& word) const noexcept {
  return chain_.cuts_at_whitespace ? chain_.prepend != Prepend::kFirst || word.begin > 0 : word.follows_separator;
}

// Tokens of the cache count code points from the word's begin, or from a separator before it.
void UnigramRun::add(const RawWord& word, const ShortKey* key) {
  if (is_declined_) return;
  const bool may_cache = is_cacheable(word);
  const bool is_short = word.text.size() <= ShortEntry::kBytesMax;
  const std::uint64_t hash = is_short || !key ? WordCache::hash(word.text) : key->low;
  if (may_cache && emit_cached(word, hash)) return;
  is_joined_ = false;
  if (!cut_kept(word)) {
    if (!normalize(word)) {
      is_declined_ = true;
      return;
    }
    if (!is_one_word()) {
      if (chain_.cuts_at_whitespace) {
        feed_whitespace_cut(word);
      } else {
        feed_spaced(word);
      }
      return;
    }
    cut_one_word(word);
  }
  if (is_declined_) return;
  if (may_cache && !is_joined_) insert(word, hash);
  emit_single_separators();
  emit_tokens(word);
}

bool UnigramRun::emit_cached(const RawWord& word, std::uint64_t hash) {
  auto& tokens = scratch_.tokens;
  tokens.clear();
  if (word.text.size() <= ShortEntry::kBytesMax) {
    const ShortKey key = WordCache::short_key(word.text);
    if (const ShortEntry* entry = WordCache::find(scratch_.cache.bucket(WordCache::hash(key)), key)) {
      for (std::size_t i = 0; i < entry->count; ++i)
        tokens.push_back({entry->ids[i], i ? entry->ends[i - 1] : 0, entry->ends[i]});
    }
  }
  if (tokens.empty() && word.text.size() <= LongEntry::kBytesMax) {
    if (const LongEntry* entry = scratch_.cache.find_long(word.text, hash))
      for (std::size_t i = 0; i < entry->count; ++i)
        tokens.push_back({entry->ids[i], entry->begins[i], entry->ends[i]});
  }
  if (tokens.empty()) return false;
  emit_single_separators();
  emit_tokens(word);
  return true;
}

void UnigramRun::insert(const RawWord& word, std::uint64_t hash) {
  const auto& tokens = scratch_.tokens;
  if (word.text.size() > LongEntry::kBytesMax || tokens.size() > LongEntry::kTokensMax || tokens.empty()) return;
  bool is_regular = tokens.size() <= ShortEntry::kTokensMax && word.text.size() <= ShortEntry::kBytesMax;
  std::int32_t end = 0;
  for (const auto& token : tokens) {
    is_regular &= token.begin == end;
    end = token.end;
  }
  if (is_regular) {
    ShortEntry entry{WordCache::short_key(word.text), {}, {}, static_cast<std::uint8_t>(tokens.size())};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      entry.ids[i] = tokens[i].id;
      entry.ends[i] = static_cast<std::uint8_t>(tokens[i].end);
    }
    scratch_.cache.insert(scratch_.cache.bucket(WordCache::hash(entry.key)), entry);
    return;
  }
  LongEntry& entry = scratch_.cache.insert_long(word.text, hash);
  entry.count = static_cast<std::uint8_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    entry.ids[i] = tokens[i].id;
    entry.begins[i] = static_cast<std::uint8_t>(tokens[i].begin);
    entry.ends[i] = static_cast<std::uint8_t>(tokens[i].end);
  }
}

// Spaces before a word that begins with the last of them.
void UnigramRun::emit_single_separators() {
  AlignedText& run = scratch_.run;
  if (run.size() > 1 && !chain_.collapses)
    for (std::size_t i = 0; i + 1 < run.size(); ++i) {
      feed({chain_.mark, run[i].begin, run[i].end});
      flush_word();
    }
}

// The tokens of the one word that was looked up or cut.
void UnigramRun::emit_tokens(const RawWord& word) {
  AlignedText& run = scratch_.run;
  const std::int32_t base = word.begin - (chain_.cuts_at_whitespace ? 0 : 1);
  has_fed_ = true;
  out_.grow(scratch_.tokens.size());
  for (const auto& token : scratch_.tokens) {
    std::int32_t begin = base + token.begin, end = base + token.end;
    if (!chain_.cuts_at_whitespace && token.begin == 0) {
      // What stands for the separator, or before a word that has none.
      const AlignedChar mark = run.empty() ? AlignedChar{0, word.begin, word.begin + 1} : run.back();
      begin = mark.begin;
      if (token.end == 1) end = mark.end;
    }
    out_.push(token.id, begin, end, next_word_);
  }
  ++next_word_;
  run.clear();
}

// Tokens of byte fallback share their piece's bytes: all but its first are told here from the one before, so that
// places are only counted forward. True if it was one; else `last` is the cut.
bool UnigramRun::repeat_token(const UnigramCut& cut, const UnigramCut*& last) {
  const UnigramCut* const before = std::exchange(last, &cut);
  if (!before || before->begin != cut.begin || before->end != cut.end) return false;
  const UnigramPathScratch::Token token = scratch_.tokens.back();
  scratch_.tokens.push_back({cut.id, token.begin, token.end});
  return true;
}

// Cuts a word that normalisation does not change.
bool UnigramRun::cut_kept(const RawWord& word) {
  if (!kept_.all(word.text)) return false;
  if (chain_.added.lie_in(word.text)) {
    is_declined_ = true;
    return true;
  }
  const bool has_mark = word.follows_separator && !chain_.cuts_at_whitespace
                            ? true
                            : chain_.prepend == Prepend::kAlways || (chain_.prepend == Prepend::kFirst && !word.begin);
  std::string& text = scratch_.text;
  text.assign(has_mark ? chain_.mark_text : "");
  text += word.text;
  model_.cut_text(text, scratch_.model);
  const auto prefix = static_cast<std::uint32_t>(text.size() - word.text.size());
  std::int32_t at = chain_.cuts_at_whitespace ? 0 : 1;  // of the word's own characters
  std::uint32_t counted = prefix;
  scratch_.tokens.clear();
  const UnigramCut* last = nullptr;
  for (const UnigramCut& cut : scratch_.model.cuts) {
    if (repeat_token(cut, last)) continue;
    UnigramPathScratch::Token token{cut.id, 0, 0};
    const auto index_of = [&](std::uint32_t byte) {
      at += static_cast<std::int32_t>(count_code_points(std::string_view(text).substr(counted, byte - counted)));
      counted = byte;
      return at;
    };
    token.begin = cut.begin < prefix ? 0 : index_of(cut.begin);
    token.end = cut.end <= prefix ? 1 : index_of(cut.end);
    scratch_.tokens.push_back(token);
  }
  return true;
}

std::uint32_t UnigramRun::separator_before(const RawWord& word) const noexcept {
  if (!word.follows_separator) return ' ';
  const std::size_t begin = static_cast<std::size_t>(word.text.data() - piece_.data());
  std::size_t at = previous_start(piece_, begin);
  return next_code_point(piece_, at);
}

bool UnigramRun::lies_between_cr_and_lf(const RawWord& word) const noexcept {
  const auto end = static_cast<std::size_t>(word.text.data() - piece_.data()) + word.text.size();
  return separator_before(word) == '\r' && end < piece_.size() && piece_[end] == '\n';
}

// Whether the word in scratch.chars, normalised but for the map, is clusters that no separator changes.
bool UnigramRun::has_own_clusters(const RawWord& word) {
  const AlignedText& chars = scratch_.chars;
  // Of a word that is gone, what was around it may be one cluster now.
  if (chars.size() < 2) return !lies_between_cr_and_lf(word);
  GraphemeBreaker breaker;
  breaker.begins(' ');
  is_joined_ = !breaker.begins(chars[1].code_point);
  for (std::size_t i = 2; i < chars.size(); ++i) breaker.begins(chars[i].code_point);
  if (!breaker.begins(' ')) return false;
  return !is_joined_ || (word.follows_separator && chain_.is_fixed_separator(chars[0].code_point));
}

// What a word becomes, in scratch.chars, counted from the separator before it; false if that depends on more
// than these.
bool UnigramRun::normalize(const RawWord& word) {
  AlignedText& chars = scratch_.chars;
  chars.clear();
  chars.push_back({separator_before(word), 0, 1});
  for (std::size_t at = 0; at < word.text.size();) {
    const auto index = static_cast<std::int32_t>(chars.size());
    chars.push_back({next_code_point(word.text, at), index, index + 1});
  }
  for (const auto& stage : chain_.stages) stage->apply(chars, scratch_.spare, 0);
  if (chain_.charsmap) {
    if (!has_own_clusters(word)) return false;
    PrecompiledStage(*chain_.charsmap).apply(chars, scratch_.spare, 0);
  }
  chars[0].code_point = ' ';
  // At the beginning, deleted characters shift all alignments of the piece.
  if (!word.follows_separator && (chars.size() < 2 || chars[1].begin != 1)) return false;
  if (!chain_.added.empty()) {
    scratch_.text.clear();
    for (const AlignedChar& c : chars) append_utf8(scratch_.text, c.code_point);
    if (chain_.added.lie_in(scratch_.text)) return false;
  }
  const auto is_odd_space = [](const AlignedChar& c) {
    return c.code_point != ' ' && (UnicodeTables::get().info(c.code_point).flags & kWhitespace);
  };
  return !chain_.strips_normalized || std::none_of(chars.begin(), chars.end(), is_odd_space);
}

// Whether it became exactly one word, whose tokens can be counted from the raw word's begin.
bool UnigramRun::is_one_word() const noexcept {
  const AlignedText& chars = scratch_.chars;
  const auto ends_words = [this](const AlignedChar& c) {
    return c.code_point == ' ' || c.code_point == chain_.mark ||
           (chain_.cuts_at_whitespace && (UnicodeTables::get().info(c.code_point).flags & kWhitespace));
  };
  return chars.size() > 1 && chars[1].begin == 1 && std::none_of(chars.begin() + 1, chars.end(), ends_words);
}

void UnigramRun::cut_one_word(const RawWord& word) {
  AlignedText& chars = scratch_.chars;
  const bool follows = word.follows_separator && !chain_.cuts_at_whitespace;
  const bool has_mark =
      follows || chain_.prepend == Prepend::kAlways || (chain_.prepend == Prepend::kFirst && !word.begin);
  chars[0] = {chain_.mark, 0, 1};
  if (chain_.cuts_at_whitespace) {
    for (AlignedChar& c : chars) --c.begin, --c.end;
    chars[0] = {chain_.mark, chars[1].begin, chars[1].end};
  }
  take_tokens(chars.data() + !has_mark, chars.size() - !has_mark);
}

void UnigramRun::take_tokens(const AlignedChar* chars, std::size_t size) {
  std::string& text = scratch_.text;
  text.clear();
  for (std::size_t i = 0; i < size; ++i) append_utf8(text, chars[i].code_point);
  model_.cut_text(text, scratch_.model);
  scratch_.tokens.clear();
  std::size_t at = 0;
  std::uint32_t byte = 0;
  const auto char_at = [&](std::uint32_t wanted) {
    for (; byte < wanted; ++at) {
      std::size_t next = byte;
      next_code_point(text, next);
      byte = static_cast<std::uint32_t>(next);
    }
    return at;
  };
  const UnigramCut* last = nullptr;
  for (const UnigramCut& cut : scratch_.model.cuts) {
    if (repeat_token(cut, last)) continue;
    const std::int32_t begin = chars[char_at(cut.begin)].begin;
    scratch_.tokens.push_back({cut.id, begin, chars[char_at(cut.end) - 1].end});
  }
}

void UnigramRun::feed_spaced(const RawWord& word) {
  for (std::size_t i = 1; i < scratch_.chars.size(); ++i) {
    AlignedChar c = scratch_.chars[i];
    c.begin += word.begin - 1;
    c.end += word.begin - 1;
    if (c.code_point == ' ') {
      scratch_.run.push_back(c);
      continue;
    }
    flush_run();
    feed(c);
  }
  flush_word();
}

void UnigramRun::feed_whitespace_cut(const RawWord& word) {
  AlignedText& part = scratch_.word;
  const auto flush = [&] {
    flush_word();
    has_fed_ = false;
  };
  has_fed_ = false;
  part.clear();
  for (std::size_t i = 1; i < scratch_.chars.size(); ++i) {
    AlignedChar c = scratch_.chars[i];
    c.begin += word.begin - 1;
    c.end += word.begin - 1;
    if (UnicodeTables::get().info(c.code_point).flags & kWhitespace) {
      flush();
    } else {
      feed(c);
    }
  }
  flush();
}

void UnigramRun::flush_run() {
  AlignedText& run = scratch_.run;
  if (run.empty()) return;
  const std::size_t first = chain_.collapses ? run.size() - 1 : 0;
  for (std::size_t i = first; i < run.size(); ++i) feed({chain_.mark, run[i].begin, run[i].end});
  run.clear();
}

// Takes a character of the normalised text, with spaces as marks already.
void UnigramRun::feed(AlignedChar c) {
  AlignedText& word = scratch_.word;
  if (!has_fed_) {
    has_fed_ = true;
    word.clear();
    const bool prepends = chain_.prepend == Prepend::kAlways || (chain_.prepend == Prepend::kFirst && !c.begin);
    if (prepends && c.code_point != chain_.mark) word.push_back({chain_.mark, c.begin, c.end});
  }
  if (c.code_point == chain_.mark) flush_word();
  word.push_back(c);
}

void UnigramRun::flush_word() {
  AlignedText& word = scratch_.word;
  if (word.empty()) return;
  model_.cut(word.data(), word.data() + word.size(), next_word_++, scratch_.model, out_);
  word.clear();
}

void UnigramRun::finish() {
  if (is_declined_) return;
  if (!chain_.strips_normalized) flush_run();
  flush_word();
}

void UnigramPathScratch::give_back_if_large() {
  const std::size_t held = chars.capacity() + spare.capacity() + word.capacity() + run.capacity();
  if (held > kCharsKept || text.capacity() > kCharsKept || tokens.capacity() > kCharsKept) {
    chars = AlignedText();
    spare = AlignedText();
    word = AlignedText();
    run = AlignedText();
    text = std::string();
    tokens = std::vector<Token>();
  }
  model.give_back_if_large();
}

}  // namespace penstock
