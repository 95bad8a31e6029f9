#include "penstock/bert_fast_path.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "penstock/ascii_blocks.h"
#include "penstock/double_array.h"
#include "penstock/tokenizer.h"

using namespace penstock;

namespace {

constexpr std::int32_t kUnknown = 1;
constexpr std::int32_t kAllFlags = 15;
constexpr std::size_t kCacheBytes = std::size_t{1} << 20;

// A compiled tokenizer of BERT's stages, put together as penstock_kernels/blob.py does.
class BertBlob {
 public:
  explicit BertBlob(std::int32_t flags, std::int64_t word_chars_max = 100, bool has_normalizer = true) {
    const std::vector<std::string> tokens = {
        "[PAD]", "[UNK]", "the", "##s", "un", "##aff", "##able", "a", "##a", "##b", "b", "e", "##e", "i", "##i", "##n", "n",
        "!", ",", ".", "#", "##", "###", "##b#", "'", "-", "word", "##word", "\u4e2d", "##\u4e2d", "\u6587", "\u00e9", "##\u00e9",
        "\u0437\u0434", "##\u0440\u0430", "\u0301", "##\u0301", "\u1112", "##\u1161", "##\u11ab", "\ud55c", "`", ";", "1", "##2",
        "\u0e01", "##\u0e02", "internationalis", "##ation", "\u00df", "A", "##A", "THE", "\u0307", "##\u0307", "\u3000", "\u2014"};
    std::vector<std::pair<std::string_view, std::int32_t>> keys;
    std::vector<std::uint32_t> starts = {0};
    std::vector<char> bytes;
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      keys.emplace_back(tokens[id], static_cast<std::int32_t>(id));
      bytes.insert(bytes.end(), tokens[id].begin(), tokens[id].end());
      starts.push_back(static_cast<std::uint32_t>(bytes.size()));
    }
    ConfigRecord config{};
    config.model_kind = static_cast<std::int32_t>(ModelKind::kWordPiece);
    config.unknown_id = kUnknown;
    config.word_chars_max = word_chars_max;
    config.continuing_prefix = {0, 2};
    config.ids_end = static_cast<std::int32_t>(tokens.size());
    add(Section::kConfig, std::vector<ConfigRecord>{config});
    add(Section::kStrings, std::vector<char>{'#', '#'});
    if (has_normalizer) add_stage(Section::kNormalizers, static_cast<std::int32_t>(NormalizerKind::kBert), flags);
    add_stage(Section::kPreTokenizers, static_cast<std::int32_t>(PreTokenizerKind::kBert), 0);
    add(Section::kTokenStarts, starts);
    add(Section::kTokenTexts, bytes);
    add(Section::kVocabularyTrie, DoubleArray::build(keys));
  }

  void add_stage(Section section, std::int32_t kind, std::int32_t flags) {
    add(section, std::vector<StageRecord>{{kind, flags, 0, 0, {0, 0}, {0, 0}}});
  }

  template <typename T>
  void add(Section section, const std::vector<T>& records) {
    sections_[static_cast<std::uint32_t>(section)] =
        std::string(reinterpret_cast<const char*>(records.data()), records.size() * sizeof(T));
  }

  BlobView view() {
    std::string table, body;
    const std::size_t start = 32 + 24 * sections_.size();
    for (const auto& [number, bytes] : sections_) {
      body.resize(body.size() + (kSectionAlignment - (start + body.size()) % kSectionAlignment) % kSectionAlignment);
      const std::uint64_t place[] = {number, start + body.size(), bytes.size()};
      table.append(reinterpret_cast<const char*>(place), sizeof place);
      body += bytes;
    }
    std::string all = "PSTKTEXT";
    const std::uint32_t numbers[] = {kBlobVersion, 0, static_cast<std::uint32_t>(start + body.size()), 0,
                                     static_cast<std::uint32_t>(sections_.size()), 0};
    all.append(reinterpret_cast<const char*>(numbers), sizeof numbers);
    all += table + body;
    room_.resize(all.size() / 8 + 1);
    std::memcpy(room_.data(), all.data(), all.size());
    return BlobView({reinterpret_cast<const char*>(room_.data()), all.size()});
  }

