#include "penstock/bpe.h"

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "penstock/bpe_fast_path.h"
#include "penstock/byte_level.h"
#include "penstock/unicode.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

// Sections of a blob, put together as penstock_kernels/blob.py does.
class BlobMaker {
 public:
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

std::string spelt(std::string_view bytes) {
  constexpr auto kCharacters = byte_characters();
  std::string text;
  for (const char c : bytes) append_utf8(text, kCharacters[static_cast<unsigned char>(c)]);
  return text;
}

// A byte-level vocabulary: all bytes, and what merging frequent neighbours of a text makes.
struct ByteLevelModel {
  std::vector<std::string> tokens;  // in bytes
  std::vector<MergeRecord> merges;

  ByteLevelModel(const std::string& text, int count, std::mt19937& random) {
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    std::map<std::string, std::int32_t> ids;
    for (std::size_t id = 0; id < tokens.size(); ++id) ids[tokens[id]] = static_cast<std::int32_t>(id);
    while (static_cast<int>(merges.size()) < count) {
      // Two known neighbours somewhere in the text, of any size.
      const std::size_t at = random() % (text.size() - 12);
      const std::string left = text.substr(at, 1 + random() % 4), right = text.substr(at + left.size(), 1 + random() % 4);
      if (!ids.contains(left) || !ids.contains(right)) continue;
      const auto [merged, is_new] = ids.try_emplace(left + right, static_cast<std::int32_t>(tokens.size()));
      if (is_new) tokens.push_back(left + right);
      merges.push_back({ids[left], ids[right], static_cast<std::int32_t>(merges.size()), merged->second});
    }
  }

  void write(BlobMaker& maker, std::int32_t model_flags, std::int32_t stage_flags, int form) const {
    std::vector<std::string> texts;
    for (const std::string& token : tokens) texts.push_back(spelt(token));
    std::vector<std::pair<std::string_view, std::int32_t>> keys;
    std::vector<std::uint32_t> starts = {0};
    std::vector<char> bytes;
    for (std::size_t id = 0; id < texts.size(); ++id) {
      keys.emplace_back(texts[id], static_cast<std::int32_t>(id));
      bytes.insert(bytes.end(), texts[id].begin(), texts[id].end());
      starts.push_back(static_cast<std::uint32_t>(bytes.size()));
    }
    ConfigRecord config{};
    config.model_kind = static_cast<std::int32_t>(ModelKind::kBpe);
    config.model_flags = model_flags;
    config.unknown_id = -1;
    maker.add(Section::kConfig, std::vector<ConfigRecord>{config});
    maker.add(Section::kPreTokenizers, std::vector<StageRecord>{{static_cast<std::int32_t>(PreTokenizerKind::kByteLevel),
                                                                 stage_flags, 0, 0, {0, 0}, {0, 0}}});
    if (form >= 0)
      maker.add(Section::kNormalizers, std::vector<StageRecord>{{static_cast<std::int32_t>(NormalizerKind::kUnicodeForm),
                                                                 0, form, 0, {0, 0}, {0, 0}}});
    maker.add(Section::kVocabularyTrie, DoubleArray::build(keys));
    maker.add(Section::kMergeTable, build_merge_table(merges));
    maker.add(Section::kTokenStarts, starts);
    maker.add(Section::kTokenTexts, bytes);
  }
};

// Text with all that GPT-2's regex looks at, of any length about the edges of blocks and keys.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {
      "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "''", "'S", " ", "  ", "   ", "\n", "\n\n", "\t", " \t", "\r\n",
      "\x1c", "a", "the", " the", " and", "word", "THING", "1", "23", "4567", ".", "...", "!?", "-", "_", "$", "\u00e9",
      "\u00a0", "\u3000", "\u2009", "\u0085", "\u4e2d\u6587", "\u0437\u0434", "\u00bd", "\u0663", "\U0001F600", "\U0001D7D8",
      "\u0301", "\u200b", "internationalisation", "abcdefghijklmno", "abcdefghijklmnop", "\u0e01\u0e02\u0e03\u0e04"};
  std::string text;
  const std::size_t parts = 1 + random() % (random() % 8 ? 40 : 800);
  const std::size_t kinds = random() % 3 ? kParts.size() : 1 + random() % kParts.size();
  for (std::size_t i = 0; i < parts; ++i) text += kParts[random() % kinds];
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
  GeneralWay(const BlobView& blob, std::int32_t stage_flags)
      : stage_((stage_flags & 1) != 0, (stage_flags & 2) != 0), model_(blob), scratch_(model_.make_scratch()) {}

  Tokens tokenize(std::string_view text, std::int32_t begin) {
    Words words, spare;
    std::int32_t index = begin;
    for (std::size_t at = 0; at < text.size(); ++index) words.chars.push_back({next_code_point(text, at), index, index + 1});
    words.words.push_back({0, static_cast<std::uint32_t>(words.chars.size()), begin});
    stage_.apply(words, spare);
    TokenBuffer out;
    out.reset(true);
    for (const Words::Word& word : words.words)
      model_.cut(words.chars.data() + word.begin, words.chars.data() + word.end, out.take_word(), *scratch_, out);
    return Tokens(out);
  }

 private:
  ByteLevelStage stage_;
  Bpe model_;
  std::unique_ptr<Scratch> scratch_;
};

