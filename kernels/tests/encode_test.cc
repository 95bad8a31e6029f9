#include "penstock/encode.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "check.h"
#include "penstock/double_array.h"

using namespace penstock;

namespace {

using Ids = std::vector<std::int32_t>;

struct alignas(64) Line {
  char bytes[64];
};

template <typename T>
std::string bytes_of(const std::vector<T>& items) {
  return {reinterpret_cast<const char*>(items.data()), items.size() * sizeof(T)};
}

// A compiled WordPiece of the letters a to j (ids 10 to 19), without continuations: words of one letter. Its
// special tokens are 1 and 2.
class LetterBlob {
 public:
  explicit LetterBlob(std::int32_t config_flags = 0) {
    std::vector<std::pair<std::string_view, std::int32_t>> keys;
    static const std::string letters = "abcdefghij";
    for (std::size_t i = 0; i < letters.size(); ++i) keys.emplace_back(std::string_view(letters).substr(i, 1), 10 + i);
    ConfigRecord config{};
    config.model_kind = static_cast<std::int32_t>(ModelKind::kWordPiece);
    config.config_flags = config_flags;
    config.word_chars_max = 100;
    config.continuing_prefix = {0, 2};
    config.ids_end = 20;
    config.pad_id = 7;
    config.pad_type_id = 3;
    std::map<Section, std::string> sections;
    sections[Section::kConfig] = bytes_of(std::vector{config});
    sections[Section::kStrings] = "##";
    sections[Section::kPreTokenizers] =
        bytes_of(std::vector{StageRecord{static_cast<std::int32_t>(PreTokenizerKind::kWhitespaceSplit), 0, 0, 0, {}, {}}});
    sections[Section::kSingle] = bytes_of(std::vector<TemplateRecord>{{2, 0, 1, 0}, {0, 0, 0, 0}, {2, 0, 2, 0}});
    sections[Section::kPair] =
        bytes_of(std::vector<TemplateRecord>{{2, 0, 1, 0}, {0, 0, 0, 0}, {2, 0, 2, 0}, {1, 5, 0, 0}, {2, 1, 2, 0}});
    sections[Section::kVocabularyTrie] = bytes_of(DoubleArray::build(keys));
    write(sections);
  }
  BlobView view() const { return BlobView({reinterpret_cast<const char*>(lines_.data()), size_}); }

 private:
  void write(const std::map<Section, std::string>& sections) {
    std::string head, body;
    const std::size_t head_size = (32 + 24 * sections.size() + 63) / 64 * 64;
    const auto put = [](std::string& out, auto value) { out.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
    for (const auto& [section, bytes] : sections) {
      body.resize((body.size() + 63) / 64 * 64);
      put(head, static_cast<std::uint32_t>(section));
      put(head, std::uint32_t{0});
      put(head, std::uint64_t{head_size + body.size()});
      put(head, std::uint64_t{bytes.size()});
      body += bytes;
    }
    std::string all = "PSTKTEXT";
    put(all, kBlobVersion);
    put(all, std::uint32_t{0});
    put(all, std::uint64_t{head_size + body.size()});
    put(all, static_cast<std::uint32_t>(sections.size()));
    put(all, std::uint32_t{0});
    all += head;
    all.resize(head_size);
    all += body;
    size_ = all.size();
    lines_.resize(size_ / 64 + 1);
    std::memcpy(lines_.data(), all.data(), size_);
  }

  std::vector<Line> lines_;
  std::size_t size_ = 0;
};

// Every byte is a token, and a word of its own.
class ByteSource final : public TokenSource {
 public:
  void tokenize(std::string_view text, const TokenizeOptions& options, TokenBuffer& out) override {
    out.reset(options.with_spans);
    tokenized += text.size();
    for (std::size_t i = 0; i < text.size() && out.size() < options.tokens_wanted; ++i) {
      const auto at = static_cast<std::int32_t>(i);
      out.push(text[i], at, at + 1, at);
    }
    seen = std::max(seen, out.size());
  }
  std::size_t tokenized = 0;
  std::size_t seen = 0;
};

TextView view_of(std::string_view text, bool is_checked = true) { return {text.data(), text.size(), is_checked}; }

EncodeOptions options_for(std::int64_t tokens_max) {
  EncodeOptions options;
  options.tokens_max = tokens_max;
  options.overflow_tokens_max = 1 << 20;
  return options;
}

struct Encoded {
  RowStore rows;
  EncodeStatus status;