 private:
  std::map<std::uint32_t, std::string> sections_;
  std::vector<std::uint64_t> room_;
};

std::vector<const BlockKernels*> all_kernels() {
  std::vector<const BlockKernels*> all = {&kPortableBlocks};
  for (const BlockKernels* kernels : {avx2_block_kernels(), avx512_block_kernels()})
    if (kernels) all.push_back(kernels);
  return all;
}

// Text of what stages differ about, of any length about the edges of blocks, keys and chunks.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {
      " ", " ", "  ", "\n", "\t", "\r", "\x0b", "\x0c", std::string(1, '\0'), "\x01", "\x1c", "\x7f", "a", "b", "A", "Z", "the", "THE",
      "unaffable", "##b", "##", "#", "!", "'", "-", "_", "@", "`", "[", "{", "1", "12", "word", "wordwordwordword", "internationalisation",
      "abcdefghijklmno", "abcdefghijklmnop", std::string(46, 'a'), std::string(47, 'a'), std::string(48, 'b'), std::string(99, 'a'),
      std::string(100, 'a'), std::string(101, 'a'), std::string(600, 'e'), "\u00e9", "\u00c9", "e\u0301", "\u0301", "\u0308\u0323", "\u0344",
      "\u0f73", "\u0f81\u0f71", "\u1dfb", "\U0001e94a", "\u302e", "\U0001d165", "\u00df", "\u0130", "\u017f", "\u212a", "\u1fef", "\u037e",
      "\u0387", "\u00a0", "\u0085", "\u00ad", "\u200b", "\u200d", "\ufeff", "\ufffd", "\ue000", "\u2000", "\u2003", "\u2028", "\u3000", "\u1680",
      "\u4e2d", "\u6587", "\u4e2d\u6587\u4e2d", "\uf900", "\U00020000", "\U0002b820", "\U0002b920", "\u4dc0", "\ud55c", "\uac00\ud7a3",
      "\u0437\u0434\u0440\u0430\u0432", "\u0417\u0414", "\u0e01\u0e02", "\u0939\u093f", "\u0964", "\u2014", "\u3002", "\uff01", "\u2e43",
      "\U0001f600", "\U0001f468\u200d\U0001f469", "\u05d0\u05b0", "\u0640", "\u060c"};
  std::string text;
  const std::size_t parts = 1 + random() % (random() % 8 ? 40 : 1500);
  const std::size_t first = random() % kParts.size();
  const std::size_t kinds = random() % 3 ? kParts.size() : 1 + random() % 8;
  for (std::size_t i = 0; i < parts; ++i) text += kParts[(first + random() % kinds) % kParts.size()];
  return text;
}

struct Tokens {
  std::vector<std::int32_t> ids, begins, ends, words;
  bool operator==(const Tokens&) const = default;

  explicit Tokens(const TokenBuffer& buffer) : ids(buffer.ids(), buffer.ids() + buffer.size()) {
    if (!buffer.with_spans()) return;
    begins.assign(buffer.begins(), buffer.begins() + buffer.size());
    ends.assign(buffer.ends(), buffer.ends() + buffer.size());
    words.assign(buffer.words(), buffer.words() + buffer.size());
  }
};

class GeneralWay {
 public:
  explicit GeneralWay(const BlobView& blob) : tokenizer_(blob, false), context_(tokenizer_.make_context(0)) {}

  Tokens tokenize(std::string_view text) {
    TokenBuffer out;
    tokenizer_.tokenize(text, {TokenizeOptions::kNoLimit, false, true}, *context_, out);
    return Tokens(out);
  }

 private:
  Tokenizer tokenizer_;
  std::unique_ptr<Tokenizer::Context> context_;
};

class FastWay {
 public:
  FastWay(const BlobView& blob, const BlockKernels* kernels, std::size_t cache_bytes = kCacheBytes)
      : path_(make_bert_fast_path(blob, kernels)), scratch_(path_->make_scratch(cache_bytes)) {}

