// Threads of our own for big batches: started when first needed, parked between, and anew
// in a forked child.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace penstock {

// Rises in the child whenever the process forks. What was locked, or lent to another thread, in the parent
// stays so forever in the child: whoever keeps such things starts with fresh ones when this has changed.
std::uint64_t fork_generation() noexcept;

// A bounded number of parked threads that help callers. Any number of threads may call run() at once; they share
// the helpers. Threads run with all signals blocked.
class Workers {
 public:
  using Job = void (*)(void* argument) noexcept;

  // At most `threads_max` helpers ever run.
  explicit Workers(std::size_t threads_max);
  // Waits for helpers that are running. In a forked child the parent's helpers are forgotten instead.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Calls job(argument) here and at the same time on up to `helpers` others; returns when all calls have
  // ended. Helpers that are not free by the time the caller's own call has ended are not waited for, so the
  // job must share its work by itself, and be complete if it was called only once. Starts threads if there
  // are too few; if the system refuses them, does without.
  void run(std::size_t helpers, Job job, void* argument) noexcept;

 private:
  struct State;

  State* state();

  std::size_t threads_max_;
  std::atomic<State*> state_{nullptr};
};

}  // namespace penstock