  Ids ids(std::size_t row) const {
    return {rows.ids.data() + rows.begin_of(row), rows.ids.data() + rows.ends.data()[row]};
  }
};

Encoded encode(TextView first, const TextView* second, const EncodeOptions& options, ByteSource& source) {
  static const LetterBlob blob;
  const RowEncoder encoder(blob.view());
  RowEncoder::Buffers buffers;
  Encoded encoded;
  TextBatch batch;
  batch.rows = 1;
  batch.first = &first;
  batch.second = second;
  encoded.status = encoder.encode(batch, 0, options, source, buffers, encoded.rows);
  return encoded;
}

Encoded encode(TextView first, const TextView* second, const EncodeOptions& options) {
  ByteSource source;
  return encode(first, second, options, source);
}

void chunks_overlap_by_the_stride() {
  const auto cut = [](std::size_t tokens, std::size_t kept, std::size_t stride, bool left) {
    std::vector<Chunk> chunks;
    cut_chunks(tokens, kept, stride, left, chunks);
    return chunks;
  };
  CHECK((cut(5, 2, 0, false) == std::vector<Chunk>{{0, 2}, {2, 4}, {4, 5}}));
  CHECK((cut(5, 2, 0, true) == std::vector<Chunk>{{3, 5}, {1, 3}, {0, 1}}));
  CHECK((cut(4, 3, 2, false) == std::vector<Chunk>{{0, 3}, {1, 4}}));
  CHECK((cut(4, 2, 1, true) == std::vector<Chunk>{{2, 4}, {1, 3}, {0, 2}}));
  CHECK((cut(3, 0, 0, true) == std::vector<Chunk>{{0, 0}, {0, 3}}));
  CHECK((cut(3, 3, 9, false) == std::vector<Chunk>{{0, 3}}));
}

void one_text_is_left_at_the_limit() {
  const std::string text(1000, 'x');
  ByteSource source;
  const Encoded cut = encode(view_of(text), nullptr, options_for(10), source);
  CHECK(cut.status == EncodeStatus::kOk && cut.rows.flags.data()[0] == kTruncated && cut.rows.length_of(0) == 10);
  CHECK(source.seen == 9);
  CHECK(encode(view_of(std::string(8, 'x')), nullptr, options_for(10)).rows.flags.data()[0] == 0);
}

void a_pair_of_long_texts_shares_an_odd_budget_by_true_lengths() {
  const std::string longer(50, 'l'), shorter(40, 's');
  const TextView second = view_of(longer);
  const Encoded row = encode(view_of(shorter), &second, options_for(8));
  CHECK((row.ids(0) == Ids{1, 's', 's', 2, 'l', 'l', 'l', 2}));
  const TextView other = view_of(shorter);
  CHECK((encode(view_of(longer), &other, options_for(8)).ids(0) == Ids{1, 'l', 'l', 'l', 2, 's', 's', 2}));
}

void overflow_of_a_pair_is_every_combination() {
  EncodeOptions options = options_for(7);
  options.return_overflow = true;
  const TextView second = view_of("xyz");
  const Encoded rows = encode(view_of("abc"), &second, options);
  // Of each text two tokens stay.
  const std::vector<Ids> wanted{{1, 'a', 'b', 2, 'x', 'y', 2}, {1, 'c', 2, 'x', 'y', 2}, {1, 'c', 2, 'z', 2},
                                {1, 'a', 'b', 2, 'z', 2}};
  CHECK(rows.rows.rows() == wanted.size());
  for (std::size_t row = 0; row < wanted.size(); ++row) CHECK(rows.ids(row) == wanted[row]);
  // The last row's second text is overflow, which keeps the type it was encoded with.
  CHECK(rows.rows.type_ids.data()[4] == 5 && rows.rows.type_ids.data()[rows.rows.ends.data()[3] - 2] == 1);
}

void what_cannot_be_cut_is_reported() {
  EncodeOptions options = options_for(2);
  const TextView second = view_of("xyz");
  CHECK(encode(view_of("abc"), &second, options).status == EncodeStatus::kLimitBelowSpecialTokens);
  options = options_for(6);
  options.truncation = Truncation::kOnlyFirst;
  CHECK(encode(view_of("abc"), &second, options).status == EncodeStatus::kTextTooShort);
  options.truncation = Truncation::kOnlySecond;
  CHECK(encode(view_of("abcdefgh"), nullptr, options).status == EncodeStatus::kSecondTextMissing);
  options = options_for(4);
  options.return_overflow = true;
  options.stride = 2;
  CHECK(encode(view_of("abcdefgh"), nullptr, options).status == EncodeStatus::kStrideTooBig);
  options.stride = 1;
  options.overflow_tokens_max = 27;
  CHECK(encode(view_of("abcdefgh"), nullptr, options).status == EncodeStatus::kTooMuchOverflow);
  options.overflow_tokens_max = 28;
  CHECK(encode(view_of("abcdefgh"), nullptr, options).status == EncodeStatus::kOk);
  CHECK(encode(TextView{"", std::size_t{1} << 31, true}, nullptr, options).status == EncodeStatus::kTextTooLong);
}

void bytes_that_are_not_utf8_are_an_empty_row() {
  const Encoded row = encode(view_of("a\xff", false), nullptr, options_for(5));
  CHECK(row.status == EncodeStatus::kOk && row.rows.flags.data()[0] == kInvalid && row.rows.length_of(0) == 0);
}

// Texts of one-letter words, and what they are as ids.
struct Letters {
  explicit Letters(std::size_t rows) {
    for (std::size_t row = 0; row < rows; ++row) {
      std::string text;
      for (std::size_t i = 0; i < row * 7 % 500; ++i) text += {static_cast<char>('a' + (row + i) % 10), ' '};
      texts.push_back(text);
    }
    for (const std::string& text : texts) views.push_back(view_of(text));
  }
  TextBatch batch() const {
    TextBatch made;
    made.rows = views.size();
    made.first = views.data();
    return made;
  }
  std::vector<std::string> texts;
  std::vector<TextView> views;
};

Ids encode_all(BatchEncoder& encoder, const Letters& letters, std::size_t threads) {
  ContextPool::Lease lease;
  encoder.contexts().take(lease);
  EncodedBatch encoded;
  CHECK(encoder.encode(letters.batch(), options_for(100), threads, lease, encoded).status == EncodeStatus::kOk);
  std::size_t width = 0;
  Padding padding;
  padding.multiple = 8;
  CHECK(encoder.padded_width(encoded, padding, width).status == EncodeStatus::kOk && width == 104);
  Ids ids(letters.texts.size() * width), types(ids.size());
  PaddedOutput out;
  out.ids = ids.data();
  out.type_ids = types.data();
  encoder.copy_padded(encoded, padding, width, threads, out);
  CHECK(types.back() == 3);
  return ids;
}

void threads_change_nothing() {
  const LetterBlob blob;
  const Tokenizer tokenizer(blob.view());
  BatchEncoder encoder(tokenizer, 1 << 16, 3);
  const Letters letters(2000);
  const Ids one = encode_all(encoder, letters, 1);
  for (std::size_t row = 0; row < letters.texts.size(); ++row) {
    const std::size_t words = std::min<std::size_t>(letters.texts[row].size() / 2, 98);
    CHECK(one[row * 104] == 1 && one[row * 104 + words + 1] == 2);
    for (std::size_t i = 0; i < words; ++i) CHECK(one[row * 104 + 1 + i] == letters.texts[row][2 * i] - 'a' + 10);
    if (words < 98) CHECK(one[row * 104 + words + 2] == 7);
  }
  for (const std::size_t threads : {2, 3, 8}) CHECK(encode_all(encoder, letters, threads) == one);
}

void callers_share_contexts_and_helpers() {
  const LetterBlob blob;
  const Tokenizer tokenizer(blob.view());
  BatchEncoder encoder(tokenizer, 1 << 16, 2);
  const Letters letters(600);
  const Ids wanted = encode_all(encoder, letters, 1);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int i = 0; i < 5; ++i) CHECK(encode_all(encoder, letters, 1 + i % 2) == wanted);
    });
  for (std::thread& caller : callers) caller.join();
  ContextPool::Lease first, second, third;
  CHECK(encoder.contexts().try_take(first) && encoder.contexts().try_take(second));
  CHECK(!encoder.contexts().try_take(third) && !third);
}

