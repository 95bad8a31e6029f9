// Whatever allocation fails, encoding says so or succeeds, and the tokenizer goes on as before; and what takes
// long in making contexts keeps no other thread waiting.
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

#include "../fuzz/tokenizer_fuzz.cc"

namespace {

// Sees every allocation of its thread.
struct Watch {
  long until_failure = 0;  // counts down to the allocation that fails; 0: none does
  void (*on_context)() = nullptr;
};
thread_local Watch watch;

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (watch.until_failure && --watch.until_failure == 0) throw std::bad_alloc();
  if (watch.on_context && bytes == sizeof(EncodeContext)) watch.on_context();
  void* const memory = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
// Sanitizers bring their own of each that is not here.
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return operator new(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

// Texts of more than one unit of work, as threads share it.
std::vector<std::string> texts() {
  std::string mixed = "a \u00c9 ab e\u0301 [S] Ab B \u4e2d aab 12 [SS \uac01!";
  for (int i = 0; i < 40; ++i) mixed += " ab" + std::string(static_cast<std::size_t>(i), 'a') + "\u0323b";
  std::vector<std::string> all{"ab", mixed, "\xff", "", std::string(300, 'a')};
  while (all.size() < 40) all.push_back(mixed + std::to_string(all.size()));
  return all;
}

struct Rows {
  EncodeStatus status;
  std::vector<std::int32_t> ids, offsets;

  bool operator==(const Rows&) const = default;
};

// Allocates as contexts of callers do, and may throw like them; results are kept where no failure is wanted.
Rows encode(BatchEncoder& encoder, const std::vector<TextView>& views, std::size_t threads, long fails_at, bool& failed) {
  TextBatch batch;
  batch.rows = views.size();
  batch.first = views.data();
  EncodeOptions options;
  options.tokens_max = 20;
  options.stride = 1;
  options.return_overflow = true;
  options.overflow_tokens_max = 1 << 20;
  options.return_offsets = options.return_word_ids = options.return_special_mask = true;
  EncodedBatch encoded;
  ContextPool::Lease lease;
  Rows rows{EncodeStatus::kOutOfMemory, {}, {}};
  watch.until_failure = fails_at;
  try {
    encoder.contexts().take(lease);
    rows.status = encoder.encode(batch, options, threads, lease, encoded).status;
  } catch (const std::bad_alloc&) {
  }
  failed = fails_at && watch.until_failure == 0;
  watch.until_failure = 0;
  if (rows.status != EncodeStatus::kOk) return rows;
  rows.ids.resize(encoded.tokens());
  rows.offsets.resize(2 * encoded.tokens());
  PackedOutput out;
  out.ids = rows.ids.data();
  out.offsets = rows.offsets.data();
  encoded.copy_to(out);
  return rows;
}

void any_allocation_may_fail(const Subject& subject, const std::vector<TextView>& views, std::size_t threads) {
  bool failed = false;
  BatchEncoder used(subject.fast, kCacheBytes, 2);
  const Rows wanted = encode(used, views, 1, 0, failed);
  CHECK(wanted.status == EncodeStatus::kOk);
  long fails_at = 0;
  do {
    ++fails_at;
    BatchEncoder fresh(subject.fast, kCacheBytes, 2);
    const Rows hurt = encode(fresh, views, threads, fails_at, failed);
    CHECK(hurt == wanted || (failed && hurt.status == EncodeStatus::kOutOfMemory));
    bool again = false;
    CHECK(encode(fresh, views, threads, 0, again) == wanted);
    ContextPool::Lease first, second;
    CHECK(fresh.contexts().try_take(first) && fresh.contexts().try_take(second));
  } while (failed);
  CHECK(fails_at > 10);
}

void opening_may_fail(const Subject& subject) {
  bool failed = true;
  for (long fails_at = 1; failed; ++fails_at) {
    watch.until_failure = fails_at;
    try {
      const Tokenizer tokenizer{BlobView(subject.blob)};
      BatchEncoder encoder(tokenizer, kCacheBytes, 2);
      failed = watch.until_failure == 0;
    } catch (const std::bad_alloc&) {
    }
    watch.until_failure = 0;
  }
}

std::mutex mutex;
std::condition_variable changed;
bool is_making = false, may_go_on = false;

void threads_do_not_wait_for_contexts_that_others_make(const Subject& subject) {
  BatchEncoder encoder(subject.fast, kCacheBytes, 2);
  ContextPool::Lease lease;
  encoder.contexts().take(lease);
  std::thread maker([&] {
    watch.on_context = [] {
      std::unique_lock lock(mutex);
      is_making = true;
      changed.notify_all();
      CHECK(changed.wait_for(lock, std::chrono::seconds(60), [] { return may_go_on; }));
    };
    ContextPool::Lease other;
    encoder.contexts().take(other);
    watch.on_context = nullptr;
  });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [] { return is_making; });
  }
  lease = {};
  CHECK(encoder.contexts().try_take(lease));
  ContextPool::Lease third;
  CHECK(!encoder.contexts().try_take(third));  // the one that is being made is counted
  {
    const std::lock_guard lock(mutex);
    may_go_on = true;
  }
  changed.notify_all();
  maker.join();
}

}  // namespace

int main() {
  const std::vector<std::string> all = texts();
  std::vector<TextView> views;
  for (const std::string& text : all) views.push_back({text.data(), text.size(), false});
  const std::vector<TextView> few(views.begin(), views.begin() + 5);
  const auto subjects = read_subjects();
  for (const auto& subject : subjects) {
    any_allocation_may_fail(*subject, few, 1);
    opening_may_fail(*subject);
  }
  any_allocation_may_fail(*subjects.front(), views, 2);
  threads_do_not_wait_for_contexts_that_others_make(*subjects.front());
}