std::vector<Instructions> instructions_here() {
  std::vector<Instructions> all = {Instructions::kPortable};
  if (best_instructions() != Instructions::kPortable) all.push_back(Instructions::kAvx2);
  if (best_instructions() == Instructions::kAvx512) all.push_back(Instructions::kAvx512);
  return all;
}

void check_same(const FastPath& path, Scratch& scratch, GeneralWay& general, const std::string& text, std::int32_t begin,
                std::mt19937& random) {
  const Tokens wanted = general.tokenize(text, begin);
  TokenBuffer out;
  for (const bool with_spans : {true, false, true}) {
    // Exactly as large as the text, so that a sanitizer sees reads behind it.
    const std::vector<char> exact(text.begin(), text.end());
    out.reset(with_spans);
    CHECK(path.encode({{exact.data(), exact.size()}, begin}, ~std::size_t{0}, scratch, out) == Outcome::kDone);
    const Tokens got(out);
    CHECK(got.ids == wanted.ids);
    CHECK(!with_spans || got == wanted);
    CHECK(!with_spans || wanted.words.empty() || out.words_used() == wanted.words.back() + 1);
  }
  const std::size_t limit = 1 + random() % (wanted.ids.size() + 2);
  out.reset(true);
  const Outcome outcome = path.encode({text, begin}, limit, scratch, out);
  CHECK(outcome == Outcome::kDone ? out.size() == wanted.ids.size() : out.size() >= limit);
  CHECK(std::equal(out.ids(), out.ids() + out.size(), wanted.ids.begin()));
  CHECK(std::equal(out.ends(), out.ends() + out.size(), wanted.ends.begin()));
}

void fast_path_gives_what_the_general_way_gives() {
  std::mt19937 random(20261124);
  std::string training;
  for (int i = 0; i < 60; ++i) training += random_text(random);
  const ByteLevelModel model(training, 400, random);
  for (const std::int32_t stage_flags : {2, 3}) {
    for (const std::int32_t model_flags : {0, static_cast<std::int32_t>(kIgnoreMerges)}) {
      BlobMaker maker;
      model.write(maker, model_flags, stage_flags, -1);
      const BlobView blob = maker.view();
      GeneralWay general(blob, stage_flags);
      for (const Instructions instructions : instructions_here()) {
        const auto path = make_bpe_fast_path(blob, instructions);
        CHECK(path);
        // The smaller cache drops words all the time.
        for (const std::size_t cache_bytes : {std::size_t{1} << 20, std::size_t{4096}}) {
          const auto scratch = path->make_scratch(cache_bytes);
          for (int i = 0; i < 150; ++i)
            check_same(*path, *scratch, general, random_text(random), static_cast<std::int32_t>(random() % 3 * 1000), random);
          CHECK(scratch->bytes() < cache_bytes + (1 << 20));
        }
      }
    }
  }
}

void long_words_take_no_longer_than_n_log_n() {
  std::mt19937 random(7);
  const ByteLevelModel model(std::string(4096, 'a') + " ''''''''''''''''''''''''''", 12, random);
  BlobMaker maker;
  model.write(maker, 0, 3, -1);
  const BlobView blob = maker.view();
  GeneralWay general(blob, 3);
  const auto path = make_bpe_fast_path(blob);
  const auto scratch = path->make_scratch(1 << 20);
  for (const char* part : {"a", "ab", " ", "\n", "'", "\u3000", "\u4e2d", "'s"}) {
    std::string text;
    while (text.size() < 200000) text += part;
    check_same(*path, *scratch, general, text, 0, random);
  }
  CHECK(scratch->bytes() < (2 << 20) + (1 << 19));
}