  Outcome encode(std::string_view text, std::size_t wanted, bool with_spans, TokenBuffer& out) {
    // A copy of just its size, so that sanitizers see what is read behind it.
    const std::unique_ptr<char[]> copy(new char[text.size()]);
    std::memcpy(copy.get(), text.data(), text.size());
    out.reset(with_spans);
    return path_->encode({{copy.get(), text.size()}, 0}, wanted, *scratch_, out);
  }

  // Twice, as the second time the cache has the words, and with spans only in one of them.
  void check(std::string_view text, const Tokens& wanted, bool spans_first) {
    TokenBuffer out;
    for (const bool with_spans : {spans_first, !spans_first}) {
      CHECK(encode(text, TokenizeOptions::kNoLimit, with_spans, out) == Outcome::kDone);
      if (with_spans) {
        CHECK(Tokens(out) == wanted);
      } else {
        CHECK(Tokens(out).ids == wanted.ids);
      }
    }
  }

  void check_limit(std::string_view text, const Tokens& wanted, std::size_t limit, bool with_spans) {
    TokenBuffer out;
    const Outcome outcome = encode(text, limit, with_spans, out);
    const Tokens got(out);
    CHECK(outcome == Outcome::kLimitReached ? got.ids.size() >= limit : got.ids.size() == wanted.ids.size());
    CHECK(std::equal(got.ids.begin(), got.ids.end(), wanted.ids.begin()));
    if (with_spans) CHECK(std::equal(got.begins.begin(), got.begins.end(), wanted.begins.begin()));
  }

 private:
  std::unique_ptr<FastPath> path_;
  std::unique_ptr<Scratch> scratch_;
};

void every_instruction_set_gives_what_the_general_way_gives() {
  std::mt19937 random(20);
  for (std::int32_t flags = 0; flags <= kAllFlags; ++flags) {
    BertBlob blob(flags);
    const BlobView view = blob.view();
    GeneralWay general(view);
    std::vector<FastWay> ways;
    for (const BlockKernels* kernels : all_kernels()) {
      ways.emplace_back(view, kernels);
      ways.emplace_back(view, kernels, 0);  // words push each other out
    }
    for (int i = 0; i < 300; ++i) {
      const std::string text = random_text(random);
      const Tokens wanted = general.tokenize(text);
      for (FastWay& way : ways) {
        way.check(text, wanted, i % 2);
        way.check_limit(text, wanted, 1 + random() % (wanted.ids.size() + 1), i % 2);
      }
    }
  }
}

void characters_are_classed_alike_wherever_they_stand_in_a_block() {
  BertBlob blob(kAllFlags);
  const BlobView view = blob.view();
  GeneralWay general(view);
  for (const BlockKernels* kernels : all_kernels()) {
    FastWay way(view, kernels);
    for (const char* odd : {"\u3002", "\u4e2d", "\u3000", "\U0002f800", "\u00a7", "\u00a0", "\u0301", "!", "\u0437"})
      for (std::size_t before = 0; before < 130; ++before)
        for (const char* fill : {"a", " ", "."}) {
          std::string text;
          for (std::size_t i = 0; i < before; ++i) text += fill;
          text += odd;
          text += "b";
          way.check(text, general.tokenize(text), true);
        }
  }
}

void words_over_the_limit_are_unknown_however_long() {
  for (const std::int64_t chars_max : {0, 1, 5, 100, 1000000}) {
    BertBlob blob(kAllFlags, chars_max);
    const BlobView view = blob.view();
    GeneralWay general(view);
    for (const BlockKernels* kernels : all_kernels()) {
      FastWay way(view, kernels);
      for (const std::size_t size : {1U, 5U, 6U, 15U, 16U, 47U, 48U, 100U, 101U, 255U, 256U, 257U, 4095U, 4096U, 4097U, 9000U})
        for (const std::string unit : {"a", "\u00e9", "\u200b", "\u0301", "\u1fef"}) {
          std::string text = "b ";
          for (std::size_t i = 0; i < size; ++i) text += unit;
          text += " b";
          way.check(text, general.tokenize(text), size % 2);
        }
    }
  }
}

