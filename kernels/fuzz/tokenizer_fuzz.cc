// Any text, under any options, with any compiled tokenizer: no crash, the fast path equals the general way, and
// the invariants that callers rely on hold.
//
// Compiled tokenizers are read from the folder that PENSTOCK_FUZZ_BLOBS names (tests/support/fuzz_blobs.py
// writes them). Built with libFuzzer by -DPENSTOCK_FUZZ=ON; kernels/tests/fuzz_smoke_test.cc runs the same body
// on seeded random input everywhere.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../tests/check.h"
#include "penstock/encode.h"
#include "penstock/tokenizer.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

// A cache so small that words push each other out.
constexpr std::size_t kCacheBytes = std::size_t{16} << 10;

struct Subject {
  explicit Subject(std::string bytes)
      : blob(std::move(bytes)),
        fast(BlobView(blob)),
        general(BlobView(blob), false),
        fast_context(fast.make_context(kCacheBytes)),
        general_context(general.make_context(0)),
        encoder(fast, kCacheBytes, 2) {}

  std::string blob;
  Tokenizer fast, general;
  std::unique_ptr<Tokenizer::Context> fast_context, general_context;
  BatchEncoder encoder;
};

std::vector<std::unique_ptr<Subject>> read_subjects() {
  const char* folder = std::getenv("PENSTOCK_FUZZ_BLOBS");
  if (!folder) {
    std::fprintf(stderr, "PENSTOCK_FUZZ_BLOBS is not set: run python -m tests.support.fuzz_blobs FOLDER first\n");
    std::abort();
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".blob") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  CHECK(!paths.empty());
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    subjects.push_back(
        std::make_unique<Subject>(std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>())));
  }
  return subjects;
}

void check_equal(const TokenBuffer& is, const TokenBuffer& wanted, bool with_spans) {
  CHECK(is.size() == wanted.size());
  const auto equal = [&](const std::int32_t* a, const std::int32_t* b) { return std::equal(a, a + is.size(), b); };
  CHECK(equal(is.ids(), wanted.ids()));
  if (!with_spans) return;
  CHECK(equal(is.begins(), wanted.begins()));
  CHECK(equal(is.ends(), wanted.ends()));
  CHECK(equal(is.words(), wanted.words()));
}

void check_spans(const TokenBuffer& tokens, std::string_view text) {
  const auto longest = static_cast<std::int32_t>(count_code_points(text));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    CHECK(0 <= tokens.begins()[i] && tokens.begins()[i] <= tokens.ends()[i] && tokens.ends()[i] <= longest);
    CHECK(i == 0 || tokens.words()[i - 1] <= tokens.words()[i]);
  }
}

void check_tokens(Subject& subject, std::string_view text, bool split_special, std::size_t limit) {
  TokenBuffer wanted, is;
  TokenizeOptions options;
  options.split_special_tokens = split_special;
  options.with_spans = true;
  subject.general.tokenize(text, options, *subject.general_context, wanted);
  check_spans(wanted, text);
  // Twice: the second time the words are in the cache.
  for (int pass = 0; pass < 2; ++pass) {
    for (const bool with_spans : {true, false}) {
      options.with_spans = with_spans;
      subject.fast.tokenize(text, options, *subject.fast_context, is);
      check_equal(is, wanted, with_spans);
    }
  }
  options.tokens_wanted = limit;
  subject.fast.tokenize(text, options, *subject.fast_context, is);
  CHECK(is.size() >= std::min(limit, wanted.size()) && is.size() <= wanted.size());
  CHECK(std::equal(is.ids(), is.ids() + std::min(limit, is.size()), wanted.ids()));
}

void check_rows(Subject& subject, std::string_view first, std::string_view second, std::uint8_t flags,
                std::int64_t tokens_max, std::int64_t stride) {
  EncodeOptions options;
  options.tokens_max = tokens_max;
  options.stride = stride;
  options.overflow_tokens_max = 1 << 16;
  options.truncate_left = flags & 1;
  options.return_overflow = flags & 2;
  options.truncation = static_cast<Truncation>(flags >> 2 & 3);
  options.return_offsets = options.return_word_ids = options.return_special_mask = true;
  const TextView text{first.data(), first.size(), false}, pair{second.data(), second.size(), false};
  TextBatch batch;
  batch.rows = 1;
  batch.first = &text;
  batch.second = second.data() ? &pair : nullptr;
  ContextPool::Lease lease;
  subject.encoder.contexts().take(lease);
  EncodedBatch encoded;
  const EncodeResult result = subject.encoder.encode(batch, options, 1, lease, encoded);
  if (result.status != EncodeStatus::kOk) return;
  CHECK(encoded.rows() >= 1 && (options.return_overflow || encoded.rows() == 1));
  std::vector<std::uint8_t> valid(encoded.rows());
  PackedOutput out;
  out.valid = valid.data();
  encoded.copy_to(out);
  CHECK(static_cast<bool>(valid[0]) == (is_utf8(first) && is_utf8(second)));
  // With no room for any token, all of them make one row of the overflow, however long (tokenizers does so).
  if (tokens_max > 0 && options.truncation != Truncation::kNone && !options.return_overflow)
    CHECK(encoded.longest() <= static_cast<std::size_t>(tokens_max));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::unique_ptr<Subject>> subjects = read_subjects();
  if (size < 6) return 0;
  Subject& subject = *subjects[data[0] % subjects.size()];
  const std::string_view all(reinterpret_cast<const char*>(data + 6), size - 6);
  if (is_utf8(all)) check_tokens(subject, all, data[1] & 1, 1 + data[2] % 64);
  const bool has_pair = data[1] & 2;
  const std::size_t cut = std::min<std::size_t>(data[3], all.size());
  const std::string_view first = all.substr(0, has_pair ? cut : all.size());
  const std::string_view second = has_pair ? all.substr(cut) : std::string_view();
  check_rows(subject, first, second, data[1] >> 2, data[4] % 64 - 1, data[5] % 16);
  return 0;
}