void pieces_that_a_normaliser_may_change_are_declined() {
  std::mt19937 random(1);
  const ByteLevelModel model("some text that is long enough for a few merges", 10, random);
  BlobMaker maker;
  model.write(maker, 0, 2, 0);
  const auto path = make_bpe_fast_path(maker.view());
  CHECK(path);
  const auto scratch = path->make_scratch(1 << 20);
  TokenBuffer out;
  const auto outcome = [&](std::string_view text) {
    out.reset(false);
    return path->encode({text, 0}, ~std::size_t{0}, *scratch, out);
  };
  CHECK(outcome("some text, \u4e2d\u6587 and \u0437\u0434\u0435\u0441\u044c") == Outcome::kDone);
  // A mark that composes with nothing changes nothing; behind a base that is decomposed, its alignment might.
  CHECK(outcome("\u0254\u0301 x\u0316\u0301") == Outcome::kDone);
  CHECK(outcome("some \u00e9\u0316") == Outcome::kDeclined);
  CHECK(outcome("\u1100\u1161") == Outcome::kDeclined);
  CHECK(outcome("x\u0301\u0316") == Outcome::kDeclined);
  CHECK(outcome("some long te\u0301xt") == Outcome::kDeclined);
  CHECK(out.size() == 0 && out.words_used() == 0);
}

void other_chains_have_no_fast_path() {
  std::mt19937 random(1);
  ByteLevelModel model("some text that is long enough for a few merges", 10, random);
  for (const std::int32_t stage_flags : {0, 1}) {  // without the regex
    BlobMaker maker;
    model.write(maker, 0, stage_flags, -1);
    CHECK(!make_bpe_fast_path(maker.view()));
  }
  model.tokens['x'] = "not the byte any more";
  BlobMaker maker;
  model.write(maker, 0, 2, -1);
  CHECK(!make_bpe_fast_path(maker.view()));
}

template <typename Call>
bool is_refused(const Call& call) {
  try {
    call();
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

void merge_tables_keep_the_last_of_equal_pairs() {
  std::vector<MergeRecord> merges;
  std::mt19937 random(3);
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> last;
  for (std::int32_t rank = 0; rank < 5000; ++rank) {
    const auto left = static_cast<std::int32_t>(random() % 80), right = static_cast<std::int32_t>(random() % 80);
    merges.push_back({left, right, rank, 1000 + rank});
    last[{left, right}] = rank;
  }
  const std::vector<MergeRecord> section = build_merge_table(merges);
  const MergeTable table(section);
  for (std::int32_t left = 0; left < 90; ++left)
    for (std::int32_t right = 0; right < 90; ++right) {
      const auto wanted = last.find({left, right});
      const MergeRecord* found = table.find(left, right);
      CHECK((found != nullptr) == (wanted != last.end()));
      CHECK(!found || (found->rank == wanted->second && found->merged == 1000 + wanted->second));
    }
  CHECK(!MergeTable(std::span<const MergeRecord>(build_merge_table({}))).find(0, 0));
}

void broken_merge_tables_are_refused() {
  CHECK(is_refused([] { build_merge_table({{0, -1, 0, 0}}); }));
  const std::vector<MergeRecord> good = build_merge_table({{0, 1, 0, 2}, {1, 0, 1, 3}});
  const auto refused = [&](std::size_t record, std::int32_t MergeRecord::*field, std::int32_t value) {
    std::vector<MergeRecord> broken = good;
    broken[record].*field = value;
    return is_refused([&] { MergeTable{std::span<const MergeRecord>(broken)}; });
  };
  CHECK(!is_refused([&] { MergeTable{std::span<const MergeRecord>(good)}; }));
  CHECK(is_refused([] { MergeTable{std::span<const MergeRecord>()}; }));
  CHECK(refused(0, &MergeRecord::left, 5));
  CHECK(refused(0, &MergeRecord::left, -1));
  CHECK(refused(0, &MergeRecord::right, 1));
  CHECK(refused(0, &MergeRecord::right, 40));
  CHECK(refused(3, &MergeRecord::left, 7));  // a slot that points behind the merges
}

}  // namespace

int main() {
  merge_tables_keep_the_last_of_equal_pairs();
  broken_merge_tables_are_refused();
  fast_path_gives_what_the_general_way_gives();
  long_words_take_no_longer_than_n_log_n();
  pieces_that_a_normaliser_may_change_are_declined();
  other_chains_have_no_fast_path();
}