void a_forked_child_starts_anew() {
  const LetterBlob blob;
  const Tokenizer tokenizer(blob.view());
  BatchEncoder encoder(tokenizer, 1 << 16, 2);
  const Letters letters(600);
  const Ids wanted = encode_all(encoder, letters, 2);
  ContextPool::Lease lent;
  encoder.contexts().take(lent);
  const pid_t child = fork();
  if (child == 0) _exit(encode_all(encoder, letters, 2) == wanted ? 0 : 1);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void workers_do_without_helpers_that_never_come() {
  Workers none(0);
  std::atomic<int> calls{0};
  const auto count = [](void* argument) noexcept { static_cast<std::atomic<int>*>(argument)->fetch_add(1); };
  none.run(5, count, &calls);
  CHECK(calls == 1);
  Workers some(2);
  for (int i = 0; i < 50; ++i) some.run(2, count, &calls);
  CHECK(calls >= 51 && calls <= 151);
}

}  // namespace

int main() {
  chunks_overlap_by_the_stride();
  one_text_is_left_at_the_limit();
  a_pair_of_long_texts_shares_an_odd_budget_by_true_lengths();
  overflow_of_a_pair_is_every_combination();
  what_cannot_be_cut_is_reported();
  bytes_that_are_not_utf8_are_an_empty_row();
  a_forked_child_starts_anew();
  threads_change_nothing();
  callers_share_contexts_and_helpers();
  workers_do_without_helpers_that_never_come();
}