void spans_count_from_where_the_piece_begins() {
  BertBlob blob(kAllFlags);
  const auto path = make_bert_fast_path(blob.view());
  const auto scratch = path->make_scratch(kCacheBytes);
  TokenBuffer out;
  out.reset(true);
  CHECK(out.take_word() == 0);
  CHECK(path->encode({"\u00e9 Unaffable", 7}, TokenizeOptions::kNoLimit, *scratch, out) == Outcome::kDone);
  const Tokens got(out);
  CHECK((got.begins == std::vector<std::int32_t>{7, 9, 11, 14}) && (got.ends == std::vector<std::int32_t>{8, 11, 14, 18}));
  CHECK((got.words == std::vector<std::int32_t>{1, 2, 2, 2}) && out.words_used() == 3);
}

void megabytes_of_anything_end_soon() {
  BertBlob blob(kAllFlags);
  const BlobView view = blob.view();
  GeneralWay general(view);
  FastWay way(view, nullptr);
  for (const std::string unit : {"a", "a ", "!", "#", "\u4e2d", "\u0301", "\u0323\u0301", "\u200b", "\ud55c", "a\u0301", "\u1fef", " "}) {
    std::string text;
    while (text.size() < (std::size_t{1} << 20)) text += unit;
    way.check(text, general.tokenize(text), true);
  }
}

void a_missing_normalizer_changes_nothing() {
  BertBlob none(0, 100, false), all_off(0);
  const Tokens wanted = GeneralWay(none.view()).tokenize("THE \u00c9\u4e2d!\x01");
  FastWay(none.view(), nullptr).check("THE \u00c9\u4e2d!\x01", wanted, true);
  FastWay(all_off.view(), nullptr).check("THE \u00c9\u4e2d!\x01", wanted, true);
}

void other_chains_are_declined() {
  const auto declines = [](auto change) {
    BertBlob blob(kAllFlags);
    change(blob);
    return make_bert_fast_path(blob.view()) == nullptr;
  };
  CHECK(!declines([](BertBlob&) {}));
  CHECK(declines([](BertBlob& blob) {
    blob.add_stage(Section::kPreTokenizers, static_cast<std::int32_t>(PreTokenizerKind::kWhitespace), 0);
  }));
  CHECK(declines([](BertBlob& blob) {
    blob.add_stage(Section::kNormalizers, static_cast<std::int32_t>(NormalizerKind::kLowercase), 0);
  }));
  CHECK(declines([](BertBlob& blob) { blob.add(Section::kPreTokenizers, std::vector<StageRecord>{}); }));
}

void memory_is_bounded_by_what_the_caches_may_hold() {
  BertBlob blob(kAllFlags);
  const auto path = make_bert_fast_path(blob.view());
  const auto scratch = path->make_scratch(kCacheBytes);
  const std::size_t before = scratch->bytes();
  TokenBuffer out;
  for (int i = 0; i < 200000; ++i) {
    out.reset(false);
    const std::string text = "word" + std::to_string(i) + "\u00e9";
    path->encode({text, 0}, TokenizeOptions::kNoLimit, *scratch, out);
  }
  CHECK(scratch->bytes() < before + 64 * 1024);
  const std::string endless(4 << 20, 'x');
  out.reset(true);
  path->encode({endless + "\u00e9", 0}, TokenizeOptions::kNoLimit, *scratch, out);
  CHECK(scratch->bytes() < before + (1 << 20));
}

}  // namespace

int main() {
  every_instruction_set_gives_what_the_general_way_gives();
  characters_are_classed_alike_wherever_they_stand_in_a_block();
  words_over_the_limit_are_unknown_however_long();
  spans_count_from_where_the_piece_begins();
  megabytes_of_anything_end_soon();
  a_missing_normalizer_changes_nothing();
  other_chains_are_declined();
  memory_is_bounded_by_what_the_caches_may_hold();
}
